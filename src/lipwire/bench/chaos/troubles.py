"""What happens to servers while they are asked: deaths, loads, unloads, avatars that change."""

import random
import threading
from collections.abc import Callable
from typing import Final

import grpc

from lipwire.bench.chaos.cast import Cast
from lipwire.bench.chaos.clients import Tally
from lipwire.bench.chaos.servers import Farm, Process
from lipwire.domain import LipwireError
from lipwire.rpc.connection import CompositingConnection
from lipwire.rpc.generated import management_pb2
from lipwire.rpc.generated.inference_pb2_grpc import InferenceServiceStub
from lipwire.rpc.transport import UNLIMITED_BYTES, open_channel

_TIMEOUT_S: Final = 60.0
_LONGEST_AWAY_S: Final = 3.0
_LONGEST_PAUSE_S: Final = 2.5


class Troubles:
    """Threads that kill or pause inference servers, load and unload avatars, and replace packages,
    at random moments, from ``start`` to ``stop``. Errors are counted in the tally, not raised."""

    def __init__(
        self,
        farm: Farm,
        cast: Cast,
        tally: Tally,
        *,
        kill_every_s: float,
        manage_every_s: float,
        replace_every_s: float,
        seed: int,
    ) -> None:
        """What happens to the servers of ``farm`` and the avatars of ``cast`` is drawn from
        ``seed`` and counted in ``tally``. The arguments in seconds are the average times between
        two events of one kind: killing, ending or pausing a server (for each inference server but
        the first), loading or unloading an avatar, and replacing a package."""
        self._farm = farm
        self._cast = cast
        self._tally = tally
        self._stopped = threading.Event()
        self._threads = [
            self._thread(f"{seed} kill {process.name}", kill_every_s, self._killer(process))
            for process in farm.inference[1:]
        ]
        self._threads.append(self._thread(f"{seed} manage", manage_every_s, self._manage))
        if cast.changing:
            self._threads.append(self._thread(f"{seed} replace", replace_every_s, self._replace))

    def start(self) -> None:
        """Start the threads, which act at random moments until ``stop``. Returns at once. Call it
        once."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Make each thread finish what it is doing, and wait for all of them. Servers that were
        killed have been started again by then."""
        self._stopped.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    def _thread(
        self, seed: str, every_s: float, happen: Callable[[random.Random], None]
    ) -> threading.Thread:
        chance = random.Random(seed)

        def run() -> None:
            while not self._stopped.wait(chance.expovariate(1 / every_s)):
                try:
                    happen(chance)
                except Exception as error:
                    self._tally.error(repr(error))

        return threading.Thread(target=run)

    def _killer(self, process: Process) -> Callable[[random.Random], None]:
        def happen(chance: random.Random) -> None:
            way = chance.choice(("killed", "killed", "killed", "drained", "paused"))
            self._tally.count(way)
            if way == "paused":
                process.pause(_LONGEST_PAUSE_S * chance.random())
                return
            if way == "killed":
                process.kill()
            else:
                process.drain()
            self._stopped.wait(_LONGEST_AWAY_S * chance.random())
            process.start_again()

        return happen

    def _manage(self, chance: random.Random) -> None:
        """Load or unload an avatar, on the compositing server or behind its back."""
        name = chance.choice(self._cast.roles).name
        unloading = chance.random() < 0.7
        self._tally.count("unload" if unloading else "load")
        if chance.random() < 0.5:
            address = f"127.0.0.1:{self._farm.compositing.port}"
            with CompositingConnection(address) as connection:
                try:
                    if unloading:
                        connection.unload(name, _TIMEOUT_S)
                    else:
                        connection.load(name, _TIMEOUT_S)
                except LipwireError as error:
                    self._tally.error(f"{'unload' if unloading else 'load'} {name}: {error}")
            return
        process = self._farm.living(chance)
        if process is None:
            return
        address = f"127.0.0.1:{process.port}"
        with open_channel(address, max_message_bytes=UNLIMITED_BYTES) as channel:
            stub = InferenceServiceStub(channel)
            try:
                if unloading:
                    unload = management_pb2.UnloadModelRequest(model_id=name)
                    stub.UnloadModel(unload, timeout=_TIMEOUT_S)
                else:
                    load = management_pb2.LoadModelRequest(model_id=name)
                    stub.LoadModel(load, timeout=_TIMEOUT_S)
            except grpc.RpcError:
                self._tally.count("manager met a dead server")

    def _replace(self, chance: random.Random) -> None:
        self._tally.count("replaced")
        chance.choice(self._cast.changing).replace()
