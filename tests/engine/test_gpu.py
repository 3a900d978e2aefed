"""What a GPU does, done by the processor over memory of its own: the same code, real buffers.

Mouths are compared with plain ONNX Runtime. The graphs for GPUs are other graphs than the
processor's, so that they are compared as pixels, which may differ by one where rounding does.
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
from lipwire.domain import AvatarInvalid, InvalidInput, Overloaded, Unavailable
from lipwire.engine import Device, Engine, compile_model, devices, gpugraphs, gpusessions
from lipwire.engine.devices import CudaOptions
from lipwire.engine.lanes import Lane
from lipwire.engine.memory import DeviceLost, DeviceOutOfMemory, Gate, HostMemory, Region
from lipwire.engine.tuning import Tuning

SINGLE = Tuning(precision="single")
PLENTY = 1 << 30


@pytest.fixture(scope="session")
def avatars(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Path, Path]]:
    """(network, compiled) of six avatars of one architecture, and one of another."""
    root = tmp_path_factory.mktemp("avatars")
    made = []
    for seed in range(7):
        source, folder = root / f"{seed}.onnx", root / str(seed)
        write_tiny_unet(source, seed=seed, ending="clip" if seed == 6 else "sigmoid")
        folder.mkdir()
        compile_model(source, folder)
        made.append((source, folder))
    return made


@pytest.fixture
def memory() -> Iterator[HostMemory]:
    """All of it has to be given back."""
    memory = HostMemory(PLENTY)
    yield memory
    gc.collect()
    assert (memory.regions, memory.host_blocks) == (0, 0)


def _near(made: Any, wanted: Any, mean: float = 0.02) -> bool:
    apart = np.abs(made.astype(int) - wanted)
    return bool(apart.max() <= 1 and apart.mean() <= mean)


@pytest.mark.parametrize(("tuning", "mean"), [(SINGLE, 1e-3), (Tuning(), 0.1)])
def test_interleaved_avatars_equal_plain_sessions(
    memory: HostMemory, avatars: Any, oracle: Any, make_inputs: Any, tuning: Tuning, mean: float
) -> None:
    with Engine(threads=1, memory=memory, tuning=tuning) as engine:
        models = [engine.load(folder) for _, folder in avatars]
        assert all(model.on_gpu and model.precision == tuning.precision for model in models)
        for turn in range(3):
            inputs = make_inputs(1 + turn, seed=turn)
            for (source, _), model in zip(avatars, models, strict=True):
                plain = oracle(source)
                made = engine.infer(model, inputs.crops, inputs.windows)
                assert _near(made, plain.pixels(inputs), mean)
                floats = engine.infer_float(model, inputs.visual, inputs.windows)
                assert floats.dtype == np.float32
                wanted = plain.floats(inputs.visual, inputs.windows)
                assert np.abs(floats - wanted).max() < (5e-3 if mean == 0.1 else 1e-5)
        assert engine.session_count == 0  # none of the processor's


@pytest.mark.parametrize("lanes", [1, 3])
@pytest.mark.parametrize("resident", [2, 100])
def test_no_face_shows_in_another_under_concurrency_and_eviction(
    avatars: Any, oracle: Any, make_inputs: Any, lanes: int, resident: int
) -> None:
    """Room for two avatars at a time (or for all), several lanes, many threads, less memory than
    the budget says; what each of them would be alone was made beforehand."""
    some = avatars[:6]
    jobs = []
    with Engine(threads=1, memory=HostMemory(PLENTY), tuning=SINGLE) as alone:
        for which, (source, folder) in enumerate(some):
            model = alone.load(folder)
            for seed in range(2):
                inputs = make_inputs(1 + seed, seed=10 * which + seed)
                wanted = alone.infer(model, inputs.crops, inputs.windows)
                assert _near(wanted, oracle(source).pixels(inputs))
                jobs.append((which, inputs, wanted))
        image_bytes = model.weights_bytes
    tuning = replace(
        SINGLE,
        lanes=lanes,
        batch_sizes=(1, 2),
        device_bytes=(lanes + resident) * image_bytes,
        host_bytes=3 * image_bytes,
        max_models=lanes + resident if resident < 6 else None,
    )
    memory = HostMemory(PLENTY)
    with Engine(threads=1, memory=memory, tuning=tuning) as engine:
        models = [engine.load(folder) for _, folder in some]
        order = jobs * 3
        random.Random(0).shuffle(order)

        def run(job: Any) -> bool:
            which, inputs, wanted = job
            made = engine.infer(models[which], inputs.crops, inputs.windows)
            return bool((made == wanted).all())

        with ThreadPoolExecutor(4) as threads:
            assert all(threads.map(run, order))
        stats = engine.residency
        assert stats is not None
        assert stats.device_bytes == engine.resident_bytes <= (lanes + resident) * image_bytes
        if lanes + resident < 6:
            assert stats.evictions > 0
        models.clear()
        gc.collect()
        assert engine.resident_bytes == 0
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
    with Engine(threads=1, memory=memory, tuning=replace(SINGLE, lanes=1)) as engine:
        models = [engine.load(folder) for _, folder in avatars[:2]]
        engine.infer(models[0], inputs.crops, inputs.windows)
        monkeypatch.setattr(HostMemory, "copy", lambda *_: None)
        made = engine.infer(models[1], inputs.crops, inputs.windows)
    assert _near(made, oracle(avatars[0][0]).pixels(inputs))
    assert not _near(made, oracle(avatars[1][0]).pixels(inputs))


def test_a_run_that_fails_leaves_no_half_filled_slot(
    memory: HostMemory,
    avatars: Any,
    oracle: Any,
    make_inputs: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    inputs = make_inputs(1)
    with Engine(threads=1, memory=memory, tuning=replace(SINGLE, lanes=1)) as engine:
        models = [engine.load(folder) for _, folder in avatars[:2]]
        engine.infer(models[0], inputs.crops, inputs.windows)
        with monkeypatch.context() as broken:
            broken.setattr(HostMemory, "copy", _raise(RuntimeError("a kernel failed")))
            with pytest.raises(AvatarInvalid, match="a kernel failed"):
                engine.infer(models[1], inputs.crops, inputs.windows)
        for (source, _), model in zip(avatars, models, strict=False):
            made = engine.infer(model, inputs.crops, inputs.windows)
            assert _near(made, oracle(source).pixels(inputs))


def _raise(error: Exception) -> Callable[..., Any]:
    def fail(*_: Any) -> Any:
        raise error

    return fail


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
    with Engine(threads=1, memory=memory, tuning=replace(SINGLE, lanes=2)) as engine:
        one, two = (engine.load(folder) for _, folder in avatars[:2])
        for model in (one, two, one, two, one):  # each has a lane of its own after its first turn
            engine.infer(model, inputs.crops, inputs.windows)
    assert len(copies) == 2


@pytest.mark.parametrize("frames", [1, 3, 7])
@pytest.mark.parametrize("fixed_batch", [None, 4])
def test_frames_are_what_they_are_alone_however_they_are_batched(
    memory: HostMemory,
    tmp_path: Path,
    compiled: Any,
    oracle: Any,
    make_inputs: Any,
    frames: int,
    fixed_batch: int | None,
) -> None:
    write_tiny_unet(tmp_path / "model.onnx", seed=1, fixed_batch=fixed_batch)
    write_tiny_unet(tmp_path / "open.onnx", seed=1)
    inputs = make_inputs(frames)
    with Engine(threads=1, memory=memory, tuning=replace(SINGLE, batch_sizes=(2, 4))) as engine:
        model = engine.load(compiled(tmp_path / "model.onnx"))
        made = engine.infer(model, inputs.crops, inputs.windows)
    assert _near(made, oracle(tmp_path / "open.onnx").pixels(inputs))


@pytest.mark.parametrize("device", [Device.cpu(), Device.cuda(0)], ids=str)
def test_a_network_without_a_form_for_gpus_runs_on_the_processor(
    tmp_path: Path,
    compiled: Any,
    oracle: Any,
    make_inputs: Any,
    monkeypatch: pytest.MonkeyPatch,
    device: Device,
) -> None:
    memory = HostMemory(PLENTY, device=device)
    monkeypatch.setattr(gpugraphs, "why_not_shared", lambda graph, for_gpu: "odd")
    write_tiny_unet(tmp_path / "model.onnx", seed=1)
    inputs = make_inputs(2)
    with Engine(threads=1, device=device, memory=memory) as engine:
        model = engine.load(compiled(tmp_path / "model.onnx"))
        assert not model.on_gpu
        made = engine.infer(model, inputs.crops, inputs.windows)
        assert engine.resident_bytes == 0
    assert (made == oracle(tmp_path / "model.onnx").pixels(inputs)).all()


def test_a_network_that_is_spoilt_in_half_runs_in_single(
    memory: HostMemory, tmp_path: Path, compiled: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpugraphs, "halved", _raise(ValueError("no")))
    write_tiny_unet(tmp_path / "model.onnx", seed=1)
    with Engine(threads=1, memory=memory, tuning=Tuning(precision="half")) as engine:
        assert engine.load(compiled(tmp_path / "model.onnx")).precision == "single"


def test_a_full_device_gives_up_avatars_and_goes_on(
    avatars: Any, oracle: Any, make_inputs: Any
) -> None:
    """The device ends where the weights of six avatars and nothing else would fit."""
    inputs = make_inputs(1)
    with Engine(threads=1, memory=HostMemory(PLENTY), tuning=SINGLE) as engine:
        image_bytes = engine.load(avatars[0][1]).weights_bytes
    staging_bytes = 2 * inputs.crops.nbytes + inputs.windows.nbytes
    memory = HostMemory(2 * image_bytes + staging_bytes + 1000)
    tuning = replace(SINGLE, lanes=1, device_bytes=6 * image_bytes, batch_sizes=(1,))
    with Engine(threads=1, memory=memory, tuning=tuning) as engine:
        models = [engine.load(folder) for _, folder in avatars[:6]]
        for (source, _), model in zip(avatars, models, strict=False):
            made = engine.infer(model, inputs.crops, inputs.windows)
            assert _near(made, oracle(source).pixels(inputs))
        assert engine.resident_bytes == image_bytes
    assert memory.regions == 0


def test_a_device_that_is_too_small_says_come_back(avatars: Any, make_inputs: Any) -> None:
    inputs = make_inputs(1)
    memory = HostMemory(1000)
    with Engine(threads=1, memory=memory, tuning=SINGLE) as engine:
        model = engine.load(avatars[0][1])
        for _ in range(2):
            with pytest.raises(Overloaded):
                engine.infer(model, inputs.crops, inputs.windows)
    assert memory.regions == 0


@pytest.mark.parametrize(
    "message",
    [
        "[ONNXRuntimeError] : 6 : Failed to allocate memory for requested buffer of size 7",
        "[ONNXRuntimeError] : 1 : FAIL : CUDA failure 2: out of memory ; GPU=0 ; hostname=h",
        "CUDNN failure 4000: CUDNN_STATUS_ALLOC_FAILED ; GPU=0",
        "CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED",
        "AllocateRawInternal Available memory of 12 is smaller than requested bytes of 13",
    ],
)
def test_out_of_memory_within_a_run_gives_up_avatars_and_tries_again(
    memory: HostMemory,
    avatars: Any,
    oracle: Any,
    make_inputs: Any,
    monkeypatch: pytest.MonkeyPatch,
    message: str,
) -> None:
    inputs = make_inputs(1)
    left = [2]
    whole = devices.open_session

    def full_at_first(*arguments: Any) -> Any:
        if left[0]:
            left[0] -= 1
            raise RuntimeError(message)
        return whole(*arguments)

    monkeypatch.setattr(gpusessions, "open_session", full_at_first)
    with Engine(threads=1, memory=memory, tuning=replace(SINGLE, lanes=1)) as engine:
        models = [engine.load(folder) for _, folder in avatars[:6]]
        made = engine.infer(models[0], inputs.crops, inputs.windows)
        assert _near(made, oracle(avatars[0][0]).pixels(inputs))
        stats = engine.residency
        assert stats is not None
        assert stats.out_of_memory == 2
        assert stats.device_items == 1


def test_memory_that_never_suffices_is_no_endless_loop(
    memory: HostMemory, avatars: Any, make_inputs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = make_inputs(1)
    monkeypatch.setattr(gpusessions, "open_session", _raise(MemoryError("std::bad_alloc")))
    with Engine(threads=1, memory=memory, tuning=SINGLE) as engine:
        model = engine.load(avatars[0][1])
        with pytest.raises(Overloaded, match="full"):
            engine.infer(model, inputs.crops, inputs.windows)


def test_a_network_that_fails_is_its_avatars_fault_and_nobody_elses(
    memory: HostMemory, avatars: Any, make_inputs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = make_inputs(1)
    with Engine(threads=1, memory=memory, tuning=SINGLE) as engine:
        model = engine.load(avatars[0][1])
        with monkeypatch.context() as broken:
            broken.setattr(gpusessions, "open_session", _raise(RuntimeError("no such operator")))
            with pytest.raises(AvatarInvalid, match="no such operator"):
                engine.infer(model, inputs.crops, inputs.windows)
        assert engine.infer(model, inputs.crops, inputs.windows).shape == (1, 320, 320, 3)


@pytest.mark.parametrize(
    "message",
    [
        "CUDA failure 700: an illegal memory access was encountered ; GPU=0",
        "CUDA failure 719: unspecified launch failure ; GPU=0",
        "CUDA error 46: all CUDA-capable devices are busy or unavailable",
    ],
)
def test_a_device_that_has_failed_is_not_asked_again(
    memory: HostMemory,
    avatars: Any,
    make_inputs: Any,
    monkeypatch: pytest.MonkeyPatch,
    message: str,
) -> None:
    inputs = make_inputs(1)
    with Engine(threads=1, memory=memory, tuning=SINGLE) as engine:
        model = engine.load(avatars[0][1])
        with monkeypatch.context() as broken:
            broken.setattr(gpusessions, "open_session", _raise(RuntimeError(message)))
            with pytest.raises(DeviceLost, match="has failed"):
                engine.infer(model, inputs.crops, inputs.windows)
        for use in (
            lambda: engine.infer(model, inputs.crops, inputs.windows),
            lambda: engine.load(avatars[1][1]),
        ):
            with pytest.raises(Unavailable, match="has failed"):
                use()


def test_a_device_that_fell_off_its_bus_is_unavailable(avatars: Any, make_inputs: Any) -> None:
    inputs = make_inputs(1)
    memory = HostMemory(PLENTY)
    with Engine(threads=1, memory=memory, tuning=SINGLE) as engine:
        model = engine.load(avatars[0][1])
        engine.infer(model, inputs.crops, inputs.windows)
        memory.lost = True
        with pytest.raises(Unavailable, match="cpu has failed"):
            engine.infer(model, inputs.crops, inputs.windows)
        memory.lost = False
        with pytest.raises(Unavailable, match="cpu has failed"):  # who knows what it forgot
            engine.infer(model, inputs.crops, inputs.windows)


def test_a_call_under_way_survives_closing_and_later_ones_do_not(
    memory: HostMemory, avatars: Any, make_inputs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = make_inputs(30)
    engine = Engine(threads=1, memory=memory, tuning=replace(SINGLE, batch_sizes=(50,)))
    model = engine.load(avatars[0][1])
    begun = threading.Event()
    run = Lane.run

    def run_late(self: Lane, *arguments: Any) -> None:
        begun.set()
        assert engine._gpu is not None
        until_s = time.monotonic() + 60
        while not engine._gpu._lanes.closed and time.monotonic() < until_s:
            time.sleep(0.001)
        run(self, *arguments)

    monkeypatch.setattr(Lane, "run", run_late)
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(engine.infer, model, inputs.crops, inputs.windows)
        assert begun.wait(60)
        engine.close()
        assert running.result().shape == (30, 320, 320, 3)
    with pytest.raises(RuntimeError, match="closed"):
        engine.infer(model, inputs.crops, inputs.windows)
    engine.close()


def test_kernels_are_recorded_while_nobody_else_is_on_the_device(
    memory: HostMemory, avatars: Any, make_inputs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first runs of each session are alone; later ones pass together."""
    alone = []
    gate = Gate
    whole = gate.alone

    def counted(self: Gate) -> Any:
        alone.append(1)
        return whole(self)

    monkeypatch.setattr(gate, "alone", counted)
    tuning = replace(SINGLE, lanes=2, batch_sizes=(1,), cuda=CudaOptions(graphs=True))
    inputs = make_inputs(1)
    with (
        Engine(threads=1, memory=memory, tuning=tuning) as engine,
        ThreadPoolExecutor(4) as threads,
    ):
        models = [engine.load(folder) for _, folder in avatars[:4]]
        wanted = [engine.infer(model, inputs.crops, inputs.windows) for model in models]
        for _ in range(6):
            made = threads.map(lambda m: engine.infer(m, inputs.crops, inputs.windows), models)
            assert all((one == two).all() for one, two in zip(made, wanted, strict=True))
    assert len(alone) == 2 * 3


def test_an_architecture_that_nobody_has_any_more_gives_its_room_back(
    memory: HostMemory, avatars: Any, make_inputs: Any
) -> None:
    inputs = make_inputs(1)
    with Engine(threads=1, memory=memory, tuning=replace(SINGLE, lanes=1)) as engine:
        first, other = engine.load(avatars[0][1]), engine.load(avatars[6][1])
        engine.infer(first, inputs.crops, inputs.windows)
        engine.infer(other, inputs.crops, inputs.windows)
        before = memory.regions
        del other
        gc.collect()
        engine.infer(first, inputs.crops, inputs.windows)
        assert engine.resident_bytes == first.weights_bytes
        assert memory.regions == before - 5  # weights, slot, face, speech, mouth


def test_every_call_has_its_lane_to_itself(
    memory: HostMemory, avatars: Any, make_inputs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside: dict[int, int] = {}
    most: list[int] = []
    lock = threading.Lock()
    all_three = threading.Barrier(3, timeout=60)
    whole = Lane.run

    def counted(self: Lane, *arguments: Any) -> None:
        with lock:
            first = id(self) not in inside
            inside[id(self)] = inside.get(id(self), 0) + 1
            most.append(inside[id(self)])
        if first:
            all_three.wait()  # where one call after the other came, one lane would do
        whole(self, *arguments)
        with lock:
            inside[id(self)] -= 1

    monkeypatch.setattr(Lane, "run", counted)
    inputs = make_inputs(2)
    with (
        Engine(threads=1, memory=memory, tuning=replace(SINGLE, lanes=3)) as engine,
        ThreadPoolExecutor(8) as threads,
    ):
        model = engine.load(avatars[0][1])
        list(threads.map(lambda _: engine.infer(model, inputs.crops, inputs.windows), range(24)))
    assert set(most) == {1}
    assert len(inside) == 3


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Tuning(lanes=0),
        lambda: Tuning(lanes=9),
        lambda: Tuning(batch_sizes=()),
        lambda: Tuning(batch_sizes=(4, 2)),
        lambda: Tuning(batch_sizes=(0, 2)),
    ],
)
def test_a_tuning_that_cannot_be_is_refused(wrong: Callable[[], Tuning]) -> None:
    with pytest.raises(InvalidInput):
        wrong()


def test_a_graph_whose_inputs_are_read_elsewhere_is_refused(
    avatars: Any, make_inputs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is bound to a GPU's memory and read on the processor is copied once, for good: every
    face would be the first one's."""
    memory = HostMemory(PLENTY, device=Device.cuda(0))
    monkeypatch.setattr(
        gpusessions,
        "open_session",
        lambda graph, options, device, cuda: devices.open_session(graph, options),
    )
    inputs = make_inputs(1)
    with Engine(threads=1, memory=memory, tuning=SINGLE) as engine:
        model = engine.load(avatars[0][1])
        with pytest.raises(AvatarInvalid, match=r"cuda:0 cannot run .* reads face, speech, .* on"):
            engine.infer(model, inputs.crops, inputs.windows)


@pytest.mark.parametrize(("precision", "matrix_units"), [("single", False), ("half", True)])
def test_half_precision_may_use_the_matrix_units_and_single_may_not(
    memory: HostMemory,
    avatars: Any,
    make_inputs: Any,
    monkeypatch: pytest.MonkeyPatch,
    precision: Any,
    matrix_units: bool,
) -> None:
    asked: list[CudaOptions] = []
    whole = devices.open_session

    def seen(graph: bytes, options: Any, device: Device, cuda: CudaOptions) -> Any:
        asked.append(cuda)
        return whole(graph, options, device, cuda)

    monkeypatch.setattr(gpusessions, "open_session", seen)
    inputs = make_inputs(1)
    with Engine(threads=1, memory=memory, tuning=Tuning(precision=precision)) as engine:
        engine.infer(engine.load(avatars[0][1]), inputs.crops, inputs.windows)
    assert [(cuda.tf32, cuda.stream > 0) for cuda in asked] == [(matrix_units, True)]


def test_a_recording_that_fails_is_no_lost_device(
    memory: HostMemory, avatars: Any, make_inputs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = "CUDA failure 906: operation would make the legacy stream depend on a capturing one"
    inputs = make_inputs(1)
    with Engine(threads=1, memory=memory, tuning=SINGLE) as engine:
        model = engine.load(avatars[0][1])
        with monkeypatch.context() as broken:
            broken.setattr(gpusessions, "open_session", _raise(RuntimeError(message)))
            with pytest.raises(AvatarInvalid):
                engine.infer(model, inputs.crops, inputs.windows)
        engine.infer(model, inputs.crops, inputs.windows)


def test_prefetching_brings_an_avatar_back(memory: HostMemory, avatars: Any) -> None:
    tuning = replace(SINGLE, max_models=1, host_bytes=0)
    with Engine(threads=1, memory=memory, tuning=tuning) as engine:
        first = engine.load(avatars[0][1])
        second = engine.load(avatars[1][1])
        for model in (first, second, second):
            assert engine.prefetch(model)
        stats = engine.residency
        assert stats is not None
        assert (stats.from_disk, stats.evictions, stats.device_items) == (4, 3, 1)


def test_the_engine_says_where_it_runs(memory: HostMemory) -> None:
    with Engine(threads=1) as engine:
        assert engine.device == Device.cpu()
        assert engine.resident_bytes == 0
        assert engine.residency is None


def test_memory_that_cannot_be_pinned_for_a_lane_is_out_of_memory(
    avatars: Any, make_inputs: Any
) -> None:
    """Half of a place is not left behind."""
    inputs = make_inputs(1)

    class Grudging(HostMemory):
        def allocate_host(self, size_bytes: int) -> Any:
            if size_bytes == inputs.windows.nbytes:
                raise DeviceOutOfMemory("no")
            return super().allocate_host(size_bytes)

        def free(self, region: Region) -> None:
            super().free(region)

    memory = Grudging(PLENTY)
    with Engine(threads=1, memory=memory, tuning=replace(SINGLE, lanes=1)) as engine:
        model = engine.load(avatars[0][1])
        with pytest.raises(Overloaded):
            engine.infer(model, inputs.crops, inputs.windows)
        assert memory.regions <= 1
    assert (memory.regions, memory.host_blocks) == (0, 0)
