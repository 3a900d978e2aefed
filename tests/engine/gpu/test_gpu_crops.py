"""Frames by number, on a device that keeps their crops: the same mouths, with less to bring.

On the stand-in for a GPU, as in ``test_gpu``.
"""

import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tests.engine.standin import AVATARS, FRAMES, PLENTY, TUNING, Shown, opened, speech
from tests.support.compilednetworks import load_both
from tests.support.hostmemory import HostMemory

from lipwire.domain import InvalidInput, StorageFailed, ping_pong
from lipwire.engine import Engine
from lipwire.engine.gpu.memory.cropplaces import CROP_BYTES
from lipwire.engine.gpu.memory.crops import BLOCK_FRAMES
from lipwire.engine.gpu.memory.devicememory import Bytes
from lipwire.engine.gpu.streampool import StreamPool
from lipwire.engine.runtime import CudaOptions

pytestmark = pytest.mark.slow


class Counting(HostMemory):
    """Counts the bytes that are uploaded."""

    def __init__(self) -> None:
        super().__init__(PLENTY)
        self.uploaded_bytes = 0
        self.copies: list[int] = []

    def upload(self, stream: int, address: int, source: Bytes) -> None:
        self.uploaded_bytes += source.nbytes
        super().upload(stream, address, source)

    def copy(self, stream: int, target: int, source: int, size_bytes: int) -> None:
        self.copies.append(size_bytes // CROP_BYTES)
        super().copy(stream, target, source, size_bytes)


def test_mouths_are_the_same_bit_for_bit_and_only_speech_is_brought(
    folders: Any, frames: Any, wanted: Any
) -> None:
    memory = Counting()
    engine, models = opened(folders, frames, memory)
    with engine:
        numbers = [3, 4, 5, 6, 7, 8, 9, 10, 11]  # 3 4 5 4 3 2 1 0 1
        for turn in range(3):
            windows = speech(len(numbers), turn)
            before, frames[0].asked = memory.uploaded_bytes, []
            made = engine.infer_frames(models[0], numbers, windows)
            assert (made == wanted(0, numbers, windows)).all()
            brought_bytes = memory.uploaded_bytes - before - windows.nbytes
            # The walk comes by 4 twice in a batch, and by 3 and 1 in two.
            assert brought_bytes // CROP_BYTES == (7 if turn == 0 else 0)
            assert sorted(frames[0].asked) == ([0, 1, 2, 3, 4, 5] if turn == 0 else [])
        stats = engine.crops
        assert stats is not None
        assert (stats.blocks, stats.avatars, stats.hits + stats.misses) == (1, 1, 27)


def test_neighbours_are_copied_together(folders: Any, frames: Any) -> None:
    memory = Counting()
    long = Shown(9, BLOCK_FRAMES + 4)
    engine, models = opened(folders, [long, *frames[1:]], memory)
    with engine:
        everything = list(range(long.frame_count))
        engine.infer_frames(models[0], everything, speech(len(everything)))
        for numbers, copies in (
            ([2, 3, 4, 5], [4]),
            ([5, 4, 3, 2], [1, 1, 1, 1]),
            ([BLOCK_FRAMES - 1, BLOCK_FRAMES], [1, 1]),
            ([1, 2, 7, 8], [2, 2]),
        ):
            memory.copies = []
            engine.infer_frames(models[0], numbers, speech(len(numbers)))
            assert memory.copies == copies


@pytest.mark.parametrize("kept", [False, True])
def test_a_batch_that_is_filled_up_is_what_it_is_alone(
    memory: HostMemory, folders: Any, frames: Any, wanted: Any, kept: bool
) -> None:
    tuning = replace(TUNING, batch_sizes=(4,), crop_bytes=None if kept else 0)
    engine, models = opened(folders, frames, memory, tuning)
    with engine:
        for numbers in ([0, 1, 2, 3], [5], [5, 2], [2, 5, 1]):
            windows = speech(len(numbers), sum(numbers))
            made = engine.infer_frames(models[1], numbers, windows)
            assert (made == wanted(1, numbers, windows)).all()
        assert models[1].keeps_crops == kept


@pytest.mark.parametrize(
    ("streams", "room", "graphs"),
    [(3, 14, True), (3, 3, False), (1, 8, False), (3, 100, False)],
)
def test_no_face_shows_in_another_under_concurrency_and_eviction(
    memory: HostMemory,
    folders: Any,
    frames: Any,
    wanted: Any,
    streams: int,
    room: int,
    graphs: bool,
) -> None:
    """Room for no avatar's crops, for those of one or two, or for all; for few networks."""
    jobs = []
    for which in range(AVATARS):
        for first in (0, 4):
            numbers = list(range(first, first + 3))
            windows = speech(3, 10 * which + first)
            jobs.append((which, numbers, windows, wanted(which, numbers, windows)))
    tuning = replace(
        TUNING,
        streams=streams,
        crop_bytes=room * CROP_BYTES,
        max_models=streams + 1,
        cuda=CudaOptions(graphs=graphs),
    )
    engine, models = opened(folders, frames, memory, tuning)
    with engine, ThreadPoolExecutor(4) as threads:
        order = [(*job, by_number) for job in jobs for by_number in (True, True, False)]
        random.Random(0).shuffle(order)

        def run(job: Any) -> bool:
            which, numbers, windows, right, by_number = job
            if by_number:
                made = engine.infer_frames(models[which], numbers, windows)
            else:
                crops = frames[which].crops[[ping_pong(n, FRAMES) for n in numbers]]
                made = engine.infer(models[which], crops, windows)
            return bool((made == right).all())

        assert all(threads.map(run, order))
        stats = engine.crops
        assert stats is not None
        assert stats.device_bytes <= room * CROP_BYTES
        assert stats.blocks <= room // FRAMES
        assert (stats.hits > 0) == (room >= FRAMES)


def test_another_avatars_crops_would_be_seen(
    memory: HostMemory,
    folders: Any,
    frames: Any,
    wanted: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """That the comparisons above can fail."""
    engine, models = opened(folders, frames, memory)
    with engine:
        engine.infer_frames(models[0], [0], speech(1))
        engine.infer_frames(models[0], [1], speech(1))
        with monkeypatch.context() as broken:
            broken.setattr(HostMemory, "copy", lambda *_: None)
            made = engine.infer_frames(models[0], [0], speech(1))
        assert (made == wanted(0, [1], speech(1))).all()
        assert (made != wanted(0, [0], speech(1))).any()


def test_crops_that_cannot_be_had_are_an_error_of_their_request_alone(
    memory: HostMemory, folders: Any, wanted: Any, frames: Any
) -> None:
    broken = Shown(0)
    engine, models = opened(folders, [broken, *frames[1:]], memory)
    with engine:
        broken.error = StorageFailed("the disk is gone")
        with pytest.raises(StorageFailed):
            engine.infer_frames(models[0], [0, 1], speech(2))
        broken.error = None
        made = engine.infer_frames(models[0], [0, 1], speech(2))
        assert (made == wanted(0, [0, 1], speech(2))).all()
        broken.error = StorageFailed("again")  # what is kept is not asked for
        assert (engine.infer_frames(models[0], [1], speech(2)[1:]) == made[1:]).all()


def test_crops_that_go_between_looking_and_using_are_brought(
    memory: HostMemory,
    folders: Any,
    frames: Any,
    wanted: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine, models = opened(folders, frames, memory)
    with engine:
        engine.infer_frames(models[0], [0, 1], speech(2))
        crops = engine._gpu._crops  # type: ignore[union-attr]
        taking = StreamPool.taken

        def taken(self: Any, weights: Any) -> Any:
            crops.give_up(1)
            return taking(self, weights)

        monkeypatch.setattr(StreamPool, "taken", taken)
        made = engine.infer_frames(models[0], [0, 1], speech(2))
    assert (made == wanted(0, [0, 1], speech(2))).all()


@pytest.mark.parametrize("on_gpu", [False, True])
def test_frames_by_number_are_their_crops_wherever_it_runs(
    memory: HostMemory, folders: Any, frames: Any, on_gpu: bool
) -> None:
    with Engine(threads=1, memory=memory if on_gpu else None, tuning=TUNING) as engine:
        model = load_both(engine, folders[2], frames[2])
        assert model.keeps_crops == on_gpu
        made = engine.infer_frames(model, [5, 6, 10**9], speech(3))
        shown = frames[2].crops[[5, 4, ping_pong(10**9, FRAMES)]]
        assert (made == engine.infer(model, shown, speech(3))).all()
        for numbers in ([], [-1], [3, -7]):
            with pytest.raises(InvalidInput, match="frame numbers are"):
                engine.infer_frames(model, numbers, speech(max(1, len(numbers))))
        with pytest.raises(InvalidInput, match="windows holds 1 frames"):
            engine.infer_frames(model, [0, 1], speech(1))
        with pytest.raises(InvalidInput, match="NaN"):
            engine.infer_frames(model, [0], np.full_like(speech(1), np.nan))
        with pytest.raises(InvalidInput, match="without its avatar's frames"):
            engine.infer_frames(load_both(engine, folders[2]), [0], speech(1))
