"""Kernels of our own on a GPU make the processor's mouths, whoever else is on it."""

import gc
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.compilednetworks import gpu_folder, load_both

from lipwire.domain import Overloaded, UInt8Array, ping_pong
from lipwire.engine import Device, Engine, Request, Tuning, cuda_problem
from lipwire.engine.gpu.kernels.cuda.cubins import Cubins
from lipwire.engine.gpu.kernels.cuda.cudaprograms import CudaPrograms, open_cuda
from lipwire.engine.gpu.kernels.kernelcache import KernelCache
from lipwire.engine.gpu.kernels.running.kernelruns import KernelRuns, Part, Program
from lipwire.engine.gpu.memory.cropplaces import CROP_BYTES
from lipwire.engine.gpu.memory.cudamemory import CudaMemory
from lipwire.engine.gpu.memory.devicememory import Region
from lipwire.engine.gpu.programs import KernelsUnavailable
from lipwire.engine.gpu.store.gpufiles import GpuModel, ImageFile, read_gpu_manifest

GPU = Device.cuda(0)
KERNELS = Tuning(batch_sizes=(1, 4))


def _near(made: UInt8Array, wanted: UInt8Array) -> bool:
    """By the rule for half precision."""
    apart = np.abs(made.astype(int) - wanted)
    return bool(apart.max() <= 2 and apart.mean() <= 0.2)


@pytest.fixture
def memory() -> Iterator[CudaMemory]:
    yield open_cuda(GPU)
    gc.collect()


@pytest.fixture(autouse=True)
def _works_on() -> Iterator[None]:
    """No test leaves an error of CUDA behind: it would show in whatever comes next."""
    yield
    memory = open_cuda(GPU)
    stream = memory.open_stream()
    memory.wait(stream)
    memory.close_stream(stream)
    memory.free(memory.allocate(1 << 20))


@dataclass
class Ready:
    """Kernels on the device, and the weights of avatars."""

    memory: CudaMemory
    program: Program
    images: list[Region]
    stream: int


@pytest.fixture
def ready(memory: CudaMemory, small: Any) -> Iterator[Ready]:
    """Three of the small avatars."""
    with ExitStack() as stack:
        cache = KernelCache(memory)
        stack.callback(cache.close)
        stream = memory.open_stream()
        stack.callback(memory.close_stream, stream)
        images, programs = [], []
        for avatar in small[:3]:
            model = _half(avatar.folder)
            source = ImageFile(gpu_folder(avatar.folder), model)
            program = cache.program(gpu_folder(avatar.folder), model.graphs["pixels"], None, source)
            assert program is not None, "the log says why"
            programs.append(program)
            image = np.array(source.image)
            images.append(memory.allocate(image.nbytes))
            stack.callback(memory.free, images[-1])
            memory.upload(stream, images[-1].address, image)
            memory.wait(stream)
        assert programs[0] is programs[1] is programs[2]
        yield Ready(memory, programs[0], images, stream)


def _half(folder: Path) -> GpuModel:
    return read_gpu_manifest(gpu_folder(folder)).models["half"]


@pytest.mark.parametrize("widths", ["small", "mobile", "full"])
def test_mouths_are_the_processors(request: pytest.FixtureRequest, noise: Any, widths: str) -> None:
    avatars = request.getfixturevalue(widths)
    with Engine(device=GPU, tuning=KERNELS) as engine:
        models = [load_both(engine, avatar.folder) for avatar in avatars]
        assert all(model.in_kernels for model in models), "the log says why"
        for frames in (1, 3, 24):
            crops, windows = noise(frames, frames)
            for avatar, model in zip(avatars, models, strict=True):
                made = engine.infer(model, crops, windows)
                assert _near(made[:3], avatar.pixels(crops[:3], windows[:3])), frames
                assert _near(made[-2:], avatar.pixels(crops[-2:], windows[-2:])), frames


@pytest.mark.parametrize("frames", [50, 51, 120])
def test_a_large_batch_is_as_good_as_small_ones(full: Any, noise: Any, frames: int) -> None:
    crops, windows = noise(frames, 0)
    with Engine(device=GPU, tuning=KERNELS) as engine:
        model = load_both(engine, full[0].folder)
        made = engine.infer(model, crops, windows)
        singly = [engine.infer(model, crops[n : n + 1], windows[n : n + 1]) for n in range(frames)]
    assert _near(made, np.concatenate(singly))


def test_a_recording_is_used_again_with_whatever_comes(
    ready: Ready, small: Any, noise: Any
) -> None:
    """Twenty runs of the same sizes in turns, of three avatars: a recording for each size."""
    programs = _Counting(ready.program.programs)
    runs = KernelRuns(ready.memory, replace(ready.program, programs=programs), ready.stream)
    try:
        for turn in range(20):
            which, frames = turn % 3, (5, 2)[turn % 2]
            crops, windows = noise(frames, turn)
            made = np.zeros_like(crops)
            runs.run([Part(ready.images[which].address, crops, windows, made)])
            assert _near(made, small[which].pixels(crops, windows)), turn
    finally:
        runs.close()
    assert programs.recorded == 2


class _Counting:
    """Programs, and how often they record."""

    def __init__(self, programs: Any) -> None:
        self._programs = programs
        self.recorded = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._programs, name)

    def record(self, *arguments: Any) -> Any:
        self.recorded += 1
        return self._programs.record(*arguments)


def test_a_batch_may_be_of_several_avatars(ready: Ready, small: Any, noise: Any) -> None:
    """Each frame reads its own avatar's weights, in any order and number."""
    runs = KernelRuns(ready.memory, ready.program, ready.stream)
    try:
        for mixed in ([(0, 1), (1, 3), (2, 2)], [(2, 1), (0, 1), (1, 1), (0, 3)]):
            parts, wanted = [], []
            for turn, (which, frames) in enumerate(mixed):
                crops, windows = noise(frames, 10 * which + turn)
                made = np.zeros_like(crops)
                parts.append(Part(ready.images[which].address, crops, windows, made))
                wanted.append(small[which].pixels(crops, windows))
            runs.run(parts)
            for part, pixels in zip(parts, wanted, strict=True):
                assert _near(part.mouths, pixels)
    finally:
        runs.close()


def test_avatars_that_are_asked_for_together_are_run_together(small: Any, noise: Any) -> None:
    """By many threads at once, each with several avatars, and some one by one between them."""
    with Engine(device=GPU, tuning=replace(KERNELS, streams=3)) as engine:
        models = [load_both(engine, avatar.folder) for avatar in small]
        assert len({model.together for model in models}) == 1
        jobs = []
        for which, avatar in enumerate(small):
            crops, windows = noise(1 + which % 3, which)
            wanted = avatar.pixels(crops, windows)
            jobs.append((Request(models[which], crops, windows), wanted))

        def run(seed: int) -> bool:
            chosen = random.Random(seed).sample(jobs, 1 + seed % len(jobs))
            made = engine.infer_together([request for request, _ in chosen])
            return all(_near(one, wanted) for one, (_, wanted) in zip(made, chosen, strict=True))

        with ThreadPoolExecutor(6) as threads:
            assert all(threads.map(run, range(120)))


@pytest.mark.parametrize("weights", [2, 6])
def test_no_face_shows_in_another_under_concurrency_and_eviction(
    small: Any, noise: Any, weights: int
) -> None:
    jobs = []
    for which, avatar in enumerate(small):
        for seed in range(3):
            crops, windows = noise(1 + seed, 10 * which + seed)
            jobs.append((which, crops, windows, avatar.pixels(crops, windows)))
    image_bytes = _half(small[0].folder).image_bytes
    tuning = replace(
        KERNELS,
        streams=3,
        device_bytes=(3 + weights) * image_bytes,
        host_bytes=3 * image_bytes,
        max_models=3 + weights if weights < 6 else None,
    )
    with Engine(device=GPU, tuning=tuning) as engine, ThreadPoolExecutor(6) as threads:
        models = [load_both(engine, avatar.folder) for avatar in small]
        order = jobs * 20
        random.Random(0).shuffle(order)

        def run(job: Any) -> bool:
            which, crops, windows, wanted = job
            return _near(engine.infer(models[which], crops, windows), wanted)

        assert all(threads.map(run, order))
        assert all(model.in_kernels for model in models)
        stats = engine.weights
        assert stats is not None
        assert (stats.evictions > 0) == (weights < 3)


class _Shown:
    """Frames of an avatar: noise, of its own."""

    def __init__(self, seed: int) -> None:
        self.frame_count = 30
        self.crops: UInt8Array = np.random.default_rng(seed).integers(
            0, 256, (30, 320, 320, 3), np.uint8
        )

    def crop(self, index: int) -> UInt8Array:
        crop: UInt8Array = self.crops[index]
        return crop


@pytest.mark.parametrize("room", [0, 3, 20])
def test_crops_are_read_where_they_are_kept(small: Any, noise: Any, room: int) -> None:
    shown = [_Shown(which) for which in range(len(small))]
    jobs = []
    for which, avatar in enumerate(small):
        for first in (0, 17, 28, 50):
            _, windows = noise(3, 10 * which + first)
            numbers = list(range(first, first + 3))
            crops = shown[which].crops[[ping_pong(number, 30) for number in numbers]]
            jobs.append((which, numbers, windows, avatar.pixels(crops, windows)))
    tuning = replace(KERNELS, streams=3, crop_bytes=room * 20 * CROP_BYTES, max_models=4)
    with Engine(device=GPU, tuning=tuning) as engine, ThreadPoolExecutor(6) as threads:
        models = [load_both(engine, avatar.folder, shown[n]) for n, avatar in enumerate(small)]
        order = jobs * 10
        random.Random(0).shuffle(order)

        def run(job: Any) -> bool:
            which, numbers, windows, wanted = job
            return _near(engine.infer_frames(models[which], numbers, windows), wanted)

        assert all(threads.map(run, order))
        assert all(run(jobs[0]) for _ in range(2))  # what is kept now is used again
        stats = engine.crops
        assert stats is not None
        assert (stats.hits > 0) == (room > 0)
        for model in models:
            engine.unload(model)
        use = engine.memory_use
        assert use is not None
        assert (use.weights, use.crops) == (0, 0)


def test_without_a_compiler_onnx_runtime_or_the_processor_runs_it(
    small: Any, noise: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    """With nothing kept from before, either."""

    def programs(memory: CudaMemory) -> CudaPrograms:
        return CudaPrograms(memory, Cubins(tmp_path, lambda newest_major: None))

    monkeypatch.setattr(CudaMemory, "programs", programs)
    crops, windows = noise(2, 0)
    with Engine(device=GPU, tuning=KERNELS) as engine:
        model = load_both(engine, small[0].folder)
        assert not model.in_kernels
        assert model.on_gpu == (cuda_problem() is None)
        assert _near(engine.infer(model, crops, windows), small[0].pixels(crops, windows))
    assert "there is no NVRTC" in caplog.text


def test_kernels_are_compiled_once_for_all_processes(small: Any, tmp_path: Path) -> None:
    memory = open_cuda(GPU)
    model = _half(small[0].folder)
    source = ImageFile(gpu_folder(small[0].folder), model)
    cache = KernelCache(memory)
    program = cache.program(gpu_folder(small[0].folder), model.graphs["pixels"], None, source)
    assert program is not None
    first = CudaPrograms(memory, Cubins(tmp_path))
    first.drop(first.load(program.lowered.source))
    again = CudaPrograms(memory, Cubins(tmp_path, lambda newest_major: None))
    again.drop(again.load(program.lowered.source))  # from what is kept: there is no compiler
    for file in tmp_path.iterdir():
        file.write_bytes(b"damaged")
    with pytest.raises(KernelsUnavailable, match="no NVRTC"):
        again.load(program.lowered.source)
    cache.close()


def test_a_full_gpu_gives_up_avatars_and_goes_on(
    memory: CudaMemory, mobile: Any, noise: Any
) -> None:
    """All but 700 MB is taken by somebody else; 200 avatars of 6 MB and the streams want more."""
    crops, windows = noise(4, 0)
    wanted = mobile[0].pixels(crops, windows)
    taken = memory.allocate(memory.free_bytes() - (700 << 20))
    try:
        tuning = replace(KERNELS, streams=1, device_bytes=1 << 40)
        with Engine(device=GPU, tuning=tuning) as engine:
            models = [load_both(engine, mobile[0].folder) for _ in range(200)]
            for model in (models[0], models[-1], models[100]):
                try:
                    assert _near(engine.infer(model, crops, windows), wanted)
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
        with Engine(device=GPU, tuning=KERNELS) as engine:
            for avatar in mobile:
                engine.infer(load_both(engine, avatar.folder), crops, windows)

    use()
    gc.collect()
    before = memory.free_bytes()
    for _ in range(5):
        use()
        gc.collect()
    assert before - memory.free_bytes() < 64 << 20


def test_the_guides_form_is_right_whoever_runs_it(mobile: Any, noise: Any) -> None:
    _, windows = noise(2, 3)
    visual = np.random.default_rng(0).random((2, 6, 320, 320), np.float32)
    wanted = mobile[0].floats(visual, windows)
    with Engine(device=GPU, tuning=KERNELS) as engine:
        model = load_both(engine, mobile[0].folder)
        assert model.in_kernels
        assert np.abs(engine.infer_float(model, visual, windows) - wanted).max() < 2 / 255
