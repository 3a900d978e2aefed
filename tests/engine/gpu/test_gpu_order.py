"""Frames by number where copies wait in a stream, as a GPU's do."""

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from tests.engine.standin import AVATARS, FRAMES, PLENTY, TUNING, opened, speech
from tests.support.hostmemory import HostMemory

from lipwire.domain import AvatarInvalid
from lipwire.engine import Device, runtime
from lipwire.engine.gpu.memory.cropplaces import CROP_BYTES
from lipwire.engine.gpu.memory.devicememory import Bytes
from lipwire.engine.gpu.onnx import gpusessions
from lipwire.engine.runtime import CudaOptions


class Late(HostMemory):
    """Copies are done when they are waited for, or when a session needs them: of one stream in
    their order, of several in any."""

    def __init__(self, size_bytes: int = PLENTY) -> None:
        super().__init__(size_bytes)
        self._standing: dict[int, list[Callable[[], None]]] = {}

    def upload(self, stream: int, address: int, source: Bytes) -> None:
        self._stand(stream, lambda: HostMemory.upload(self, stream, address, source))

    def download(self, stream: int, target: Bytes, address: int) -> None:
        self._stand(stream, lambda: HostMemory.download(self, stream, target, address))

    def copy(self, stream: int, target: int, source: int, size_bytes: int) -> None:
        self._stand(stream, lambda: HostMemory.copy(self, stream, target, source, size_bytes))

    def wait(self, stream: int) -> None:
        super().wait(stream)
        self.finish(stream)

    def finish(self, stream: int) -> None:
        for work in self._standing.pop(stream, []):
            work()

    def _stand(self, stream: int, work: Callable[[], None]) -> None:
        self._standing.setdefault(stream, []).append(work)


class InStream:
    """A session that computes when its stream comes to it. ``fails`` once, where it says so."""

    def __init__(self, session: Any, memory: Late, stream: int, fails: list[Exception]) -> None:
        self._session, self._memory, self._stream, self._fails = session, memory, stream, fails

    def io_binding(self) -> Any:
        return self._session.io_binding()

    def run_with_iobinding(self, binding: Any, options: Any) -> None:
        if self._fails:
            raise self._fails.pop()
        self._memory.finish(self._stream)
        self._session.run_with_iobinding(binding, options)


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> tuple[Late, list[Exception]]:
    memory, fails = Late(), list[Exception]()
    whole = runtime.open_session

    def opened(graph: bytes, options: Any, device: Device, cuda: CudaOptions) -> InStream:
        return InStream(whole(graph, options, device, cuda), memory, cuda.stream, fails)

    monkeypatch.setattr(gpusessions, "open_session", opened)
    return memory, fails


@pytest.mark.slow
def test_copies_that_wait_their_turn_change_nothing(
    late: Any, folders: Any, frames: Any, wanted: Any
) -> None:
    memory, _ = late
    tuning = replace(TUNING, streams=3, crop_bytes=2 * FRAMES * CROP_BYTES)
    engine, models = opened(folders, frames, memory, tuning)
    jobs = [(which, [first, first + 1]) for which in range(AVATARS) for first in (0, 2, 4)] * 2
    random.Random(1).shuffle(jobs)
    windows = speech(2)
    right = {(w, n[0]): wanted(w, n, windows) for w, n in jobs}

    def run(job: Any) -> bool:
        which, numbers = job
        made = engine.infer_frames(models[which], numbers, windows)
        return bool((made == right[which, numbers[0]]).all())

    with engine, ThreadPoolExecutor(4) as threads:
        assert all(threads.map(run, jobs))
    assert (memory.regions, memory.host_blocks) == (0, 0)


def test_a_run_that_fails_leaves_no_copy_that_comes_later(
    late: Any, folders: Any, frames: Any, wanted: Any
) -> None:
    """Room for one avatar's crops, which go to another while the first one's copies may be on their
    way, in another stream."""
    memory, fails = late
    tuning = replace(TUNING, streams=2, crop_bytes=FRAMES * CROP_BYTES)
    engine, models = opened(folders, frames, memory, tuning)
    windows = speech(2)
    with engine:
        for which in (0, 1):  # each has a stream of its own from here on
            engine.infer(models[which], frames[which].crops[:2], windows)
        fails.append(RuntimeError("a kernel failed"))
        with pytest.raises(AvatarInvalid, match="a kernel failed"):
            engine.infer_frames(models[0], [0, 1], windows)
        for _ in range(2):
            made = engine.infer_frames(models[1], [0, 1], windows)
            assert (made == wanted(1, [0, 1], windows)).all()
        engine.infer(models[0], frames[0].crops[:2], windows)
        made = engine.infer_frames(models[1], [0, 1], windows)
        assert (made == wanted(1, [0, 1], windows)).all()
        stats = engine.crops
        assert stats is not None
        assert stats.hits == 4
