"""What tests of the scheduler share: a clock, a network that is held back, numbers for faces."""

import threading
from collections.abc import Callable

import numpy as np
from tests.support.waiting import WAIT_S, Clock, until

from lipwire.domain import Float32Array, InvalidInput
from lipwire.scheduling.jobs import Array, Job
from lipwire.scheduling.scheduler import Scheduler


class Network:
    """What workers run: adds the window to the face. Held back until told to go on."""

    def __init__(self, clock: Clock, frame_s: float = 0.0) -> None:
        self.clock = clock
        self.frame_s = frame_s
        self.runs: list[tuple[str, int]] = []
        self.gate = threading.Semaphore(0)
        self.open = False
        self.errors: dict[str, BaseException] = {}
        self.lock = threading.Lock()

    def __call__(self, key: str, faces: Array, windows: Float32Array) -> Array:
        with self.lock:
            self.runs.append((key, len(faces)))
        if not self.open:
            assert self.gate.acquire(timeout=WAIT_S)
        with self.lock:
            self.clock.now += self.frame_s * len(faces)
        if key in self.errors:
            raise self.errors[key]
        if np.isnan(windows).any():
            raise InvalidInput("windows holds NaN")
        return np.asarray(faces + windows.astype(faces.dtype)[:, :1], faces.dtype)

    def go_on(self, runs: int = 1) -> None:
        self.gate.release(runs)

    def go_on_freely(self) -> None:
        self.open = True
        self.gate.release(1000)


def frames(count: int, first: int = 0) -> tuple[Array, Float32Array]:
    """Faces numbered from ``first``, and windows that add 100 to them."""
    faces = np.repeat(np.arange(first, first + count, dtype=np.uint8)[:, None], 4, axis=1)
    return faces, np.full((count, 3), 100.0, np.float32)


def expected(count: int, first: int = 0) -> Array:
    return frames(count, first)[0] + np.uint8(100)


def busy(scheduler: Scheduler[str], network: Network) -> Job[str]:
    """Give the only worker something to do, which goes on until the network is told."""
    before = len(network.runs)
    job = scheduler.submit("blocker", *frames(1))
    until(lambda: len(network.runs) > before)
    return job


# -- running -------------------------------------------------------------------------------------


Make = Callable[..., Scheduler[str]]
