"""What a GPU does, done by the processor over memory of its own: the same code, real buffers.

Mouths are compared with plain ONNX Runtime. The graphs for GPUs are other graphs than the
processor's, so that they are compared as pixels, which may differ by one where rounding does.
"""

import gc
import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.engine.standin import PLENTY, SINGLE, failing, near
from tests.support.compilednetworks import load_both
from tests.support.hostmemory import HostMemory

from lipwire.bench.randomnetworks import write_tiny_unet
from lipwire.domain import AvatarInvalid
from lipwire.engine import Device, Engine
from lipwire.engine.gpu.compile import gpugraphs
from lipwire.engine.tuning import Tuning


@pytest.mark.slow
@pytest.mark.parametrize(("tuning", "mean"), [(SINGLE, 1e-3), (Tuning(), 0.1)])
def test_interleaved_avatars_equal_plain_sessions(
    memory: HostMemory, avatars: Any, oracle: Any, make_inputs: Any, tuning: Tuning, mean: float
) -> None:
    with Engine(threads=1, memory=memory, tuning=tuning) as engine:
        models = [load_both(engine, folder) for _, folder in avatars]
        assert all(model.on_gpu and model.precision == tuning.precision for model in models)
        for turn in range(2):
            inputs = make_inputs(1 + turn, seed=turn)
            for (source, _), model in zip(avatars, models, strict=True):
                plain = oracle(source)
                made = engine.infer(model, inputs.crops, inputs.windows)
                assert near(made, plain.pixels(inputs), mean)
                floats = engine.infer_float(model, inputs.visual, inputs.windows)
                assert floats.dtype == np.float32
                wanted = plain.floats(inputs.visual, inputs.windows)
                assert np.abs(floats - wanted).max() < (5e-3 if mean == 0.1 else 1e-5)
        assert engine.session_count == 0  # none of the processor's


@pytest.mark.slow
@pytest.mark.parametrize("streams", [3, 1])
@pytest.mark.parametrize("weights", [2, 100])
def test_no_face_shows_in_another_under_concurrency_and_eviction(
    avatars: Any, oracle: Any, make_inputs: Any, streams: int, weights: int
) -> None:
    """Room for two avatars at a time (or for all), several streams, many threads, less memory than
    the budget says; what each of them would be alone was made beforehand."""
    some = avatars[:6]
    jobs = []
    with Engine(threads=1, memory=HostMemory(PLENTY), tuning=SINGLE) as alone:
        for which, (source, folder) in enumerate(some):
            model = load_both(alone, folder)
            for seed in range(2):
                inputs = make_inputs(1 + seed, seed=10 * which + seed)
                wanted = alone.infer(model, inputs.crops, inputs.windows)
                assert near(wanted, oracle(source).pixels(inputs))
                jobs.append((which, inputs, wanted))
        image_bytes = model.weights_bytes
    tuning = replace(
        SINGLE,
        streams=streams,
        batch_sizes=(1, 2),
        device_bytes=(streams + weights) * image_bytes,
        host_bytes=3 * image_bytes,
        max_models=streams + weights if weights < 6 else None,
    )
    memory = HostMemory(PLENTY)
    with Engine(threads=1, memory=memory, tuning=tuning) as engine:
        models = [load_both(engine, folder) for _, folder in some]
        order = jobs * 3
        random.Random(0).shuffle(order)

        def run(job: Any) -> bool:
            which, inputs, wanted = job
            made = engine.infer(models[which], inputs.crops, inputs.windows)
            return bool((made == wanted).all())

        with ThreadPoolExecutor(4) as threads:
            assert all(threads.map(run, order))
        stats = engine.weights
        assert stats is not None
        assert stats.device_bytes == engine.weights_bytes <= (streams + weights) * image_bytes
        if streams + weights < 6:
            assert stats.evictions > 0
        models.clear()
        gc.collect()
        assert engine.weights_bytes == 0
    assert (memory.regions, memory.host_blocks) == (0, 0)


def test_another_avatars_weights_would_be_seen(
    memory: HostMemory,
    avatars: Any,
    oracle: Any,
    make_inputs: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """That the comparisons above can fail: a slot that is not filled anew shows the other face."""
    inputs = make_inputs(1)
    with Engine(threads=1, memory=memory, tuning=replace(SINGLE, streams=1)) as engine:
        models = [load_both(engine, folder) for _, folder in avatars[:2]]
        engine.infer(models[0], inputs.crops, inputs.windows)
        monkeypatch.setattr(HostMemory, "copy", lambda *_: None)
        made = engine.infer(models[1], inputs.crops, inputs.windows)
    assert near(made, oracle(avatars[0][0]).pixels(inputs))
    assert not near(made, oracle(avatars[1][0]).pixels(inputs))


def test_a_run_that_fails_leaves_no_half_filled_slot(
    memory: HostMemory,
    avatars: Any,
    oracle: Any,
    make_inputs: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    inputs = make_inputs(1)
    with Engine(threads=1, memory=memory, tuning=replace(SINGLE, streams=1)) as engine:
        models = [load_both(engine, folder) for _, folder in avatars[:2]]
        engine.infer(models[0], inputs.crops, inputs.windows)
        with monkeypatch.context() as broken:
            broken.setattr(HostMemory, "copy", failing(RuntimeError("a kernel failed")))
            with pytest.raises(AvatarInvalid, match="a kernel failed"):
                engine.infer(models[1], inputs.crops, inputs.windows)
        for (source, _), model in zip(avatars, models, strict=False):
            made = engine.infer(model, inputs.crops, inputs.windows)
            assert near(made, oracle(source).pixels(inputs))


def test_the_same_avatar_again_copies_no_weights(
    memory: HostMemory, avatars: Any, make_inputs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies = []
    whole = HostMemory.copy

    def counted(self: HostMemory, *arguments: Any) -> None:
        copies.append(arguments)
        whole(self, *arguments)

    monkeypatch.setattr(HostMemory, "copy", counted)
    inputs = make_inputs(1)
    with Engine(threads=1, memory=memory, tuning=replace(SINGLE, streams=2)) as engine:
        one, two = (load_both(engine, folder) for _, folder in avatars[:2])
        for model in (one, two, one, two, one):  # each has a stream of its own after its first turn
            engine.infer(model, inputs.crops, inputs.windows)
    assert len(copies) == 2


@pytest.mark.slow
@pytest.mark.parametrize("frames", [3, 1, 7])
@pytest.mark.parametrize("fixed_batch", [None, 4])
def test_frames_are_what_they_are_alone_however_they_are_batched(
    memory: HostMemory,
    tmp_path: Path,
    compiled_for_gpu: Any,
    oracle: Any,
    make_inputs: Any,
    frames: int,
    fixed_batch: int | None,
) -> None:
    write_tiny_unet(tmp_path / "model.onnx", seed=1, fixed_batch=fixed_batch)
    write_tiny_unet(tmp_path / "open.onnx", seed=1)
    inputs = make_inputs(frames)
    with Engine(threads=1, memory=memory, tuning=replace(SINGLE, batch_sizes=(2, 4))) as engine:
        model = load_both(engine, compiled_for_gpu(tmp_path / "model.onnx"))
        made = engine.infer(model, inputs.crops, inputs.windows)
    assert near(made, oracle(tmp_path / "open.onnx").pixels(inputs))


@pytest.mark.slow
@pytest.mark.parametrize("device", [Device.cpu(), Device.cuda(0)], ids=str)
def test_a_network_without_a_form_for_gpus_runs_on_the_processor(
    tmp_path: Path,
    compiled_for_gpu: Any,
    oracle: Any,
    make_inputs: Any,
    monkeypatch: pytest.MonkeyPatch,
    device: Device,
) -> None:
    memory = HostMemory(PLENTY, device=device)
    monkeypatch.setattr(gpugraphs, "why_not_shared", lambda graph, kept: "odd")
    write_tiny_unet(tmp_path / "model.onnx", seed=1)
    inputs = make_inputs(2)
    with Engine(threads=1, device=device, memory=memory) as engine:
        model = load_both(engine, compiled_for_gpu(tmp_path / "model.onnx"))
        assert not model.on_gpu
        made = engine.infer(model, inputs.crops, inputs.windows)
        assert engine.weights_bytes == 0
    assert (made == oracle(tmp_path / "model.onnx").pixels(inputs)).all()


def test_a_network_that_is_spoilt_in_half_runs_in_single(
    memory: HostMemory, tmp_path: Path, compiled_for_gpu: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpugraphs, "halved", failing(ValueError("no")))
    write_tiny_unet(tmp_path / "model.onnx", seed=1)
    with Engine(threads=1, memory=memory, tuning=Tuning(precision="half")) as engine:
        assert load_both(engine, compiled_for_gpu(tmp_path / "model.onnx")).precision == "single"


def test_prefetching_brings_an_avatar_back(memory: HostMemory, avatars: Any) -> None:
    tuning = replace(SINGLE, max_models=1, host_bytes=0)
    with Engine(threads=1, memory=memory, tuning=tuning) as engine:
        first = load_both(engine, avatars[0][1])
        second = load_both(engine, avatars[1][1])
        for model in (first, second, second):
            assert engine.prefetch(model)
        stats = engine.weights
        assert stats is not None
        assert (stats.from_disk, stats.evictions, stats.device_items) == (4, 3, 1)


def test_the_engine_says_where_it_runs(memory: HostMemory) -> None:
    with Engine(threads=1) as engine:
        assert engine.device == Device.cpu()
        assert engine.weights_bytes == 0
        assert engine.weights is None
