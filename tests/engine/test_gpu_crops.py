"""Frames by number, on a device that keeps their crops: the same mouths, with less to bring.

On the stand-in for a GPU, as in ``test_gpu``; ``Late`` lets copies wait, as a GPU's stream does.
"""

import gc
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lipwire.bench.models import write_tiny_unet
from lipwire.domain import (
    AvatarInvalid,
    Float32Array,
    InvalidInput,
    StorageFailed,
    UInt8Array,
    Unavailable,
    ping_pong,
)
from lipwire.engine import Device, Engine, Model, compile_model, devices, gpusessions
from lipwire.engine.crops import BLOCK_FRAMES
from lipwire.engine.devices import CudaOptions
from lipwire.engine.faces import CROP_BYTES
from lipwire.engine.lanepool import LanePool
from lipwire.engine.lanes import Lane
from lipwire.engine.memory import Bytes, DeviceOutOfMemory, HostMemory, Region
from lipwire.engine.tuning import Tuning

PLENTY = 1 << 30
TUNING = Tuning(precision="single", lanes=1, batch_sizes=(1, 2, 4))
AVATARS = 4
FRAMES = 6


class Shown:
    """The frames of an avatar: noise, of its own."""

    def __init__(self, seed: int, frame_count: int = FRAMES) -> None:
        self.frame_count = frame_count
        random = np.random.default_rng(seed)
        self.crops: UInt8Array = random.integers(0, 256, (frame_count, 320, 320, 3), np.uint8)
        self.asked: list[int] = []
        self.error: Exception | None = None

    def crop(self, index: int) -> UInt8Array:
        self.asked.append(index)
        if self.error is not None:
            raise self.error
        crop: UInt8Array = self.crops[index]
        return crop


def speech(frames: int, seed: int = 0) -> Float32Array:
    return np.random.default_rng(seed).standard_normal((frames, 32, 16, 16), np.float32)


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Compiled networks of one architecture."""
    root = tmp_path_factory.mktemp("networks")
    for seed in range(AVATARS):
        write_tiny_unet(root / f"{seed}.onnx", seed=seed)
        (root / str(seed)).mkdir()
        compile_model(root / f"{seed}.onnx", root / str(seed))
    return [root / str(seed) for seed in range(AVATARS)]


@pytest.fixture(scope="module")
def frames() -> list[Shown]:
    return [Shown(seed) for seed in range(AVATARS)]


@pytest.fixture
def memory() -> Iterator[HostMemory]:
    """All of it has to be given back."""
    memory = HostMemory(PLENTY)
    yield memory
    gc.collect()
    assert (memory.regions, memory.host_blocks) == (0, 0)


def opened(
    folders: list[Path], frames: list[Shown], memory: HostMemory, tuning: Tuning = TUNING
) -> tuple[Engine, list[Model]]:
    engine = Engine(threads=1, memory=memory, tuning=tuning)
    pairs = zip(folders, frames, strict=True)
    return engine, [engine.load(folder, shown) for folder, shown in pairs]


@pytest.fixture(scope="module")
def wanted(folders: list[Path], frames: list[Shown]) -> Callable[..., UInt8Array]:
    """What an engine makes of the pixels, frame by frame and with nothing kept."""
    tuning = replace(TUNING, crop_bytes=0, batch_sizes=(1,))
    engine, models = opened(folders, frames, HostMemory(PLENTY), tuning)

    def make(which: int, numbers: list[int], windows: Float32Array) -> UInt8Array:
        crops = frames[which].crops
        shown = [crops[ping_pong(number, len(crops))][None] for number in numbers]
        pieces = [
            engine.infer(models[which], crop, window[None])
            for crop, window in zip(shown, windows, strict=True)
        ]
        return np.concatenate(pieces)

    return make


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
    ("lanes", "room", "graphs"), [(1, 8, False), (3, 3, False), (3, 14, True), (3, 100, False)]
)
def test_no_face_shows_in_another_under_concurrency_and_eviction(
    memory: HostMemory,
    folders: Any,
    frames: Any,
    wanted: Any,
    lanes: int,
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
        lanes=lanes,
        crop_bytes=room * CROP_BYTES,
        max_models=lanes + 1,
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
    whole = devices.open_session

    def opened(graph: bytes, options: Any, device: Device, cuda: CudaOptions) -> InStream:
        return InStream(whole(graph, options, device, cuda), memory, cuda.stream, fails)

    monkeypatch.setattr(gpusessions, "open_session", opened)
    return memory, fails


def test_copies_that_wait_their_turn_change_nothing(
    late: Any, folders: Any, frames: Any, wanted: Any
) -> None:
    memory, _ = late
    tuning = replace(TUNING, lanes=3, crop_bytes=2 * FRAMES * CROP_BYTES)
    engine, models = opened(folders, frames, memory, tuning)
    jobs = [(which, [first, first + 1]) for which in range(AVATARS) for first in (0, 2, 4)] * 4
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
    way, in another lane."""
    memory, fails = late
    tuning = replace(TUNING, lanes=2, crop_bytes=FRAMES * CROP_BYTES)
    engine, models = opened(folders, frames, memory, tuning)
    windows = speech(2)
    with engine:
        for which in (0, 1):  # each has a lane of its own from here on
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


def test_a_full_device_gives_crops_up_first_and_no_request_fails(
    folders: Any, frames: Any, wanted: Any
) -> None:
    """A device that ends where two networks, a lane and some crops would; the budget is larger."""
    image_bytes = _image_bytes(folders[0])
    staging_bytes = 2 * (1 + 2) * CROP_BYTES + 3 * speech(1).nbytes
    memory = HostMemory(3 * image_bytes + staging_bytes + 2 * FRAMES * CROP_BYTES + 5000)
    tuning = replace(TUNING, batch_sizes=(1, 2), device_bytes=PLENTY)
    engine, models = opened(folders, frames, memory, tuning)
    with engine:
        for turn in range(3):
            for which, model in enumerate(models):
                numbers = [turn, turn + 1] if turn != 1 else [turn]
                windows = speech(len(numbers), turn)
                made = engine.infer_frames(model, numbers, windows)
                assert (made == wanted(which, numbers, windows)).all()
        stats = engine.crops
        assert stats is not None
        assert stats.evictions > 0
    assert memory.regions == 0


def test_no_request_fails_for_crops_that_are_in_use(
    folders: Any, frames: Any, wanted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The budget has room for one network and one avatar's crops. While these are in use another
    network is wanted, for which the crops have to go: it waits for them."""
    memory = HostMemory(PLENTY)
    budget_bytes = _image_bytes(folders[0]) + FRAMES * CROP_BYTES
    tuning = replace(TUNING, lanes=2, device_bytes=budget_bytes)
    engine, (model,) = opened(folders[:1], frames[:1], memory, tuning)
    inside, go_on = threading.Event(), threading.Event()
    whole = devices.open_session

    class Held:
        def __init__(self, session: Any) -> None:
            self.io_binding = session.io_binding
            self._session = session

        def run_with_iobinding(self, binding: Any, options: Any) -> None:
            inside.set()
            assert go_on.wait(30)
            self._session.run_with_iobinding(binding, options)

    monkeypatch.setattr(gpusessions, "open_session", lambda *arguments: Held(whole(*arguments)))
    with engine, ThreadPoolExecutor(2) as threads:
        first = threads.submit(engine.infer_frames, model, [0, 1], speech(2))
        assert inside.wait(30)
        other = engine.load(folders[1], frames[1])
        second = threads.submit(engine.infer_frames, other, [0, 1], speech(2, 1))
        until_s = time.monotonic() + 30
        while not engine._gpu._crops._away and time.monotonic() < until_s:  # type: ignore[union-attr]
            time.sleep(0.001)
        assert not second.done()
        go_on.set()
        assert (second.result(30) == wanted(1, [0, 1], speech(2, 1))).all()
        assert (first.result(30) == wanted(0, [0, 1], speech(2))).all()
    assert memory.regions == 0


def test_a_request_goes_without_its_own_crops_where_they_take_what_it_needs(
    memory: HostMemory, folders: Any, frames: Any, wanted: Any
) -> None:
    """The budget holds an avatar's crops, or its network."""
    image_bytes = _image_bytes(folders[0])
    tuning = replace(TUNING, device_bytes=max(image_bytes, FRAMES * CROP_BYTES))
    engine, models = opened(folders[:1], frames[:1], memory, tuning)
    with engine:
        engine._gpu._residency.give_up(1)  # type: ignore[union-attr]
        for turn in range(3):
            made = engine.infer_frames(models[0], [0, turn], speech(2))
            assert (made == wanted(0, [0, turn], speech(2))).all()
        use = engine.memory_use
        assert use is not None
        assert use.weights + use.crops <= tuning.device_bytes  # type: ignore[operator]


def _image_bytes(folder: Path) -> int:
    with Engine(threads=1, memory=HostMemory(PLENTY), tuning=TUNING) as engine:
        return engine.load(folder).weights_bytes


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
        taking = LanePool.taken

        def taken(self: Any, resident: Any) -> Any:
            crops.give_up(1)
            return taking(self, resident)

        monkeypatch.setattr(LanePool, "taken", taken)
        made = engine.infer_frames(models[0], [0, 1], speech(2))
    assert (made == wanted(0, [0, 1], speech(2))).all()


@pytest.mark.parametrize("on_gpu", [False, True])
def test_frames_by_number_are_their_crops_wherever_it_runs(
    memory: HostMemory, folders: Any, frames: Any, on_gpu: bool
) -> None:
    with Engine(threads=1, memory=memory if on_gpu else None, tuning=TUNING) as engine:
        model = engine.load(folders[2], frames[2])
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
            engine.infer_frames(engine.load(folders[2]), [0], speech(1))


# -- what is taken, and given back -----------------------------------------------------------------


def test_what_is_taken_of_the_device_is_told_to_the_byte(
    memory: HostMemory, folders: Any, frames: Any
) -> None:
    engine, models = opened(folders, frames, memory, replace(TUNING, lanes=2))

    def books() -> tuple[int, int]:
        use = engine.memory_use
        assert use is not None
        assert use.device == PLENTY - memory.free_bytes()
        assert use.pinned_weights == models[0].weights_bytes * len(models)
        return use.crops, use.staging

    with engine:
        assert books() == (0, 0)
        engine.infer_frames(models[0], [0, 1, 2], speech(3))
        crops, staging = books()
        assert crops == FRAMES * CROP_BYTES
        assert staging == 3 * (2 * CROP_BYTES + speech(1).nbytes)
        engine.infer_float(models[1], np.zeros((1, 6, 320, 320), np.float32), speech(1))
        assert books()[1] > staging
        engine.infer_frames(models[1], [0], speech(1))
        assert books()[0] == 2 * FRAMES * CROP_BYTES
        use = engine.memory_use
        assert use is not None
        assert use.slots == 2 * models[0].weights_bytes
        assert use.pinned_staging == use.staging
    with Engine(threads=1) as processor:
        assert processor.memory_use is None
        assert processor.crops is None


def test_what_is_unloaded_is_gone_at_once(memory: HostMemory, folders: Any, frames: Any) -> None:
    """Weights, pinned copies, crops; and with the last of an architecture slots, staging memory and
    sessions. Nobody has to use anything for it."""
    engine, models = opened(folders[:2], frames[:2], memory, replace(TUNING, lanes=2))
    with engine:
        for model in models:
            engine.infer_frames(model, [0, 1], speech(2))
        engine.unload(models[0])
        use = engine.memory_use
        assert use is not None
        assert use.weights == use.pinned_weights == models[1].weights_bytes
        assert use.crops == FRAMES * CROP_BYTES
        engine.unload(models[1])
        engine.unload(models[1])
        # The pinned block that weights are brought through stays.
        assert memory.regions == 0
        for use_it in (
            lambda: engine.infer_frames(models[1], [0], speech(1)),
            lambda: engine.infer(models[1], frames[1].crops[:1], speech(1)),
            lambda: engine.prefetch(models[1]),
        ):
            with pytest.raises(Unavailable, match="unloaded"):
                use_it()


def test_what_is_unloaded_while_it_runs_is_gone_when_the_run_is_over(
    memory: HostMemory,
    folders: Any,
    frames: Any,
    wanted: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine, models = opened(folders[:1], frames[:1], memory)
    inside, go_on = threading.Event(), threading.Event()
    whole = Lane._run

    def held(self: Lane, *arguments: Any) -> None:
        whole(self, *arguments)
        inside.set()
        assert go_on.wait(30)

    monkeypatch.setattr(Lane, "_run", held)
    with engine, ThreadPoolExecutor(1) as threads:
        running = threads.submit(engine.infer_frames, models[0], [0, 1], speech(2))
        assert inside.wait(30)
        engine.unload(models[0])
        assert memory.regions > 0
        go_on.set()
        assert (running.result(30) == wanted(0, [0, 1], speech(2))).all()
        assert memory.regions == 0


def test_a_model_that_is_forgotten_is_given_up_at_the_next_use(
    memory: HostMemory, folders: Any, frames: Any
) -> None:
    engine, models = opened(folders[:2], frames[:2], memory)
    with engine:
        for model in models:
            engine.infer_frames(model, [0], speech(1))
        kept = models[0]
        del model, models
        gc.collect()
        engine.infer_frames(kept, [0], speech(1))
        use = engine.memory_use
        assert use is not None
        assert (use.weights, use.crops) == (kept.weights_bytes, FRAMES * CROP_BYTES)


def test_unloading_on_the_processor(folders: Any, frames: Any) -> None:
    with Engine(threads=1) as engine:
        model = engine.load(folders[0], frames[0])
        engine.infer_frames(model, [0], speech(1))
        assert engine.session_count == 1
        engine.unload(model)
        gc.collect()
        assert engine.session_count == 0
        with pytest.raises(Unavailable, match="unloaded"):
            engine.infer_frames(model, [0], speech(1))


def test_unloading_from_a_closed_engine_is_nothing(
    memory: HostMemory, folders: Any, frames: Any
) -> None:
    engine, models = opened(folders, frames, memory)
    engine.close()
    for model in models:
        engine.unload(model)


def test_a_lost_device_is_closed_without_a_fuss(folders: Any, frames: Any) -> None:
    class Dead(HostMemory):
        def free(self, region: Region) -> None:
            self._check()
            super().free(region)

    memory = Dead(PLENTY)
    engine, models = opened(folders, frames, memory, replace(TUNING, lanes=2))
    engine.infer_frames(models[0], [0], speech(1))
    threads = threading.active_count()
    memory.lost = True
    engine.unload(models[0])
    engine.close()
    assert threading.active_count() == threads - 1, "lanes that ran leave no threads behind"


def test_memory_that_runs_out_while_crops_are_kept_is_not_theirs_to_report(
    folders: Any, frames: Any, wanted: Any
) -> None:
    class Grudging(HostMemory):
        def allocate(self, size_bytes: int) -> Region:
            if size_bytes % CROP_BYTES == 0 and size_bytes > 4 * CROP_BYTES:
                raise DeviceOutOfMemory("no")
            return super().allocate(size_bytes)

    memory = Grudging(PLENTY)
    engine, models = opened(folders, frames, memory)
    with engine:
        for _ in range(2):
            made = engine.infer_frames(models[0], [0, 1], speech(2))
            assert (made == wanted(0, [0, 1], speech(2))).all()
        assert engine.crops is not None
        assert engine.crops.device_bytes == 0
