"""Servers that are asked again and again, each by a thread of its own, so that one that hangs does
not keep the others from being shown."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from lipwire.domain import LipwireError
from lipwire.domain.closing import Closing

if TYPE_CHECKING:
    from lipwire.rpc.serverstatus import ServerStatus

_LEAVE_S: Final = 5.0


class Asked(Protocol):
    """A connection to a server that can be asked for its status: ``StatusConnection``, or a
    stand-in."""

    @property
    def address(self) -> str:
        """The server's address, HOST:PORT."""
        ...

    def status(self, timeout_s: float) -> ServerStatus:
        """Return the server's status, waiting for it at most ``timeout_s`` seconds. Raises
        LipwireError where it cannot be asked or does not answer in time."""
        ...

    def close(self) -> object:
        """Close the connection; calls under way fail."""
        ...


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known of the server at ``address``: its ``status`` (None before it has answered, and
    where the last call failed), the ``error`` of the last call (empty where it did not fail), and
    for each avatar how often a second it was used between the last two answers (``rates``)."""

    address: str
    status: ServerStatus | None = None
    error: str = ""
    rates: Mapping[str, float] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """The sum of ``rates``: how often a second any avatar was used between the last two
        answers."""
        return sum(self.rates.values())


class Watch(Closing):
    """Asks servers for their status, each in a thread of its own, and keeps the last answers. A
    context manager. Thread-safe."""

    def __init__(
        self,
        servers: Sequence[Asked],
        *,
        timeout_s: float,
        every_s: float | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Asks each of ``servers`` at once, and again ``every_s`` seconds after each answer; only
        once where ``every_s`` is None. ``servers`` are connections, which ``close`` closes. A call
        waits at most ``timeout_s`` seconds. ``clock()`` returns seconds, for rates."""
        self._servers: Final = tuple(servers)
        self._timeout_s = timeout_s
        self._every_s = every_s
        self._clock = clock
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._seen = {server.address: Seen(server.address) for server in servers}
        self._threads = [
            threading.Thread(target=self._ask, args=(server,), name="lipwire-top", daemon=True)
            for server in servers
        ]
        for thread in self._threads:
            thread.start()

    def seen(self) -> list[Seen]:
        """Return what is known of each server now, in the order of ``servers``. Does not wait."""
        with self._lock:
            return [self._seen[server.address] for server in self._servers]

    def wait(self) -> None:
        """Wait until each server has answered or failed. For servers that are asked once
        (``every_s`` is None); otherwise this waits until ``close`` is called in another thread."""
        for thread in self._threads:
            thread.join()

    def close(self) -> None:
        """Stop asking, close the connections, and wait for each thread's end, at most five seconds
        for each of them."""
        self._ended.set()
        for server in self._servers:
            server.close()
        for thread in self._threads:
            thread.join(_LEAVE_S)

    def _ask(self, server: Asked) -> None:
        before: tuple[float, ServerStatus] | None = None
        while not self._ended.is_set():
            try:
                status = server.status(self._timeout_s)
            except (LipwireError, ValueError) as error:  # ValueError: the channel was closed
                before = None
                seen = Seen(server.address, error=str(error))
            else:
                now_s = self._clock()
                seen = Seen(server.address, status, rates=_rates(before, (now_s, status)))
                before = (now_s, status)
            with self._lock:
                self._seen[server.address] = seen
            if self._every_s is None or self._ended.wait(self._every_s):
                return


def _rates(
    before: tuple[float, ServerStatus] | None, now: tuple[float, ServerStatus]
) -> dict[str, float]:
    """Uses a second of each avatar between two answers; one that was unloaded meanwhile, or a
    server that was started anew, counts from 0."""
    if before is None or now[0] <= before[0]:
        return {}
    seconds = now[0] - before[0]
    uses = {model.name: model.uses for model in before[1].models}
    rates = {}
    for model in now[1].models:
        then = uses.get(model.name, 0)
        rates[model.name] = (model.uses - then if model.uses >= then else model.uses) / seconds
    return rates
