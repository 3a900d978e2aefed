"""A GPU's mouths are the processor's, whoever else is on it. All networks run in ONNX Runtime
here; kernels of our own have tests of their own."""

import gc
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tests.support.compilednetworks import load_both

from lipwire.domain import Overloaded, UInt8Array, Unavailable, ping_pong
from lipwire.engine import Device, Engine, Tuning
from lipwire.engine.gpu.kernels.cuda.cudaprograms import open_cuda
from lipwire.engine.gpu.memory.cudamemory import CudaMemory
from lipwire.engine.gpu.memory.devicememory import DeviceOutOfMemory
from lipwire.engine.runtime import CudaOptions

GPU = Device.cuda(0)
SINGLE = Tuning(precision="single", kernels=False)
HALF = Tuning(precision="half", kernels=False)


def _apart(made: UInt8Array, wanted: UInt8Array) -> tuple[int, float]:
    apart = np.abs(made.astype(int) - wanted)
    return int(apart.max()), float(apart.mean())


@pytest.fixture
def memory() -> Iterator[CudaMemory]:
    yield open_cuda(GPU)
    gc.collect()


def test_what_goes_in_comes_out(memory: CudaMemory) -> None:
    stream = memory.open_stream()
    regions = [memory.allocate(1 << 20) for _ in range(2)]
    block = memory.allocate_host(1 << 20)
    block[:] = np.random.default_rng(0).integers(0, 256, block.size, np.uint8)
    memory.upload(stream, regions[0].address, block)
    memory.copy(stream, regions[1].address, regions[0].address, block.size)
    out = np.zeros_like(block)
    memory.download(stream, out, regions[1].address)
    memory.wait(stream)
    assert (out == block).all()
    memory.free_host(block)
    for region in regions:
        memory.free(region)
    memory.close_stream(stream)


def test_more_memory_than_there_is(memory: CudaMemory) -> None:
    with pytest.raises(DeviceOutOfMemory):
        memory.allocate(1 << 46)
    memory.free(memory.allocate(1 << 20))  # and it works on


def test_a_gpu_that_is_not_there() -> None:
    with pytest.raises(Unavailable, match="cuda:63 has failed"):
        CudaMemory(Device.cuda(63))


@pytest.mark.parametrize("frames", [1, 3, 8])
def test_single_precision_is_the_processors(mobile: Any, noise: Any, frames: int) -> None:
    crops, windows = noise(frames, 0)
    with Engine(device=GPU, tuning=SINGLE) as engine:
        for avatar in mobile:
            model = load_both(engine, avatar.folder)
            assert (model.on_gpu, model.precision) == (True, "single")
            made = engine.infer(model, crops, windows)
            most, mean = _apart(made, avatar.pixels(crops, windows))
            assert most <= 1
            assert mean < 1e-3
        assert engine.weights_bytes > 0


@pytest.mark.parametrize("frames", [1, 3, 8, 24])
def test_half_precision_is_near(mobile: Any, noise: Any, frames: int) -> None:
    crops, windows = noise(frames, 1)
    with Engine(device=GPU, tuning=HALF) as engine:
        for avatar in mobile:
            model = load_both(engine, avatar.folder)
            assert model.precision == "half"
            made = engine.infer(model, crops, windows)
            most, mean = _apart(made, avatar.pixels(crops, windows))
            assert most <= 2
            assert mean <= 0.2


@pytest.mark.parametrize(
    "options",
    [
        CudaOptions(channels_last=True),
        CudaOptions(graphs=True),
        CudaOptions(channels_last=True, graphs=True),
        CudaOptions(channels_last=True, fuse_bias=True),
        CudaOptions(fuse_bias=True),
        CudaOptions(fuse=False),
        CudaOptions(fuse=False, graphs=True),
        CudaOptions(exhaustive=False),
    ],
    ids=str,
)
def test_no_option_changes_a_face(mobile: Any, noise: Any, options: CudaOptions) -> None:
    """Several avatars in turns, often enough that kernels are recorded and launched again."""
    tuning = replace(HALF, cuda=options, streams=2, batch_sizes=(1, 4))
    with Engine(device=GPU, tuning=tuning) as engine, ThreadPoolExecutor(2) as threads:
        models = [load_both(engine, avatar.folder) for avatar in mobile]
        jobs = []
        for which, avatar in enumerate(mobile):
            for frames in (1, 4):
                crops, windows = noise(frames, which)
                jobs.append((which, crops, windows, avatar.pixels(crops, windows)))

        def run(job: Any) -> tuple[int, float]:
            which, crops, windows, wanted = job
            return _apart(engine.infer(models[which], crops, windows), wanted)

        found = list(threads.map(run, jobs * 6))
    assert max(most for most, _ in found) <= 2
    assert max(mean for _, mean in found) <= 0.2


def test_the_guides_form(mobile: Any, noise: Any) -> None:
    _, windows = noise(2, 3)
    visual = np.random.default_rng(0).random((2, 6, 320, 320), np.float32)
    wanted = mobile[0].floats(visual, windows)
    for tuning, limit in ((SINGLE, 1e-3), (HALF, 2 / 255)):
        with Engine(device=GPU, tuning=tuning) as engine:
            made = engine.infer_float(load_both(engine, mobile[0].folder), visual, windows)
            assert made.dtype == np.float32
            assert np.abs(made - wanted).max() < limit


@pytest.mark.parametrize("graphs", [False, True])
@pytest.mark.parametrize("weights", [2, 6])
def test_no_face_shows_in_another_under_concurrency_and_eviction(
    tiny: Any, noise: Any, weights: int, graphs: bool
) -> None:
    jobs = []
    for which, avatar in enumerate(tiny):
        for seed in range(3):
            crops, windows = noise(1 + seed, 10 * which + seed)
            jobs.append((which, crops, windows, avatar.pixels(crops, windows)))
    with Engine(device=GPU, tuning=SINGLE) as engine:
        image_bytes = load_both(engine, tiny[0].folder).weights_bytes
    tuning = replace(
        SINGLE,
        streams=3,
        batch_sizes=(1, 2),
        device_bytes=(3 + weights) * image_bytes,
        host_bytes=3 * image_bytes,
        max_models=3 + weights if weights < 6 else None,
        cuda=CudaOptions(graphs=graphs),
    )
    with Engine(device=GPU, tuning=tuning) as engine, ThreadPoolExecutor(6) as threads:
        models = [load_both(engine, avatar.folder) for avatar in tiny]
        order = jobs * 20
        random.Random(0).shuffle(order)

        def run(job: Any) -> int:
            which, crops, windows, wanted = job
            return _apart(engine.infer(models[which], crops, windows), wanted)[0]

        assert max(threads.map(run, order)) <= 1
        stats = engine.weights
        assert stats is not None
        assert stats.device_bytes <= tuning.device_bytes  # type: ignore[operator]
        assert (stats.evictions > 0) == (weights < 3)


class Shown:
    """Frames of an avatar: noise, of its own."""

    def __init__(self, seed: int) -> None:
        self.frame_count = 30
        random = np.random.default_rng(seed)
        self.crops: UInt8Array = random.integers(0, 256, (30, 320, 320, 3), np.uint8)

    def crop(self, index: int) -> UInt8Array:
        crop: UInt8Array = self.crops[index]
        return crop


@pytest.mark.parametrize(("room", "graphs"), [(0, False), (3, False), (3, True), (20, True)])
def test_no_face_shows_in_another_where_crops_are_kept(
    tiny: Any, noise: Any, room: int, graphs: bool
) -> None:
    """Frames by number, of six avatars of two blocks each, with room for none of these, for a few,
    and for all; forwards and backwards, and some with pixels of their own."""
    shown = [Shown(which) for which in range(len(tiny))]
    jobs = []
    for which, avatar in enumerate(tiny):
        for first in (0, 17, 28, 50):
            _, windows = noise(3, 10 * which + first)
            numbers = list(range(first, first + 3))
            crops = shown[which].crops[[ping_pong(number, 30) for number in numbers]]
            jobs.append((which, numbers, crops, windows, avatar.pixels(crops, windows)))
    tuning = replace(
        SINGLE,
        streams=3,
        batch_sizes=(1, 2),
        crop_bytes=room * 20 * 320 * 320 * 3,
        max_models=4,
        cuda=CudaOptions(graphs=graphs),
    )
    with Engine(device=GPU, tuning=tuning) as engine, ThreadPoolExecutor(6) as threads:
        models = [load_both(engine, avatar.folder, shown[n]) for n, avatar in enumerate(tiny)]
        order = [(*job, by_number) for job in jobs for by_number in (True, True, True, False)] * 5
        random.Random(0).shuffle(order)

        def run(job: Any) -> int:
            which, numbers, crops, windows, wanted, by_number = job
            if by_number:
                made = engine.infer_frames(models[which], numbers, windows)
            else:
                made = engine.infer(models[which], crops, windows)
            return _apart(made, wanted)[0]

        assert max(threads.map(run, order)) <= 1
        stats, use = engine.crops, engine.memory_use
        assert stats is not None
        assert use is not None
        assert stats.device_bytes == use.crops <= room * 20 * 320 * 320 * 3
        assert (stats.hits > 0) == (room > 0)
        assert (stats.evictions > 0) == (room == 3)
        for which, model in enumerate(models):
            windows = jobs[4 * which][3]
            brought = engine.infer_frames(model, [0, 1, 2], windows)
            kept = engine.infer_frames(model, [0, 1, 2], windows)
            assert (brought == kept).all()
            engine.unload(model)
        use = engine.memory_use
        assert use is not None
        assert use.device == 0


def test_a_full_gpu_gives_up_avatars_and_goes_on(
    memory: CudaMemory, mobile: Any, noise: Any
) -> None:
    """All but 700 MB is taken by somebody else; 200 avatars of 6 MB and the streams want more."""
    crops, windows = noise(4, 0)
    wanted = mobile[0].pixels(crops, windows)
    taken = memory.allocate(memory.free_bytes() - (700 << 20))
    try:
        tuning = replace(HALF, streams=1, batch_sizes=(4,), device_bytes=1 << 40)
        with Engine(device=GPU, tuning=tuning) as engine:
            models = [load_both(engine, mobile[0].folder) for _ in range(200)]
            for model in (models[0], models[-1], models[100]):
                try:
                    most, _ = _apart(engine.infer(model, crops, windows), wanted)
                    assert most <= 2
                except Overloaded:
                    pytest.fail("there was something to give up")
            stats = engine.weights
            assert stats is not None
            assert stats.evictions > 0
    finally:
        memory.free(taken)


def test_closing_gives_the_memory_back(memory: CudaMemory, mobile: Any, noise: Any) -> None:
    crops, windows = noise(4, 0)

    def use() -> None:
        with Engine(device=GPU, tuning=HALF) as engine:
            for avatar in mobile:
                engine.infer(load_both(engine, avatar.folder), crops, windows)

    use()
    gc.collect()
    before = memory.free_bytes()
    for _ in range(3):
        use()
        gc.collect()
    assert before - memory.free_bytes() < 64 << 20


def test_the_processor_beside_it_stays_what_it_was(mobile: Any, noise: Any) -> None:
    crops, windows = noise(2, 0)
    with Engine(threads=1) as processor, Engine(device=GPU) as gpu:
        model = processor.load(mobile[0].folder)
        before = processor.infer(model, crops, windows)
        gpu.infer(load_both(gpu, mobile[0].folder), crops, windows)
        assert (processor.infer(model, crops, windows) == before).all()
        assert not model.on_gpu
