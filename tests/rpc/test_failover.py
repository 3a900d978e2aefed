"""Inference servers that are killed, stopped, drained and started again under a compositing server
that clients ask all the while: real processes, and every frame is looked at."""

import os
import random
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from tests.cli.conftest import Served, Serving, serving_in
from tests.support.ownports import own_port
from tests.support.waiting import until

from lipwire.rpc.connection import CompositingConnection
from lipwire.rpc.generated.compositing_pb2 import CompositeBatchRequest

pytestmark = pytest.mark.slow

NAMES = tuple(f"user_{number}" for number in range(6))
CLIENTS = 4
BATCH = 3
WAIT_S = 300.0
"""For what takes seconds, unless the machine is busy with something else."""


@pytest.fixture(scope="module")
def models_root(
    tmp_path_factory: pytest.TempPathFactory, make_package: Callable[..., Path]
) -> Path:
    root = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(NAMES):
        make_package(root / name, frames=6, seed=seed)
    return root


class Farm:
    """Two inference servers, a compositing server over them, and clients that never rest."""

    def __init__(self, serving: Serving, models_root: Path, folder: Path) -> None:
        self._serving = serving
        self._root = models_root
        self.ports = [own_port(), own_port()]
        self.inference = [self._start(port) for port in self.ports]
        for one in self.inference:
            one.wait_for(r"Inference server listening on port")
        urls = ", ".join(f"'127.0.0.1:{port}'" for port in self.ports)
        config = folder / "compositing.yaml"
        config.write_text(f"inference_server: {{url: [{urls}], timeout_seconds: 120}}\n")
        self.compositing = serving(
            "compositing-server", "-c", config, "--models-root", models_root, "--port", 0
        )
        self.connection = CompositingConnection(self.compositing.address)
        self.errors: list[str] = []
        self.done = 0
        self._expected = {name: self._frames(name) for name in NAMES}
        assert len(set(self._expected.values())) == len(NAMES), "avatars can be told apart"
        self._stop = threading.Event()
        self._clients = [
            threading.Thread(target=self._client, args=(number,)) for number in range(CLIENTS)
        ]
        for client in self._clients:
            client.start()

    def _start(self, port: int) -> Served:
        return self._serving("inference-server", "--models-root", self._root, "--port", port)

    def _frames(self, name: str) -> tuple[bytes, ...]:
        speech = np.random.default_rng(5).normal(0, 1, (BATCH, 32, 16, 16)).astype("<f4")
        request = CompositeBatchRequest(
            model_id=name, audio_features=speech.tobytes(), batch_size=BATCH
        )
        return self.connection.composite(request, timeout_s=WAIT_S).frames

    def _client(self, number: int) -> None:
        choice = random.Random(number)
        while not self._stop.is_set():
            name = choice.choice(NAMES)
            try:
                if self._frames(name) != self._expected[name]:
                    self.errors.append(f"another picture than before for {name}")
            except Exception as error:
                self.errors.append(repr(error))
            self.done += 1
            self._stop.wait(0.02)  # servers start meanwhile

    def go_on(self, requests: int = 30) -> None:
        """Until so many more requests were answered."""
        target = self.done + requests
        until(
            lambda: self.done >= target,
            timeout_s=WAIT_S,
            seen=lambda: f"{self.done} of {target} requests were answered",
        )
        assert self.errors == []

    def restart(self, number: int) -> None:
        """Start it again, and wait until the compositing server has found it."""
        self.inference[number] = self._start(self.ports[number])
        self.compositing.wait_for(rf"127.0.0.1:{self.ports[number]} is back")

    def close(self) -> None:
        self._stop.set()
        for client in self._clients:
            client.join()
        self.connection.close()


@pytest.fixture
def farm(models_root: Path, tmp_path: Path) -> Iterator[Farm]:
    with ExitStack() as stack:
        farm = Farm(serving_in(stack, tmp_path), models_root, tmp_path)
        stack.callback(farm.close)
        yield farm


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="signals are those of Unix")
def test_no_client_sees_an_error_while_one_inference_server_lives(farm: Farm) -> None:
    farm.go_on()
    fds = Path(f"/proc/{farm.compositing.process.pid}/fd")
    threads = Path(f"/proc/{farm.compositing.process.pid}/task")
    before = [len(list(folder.iterdir())) for folder in (fds, threads) if folder.is_dir()]

    farm.inference[0].process.kill()
    farm.go_on()
    farm.inference[0].process.wait(WAIT_S)
    farm.restart(0)
    farm.go_on()

    # Drained: what it has in hand it finishes, the rest goes to the other.
    farm.inference[1].process.send_signal(signal.SIGTERM)
    farm.go_on()
    assert farm.inference[1].process.wait(WAIT_S) == 0
    farm.restart(1)
    farm.go_on()

    # Stopped: its connections stay open, and nobody answers.
    os.kill(farm.inference[0].process.pid, signal.SIGSTOP)
    farm.go_on()
    os.kill(farm.inference[0].process.pid, signal.SIGCONT)
    farm.go_on()

    after = [len(list(folder.iterdir())) for folder in (fds, threads) if folder.is_dir()]
    assert all(now <= then + 12 for now, then in zip(after, before, strict=True)), (before, after)
    assert farm.compositing.end() == 0
