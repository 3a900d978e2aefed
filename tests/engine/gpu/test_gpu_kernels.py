"""Networks in kernels of our own, from the avatar's folder to the mouths.

The first tests run the kernels themselves, in the emulator, against plain ONNX Runtime. In the
others they are imitated: a mouth shows whose weights, crops and speech it was made of.
"""

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.engine.conftest import NARROW_WIDTHS
from tests.engine.emulated import EmulatedPrograms
from tests.engine.imitated import ImitatedPrograms, StampedAvatars, half_of, stamped
from tests.engine.standin import FRAMES, PLENTY
from tests.support.compilednetworks import load_both
from tests.support.hostmemory import HostMemory

from lipwire.bench.randomnetworks import FULL_WIDTHS, MOBILE_WIDTHS, write_tiny_unet, write_unet
from lipwire.domain import InvalidInput, Overloaded
from lipwire.engine import Engine, Request
from lipwire.engine.gpu.compile.gpugraphs import hard_inputs
from lipwire.engine.gpu.kernels import kernelcache
from lipwire.engine.gpu.kernels.verify import kerneltrial
from lipwire.engine.gpu.memory.cropplaces import CROP_BYTES
from lipwire.engine.gpu.memory.devicememory import Bytes
from lipwire.engine.gpu.programs import KernelsUnavailable, Programs
from lipwire.engine.tuning import Tuning


def _near(made: Any, wanted: Any) -> bool:
    apart = np.abs(made.astype(int) - wanted)
    return bool(apart.max() <= 2 and apart.mean() <= 0.2)


# The kernels themselves


@pytest.mark.slow
@pytest.mark.parametrize("trials", [1, 3])
def test_kernels_make_what_the_networks_make(
    kernels_folder: Path,
    guides: Any,
    oracle: Any,
    make_inputs: Any,
    monkeypatch: pytest.MonkeyPatch,
    trials: int,
) -> None:
    """After a trial with common inputs; where there is time, with extreme ones, too."""
    monkeypatch.setattr(kerneltrial, "hard_inputs", lambda batch: hard_inputs(batch)[:trials])
    programs = EmulatedPrograms(kernels_folder)
    memory = HostMemory(PLENTY, programs=programs)
    inputs = make_inputs(1)
    with Engine(threads=1, memory=memory) as engine:
        models = [load_both(engine, folder) for folder in guides.folders]
        assert programs.runs == 2  # of the trial
        requests = [Request(model, inputs.crops, inputs.windows) for model in models]
        for source, made in zip(guides.sources, engine.infer_together(requests), strict=True):
            assert _near(made, oracle(source).pixels(inputs))
        assert programs.runs == 3
    assert (memory.regions, memory.host_blocks, programs.loaded) == (0, 0, 0)


@pytest.mark.slow
@pytest.mark.parametrize("widths", [MOBILE_WIDTHS, FULL_WIDTHS], ids=["mobile", "full"])
def test_kernels_make_what_wide_networks_make(
    kernels_folder: Path,
    tmp_path: Path,
    compiled_for_gpu: Any,
    oracle: Any,
    make_inputs: Any,
    monkeypatch: pytest.MonkeyPatch,
    widths: tuple[int, int, int, int, int],
) -> None:
    """One frame: the trial would be three more."""
    monkeypatch.setattr(kernelcache, "why_not_the_same", lambda *_: None)
    write_unet(tmp_path / "wide.onnx", seed=1, widths=widths)
    programs = EmulatedPrograms(kernels_folder)
    inputs = make_inputs(1)
    with Engine(threads=1, memory=HostMemory(PLENTY, programs=programs)) as engine:
        model = load_both(engine, compiled_for_gpu(tmp_path / "wide.onnx"))
        made = engine.infer(model, inputs.crops, inputs.windows)
    assert programs.runs == 1
    assert _near(made, oracle(tmp_path / "wide.onnx").pixels(inputs))


# Imitated kernels


def test_every_avatar_gets_its_own_mouths(
    device: HostMemory,
    stamping: ImitatedPrograms,
    three: StampedAvatars,
    make_inputs: Any,
) -> None:
    with Engine(threads=1, memory=device, tuning=Tuning(streams=1)) as engine:
        models = three.load(engine)
        for frames in (1, 3, 2):
            for which, model in enumerate(models):
                inputs = make_inputs(frames, seed=10 * frames + which)
                made = engine.infer(model, inputs.crops, inputs.windows)
                assert three.are(which, made, inputs.crops, inputs.windows)
    assert stamping.loads == 1
    assert stamping.records == [1, 3, 2]


@pytest.mark.slow
@pytest.mark.parametrize("weights", [2, 3])
def test_no_face_shows_in_another_under_concurrency_and_eviction(
    device: HostMemory,
    stamping: ImitatedPrograms,
    alike: Callable[[int], list[Path]],
    weights: int,
) -> None:
    """Room for fewer avatars than there are, crops that come and go, requests alone and together,
    growing batches."""
    avatars = StampedAvatars(alike(6))
    tuning = Tuning(
        streams=2,
        max_models=weights,
        host_bytes=2 * stamping.image_bytes,
        crop_bytes=2 * 20 * CROP_BYTES,
    )
    numbers = random.Random(weights)
    jobs = [
        [
            (which, [numbers.randrange(FRAMES) for _ in range(numbers.randint(1, 3))])
            for which in numbers.sample(range(6), numbers.randint(1, 2))
        ]
        for _ in range(60)
    ]
    with Engine(threads=1, memory=device, tuning=tuning) as engine:
        models = avatars.load(engine)

        def run(job: list[tuple[int, list[int]]]) -> bool:
            speech = np.random.default_rng(len(job)).standard_normal
            requests = [
                Request(models[which], shown, speech((len(shown), 32, 16, 16), np.float32))
                for which, shown in job
            ]
            while True:
                try:
                    together = engine.infer_together(requests)
                    break
                except Overloaded:  # another batch has all the room
                    continue
            return all(
                avatars.are(which, made, avatars.frames[which].crops[shown], request.windows)
                for (which, shown), made, request in zip(job, together, requests, strict=True)
            )

        with ThreadPoolExecutor(4) as threads:
            assert all(threads.map(run, jobs))
        stats = engine.weights
        assert stats is not None
        assert stats.evictions > 0


def test_crops_that_are_kept_are_not_brought_again(
    device: HostMemory,
    stamping: ImitatedPrograms,
    three: StampedAvatars,
    make_inputs: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    windows = make_inputs(3).windows
    uploaded: list[int] = []
    upload = HostMemory.upload

    def counted(self: HostMemory, stream: int, address: int, source: Bytes) -> None:
        uploaded.append(source.nbytes)
        upload(self, stream, address, source)

    with Engine(threads=1, memory=device) as engine:
        models = three.load(engine)
        for which, model in enumerate(models):
            made = engine.infer_frames(model, [0, 2, 1], windows)
            assert three.are(which, made, three.frames[which].crops[[0, 2, 1]], windows)
        monkeypatch.setattr(HostMemory, "upload", counted)
        for which, model in enumerate(models):
            three.frames[which].asked.clear()
            made = engine.infer_frames(model, [2, 1, 2], windows)
            assert three.are(which, made, three.frames[which].crops[[2, 1, 2]], windows)
            assert three.frames[which].asked == []
        assert len(uploaded) == 3  # tables and speech, once for each
        assert max(uploaded) < CROP_BYTES


def test_without_room_for_crops_they_are_brought_each_time(
    device: HostMemory, three: StampedAvatars, make_inputs: Any
) -> None:
    windows = make_inputs(2).windows
    with Engine(threads=1, memory=device, tuning=Tuning(crop_bytes=0)) as engine:
        model = three.load(engine)[1]
        for _ in range(2):
            made = engine.infer_frames(model, [3, 3], windows)
            assert three.are(1, made, three.frames[1].crops[[3, 3]], windows)
        assert three.frames[1].asked == [3, 3]


@pytest.mark.slow
def test_a_long_request_is_run_in_the_largest_batches(
    device: HostMemory,
    stamping: ImitatedPrograms,
    three: StampedAvatars,
    make_inputs: Any,
) -> None:
    windows = make_inputs(1).windows.repeat(67, axis=0)
    numbers = [number % FRAMES for number in range(67)]
    with Engine(threads=1, memory=device) as engine:
        made = engine.infer_frames(three.load(engine)[0], numbers, windows)
    assert three.are(0, made, three.frames[0].crops[numbers], windows)
    assert sum(stamping.runs) == 67
    assert stamping.runs == sorted(stamping.runs, reverse=True)


# What is not run in kernels of our own


@pytest.mark.slow
def test_floats_are_onnx_runtimes(
    device: HostMemory,
    stamping: ImitatedPrograms,
    guides: Any,
    oracle: Any,
    make_inputs: Any,
) -> None:
    inputs = make_inputs(1)
    with Engine(threads=1, memory=device) as engine:
        model = load_both(engine, guides.folders[0])
        floats = engine.infer_float(model, inputs.visual, inputs.windows)
        wanted = oracle(guides.sources[0]).floats(inputs.visual, inputs.windows)
        assert np.abs(floats - wanted).max() < 5e-3
        assert stamping.runs == []
        engine.infer(model, inputs.crops, inputs.windows)
        assert stamping.runs == [1]


@pytest.mark.slow
@pytest.mark.parametrize(
    "tuning",
    [Tuning(kernels=False), Tuning(precision="single")],
    ids=["off", "single"],
)
def test_kernels_that_are_not_wanted_are_not_made(
    device: HostMemory,
    stamping: ImitatedPrograms,
    guides: Any,
    oracle: Any,
    make_inputs: Any,
    tuning: Tuning,
) -> None:
    inputs = make_inputs(1)
    with Engine(threads=1, memory=device, tuning=tuning) as engine:
        model = load_both(engine, guides.folders[0])
        assert model.together is None
        made = engine.infer(model, inputs.crops, inputs.windows)
    assert _near(made, oracle(guides.sources[0]).pixels(inputs))
    assert stamping.loads == 0


@pytest.mark.slow
def test_kernels_that_fail_their_trial_leave_a_network_that_is_right(
    guides: Any, oracle: Any, make_inputs: Any, caplog: pytest.LogCaptureFixture
) -> None:
    programs = ImitatedPrograms(stamped, half_of(guides.folders[0])[2].nbytes)
    memory = HostMemory(PLENTY, programs=programs)
    inputs = make_inputs(2)
    with Engine(threads=1, memory=memory) as engine:
        models = [load_both(engine, folder) for folder in guides.folders]
        for source, model in zip(guides.sources, models, strict=True):
            made = engine.infer(model, inputs.crops, inputs.windows)
            assert _near(made, oracle(source).pixels(inputs))
    assert programs.runs == [3, 3]
    assert len([record for record in caplog.records if record.levelname == "WARNING"]) == 1
    assert (memory.regions, memory.host_blocks, programs.loaded) == (0, 0, 0)


class Without(HostMemory):
    def programs(self) -> Programs:
        raise KernelsUnavailable("NVRTC is not there")


@pytest.mark.slow
def test_a_device_without_a_compiler_runs_all_networks_in_onnx_runtime(
    guides: Any, oracle: Any, make_inputs: Any, caplog: pytest.LogCaptureFixture
) -> None:
    inputs = make_inputs(1)
    with Engine(threads=1, memory=Without(PLENTY)) as engine:
        models = [load_both(engine, folder) for folder in guides.folders]
        for source, model in zip(guides.sources, models, strict=True):
            made = engine.infer(model, inputs.crops, inputs.windows)
            assert _near(made, oracle(source).pixels(inputs))
    assert [record.levelname for record in caplog.records] == ["WARNING"]


@pytest.mark.slow
def test_networks_of_both_kinds_live_side_by_side(
    device: HostMemory,
    stamping: ImitatedPrograms,
    three: StampedAvatars,
    tmp_path: Path,
    compiled_for_gpu: Any,
    oracle: Any,
    make_inputs: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    write_tiny_unet(tmp_path / "tiny.onnx", seed=1)
    inputs = make_inputs(2)
    with Engine(threads=1, memory=device, tuning=Tuning(streams=1)) as engine:
        tiny = load_both(engine, compiled_for_gpu(tmp_path / "tiny.onnx"))
        models = three.load(engine)
        for _ in range(2):
            made = engine.infer(tiny, inputs.crops, inputs.windows)
            assert _near(made, oracle(tmp_path / "tiny.onnx").pixels(inputs))
            made = engine.infer(models[0], inputs.crops, inputs.windows)
            assert three.are(0, made, inputs.crops, inputs.windows)
        with pytest.raises(InvalidInput, match="cannot be run together"):
            engine.infer_together(
                [Request(model, inputs.crops, inputs.windows) for model in (tiny, models[0])]
            )
    assert caplog.records == []
    assert stamping.runs == [2, 2]


@pytest.mark.slow
def test_a_network_of_a_fixed_batch_runs_in_any(
    device: HostMemory,
    stamping: ImitatedPrograms,
    tmp_path: Path,
    compiled_for_gpu: Any,
    make_inputs: Any,
) -> None:
    """Kernels of our own have no batch."""
    write_unet(tmp_path / "fixed.onnx", seed=1, widths=NARROW_WIDTHS, fixed_batch=2)
    avatars = StampedAvatars([compiled_for_gpu(tmp_path / "fixed.onnx")])
    with Engine(threads=1, memory=device) as engine:
        (model,) = avatars.load(engine)
        assert model.fixed_batch == 2
        for frames in (1, 3):
            inputs = make_inputs(frames)
            made = engine.infer(model, inputs.crops, inputs.windows)
            assert avatars.are(0, made, inputs.crops, inputs.windows)
    assert stamping.runs == [1, 3]
