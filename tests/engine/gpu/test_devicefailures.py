"""A device that is full or fails: what is given up, and whose error it is."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from tests.engine.standin import (
    FRAMES,
    PLENTY,
    SINGLE,
    TUNING,
    failing,
    image_bytes_of,
    near,
    opened,
    speech,
)
from tests.support.compilednetworks import load_both
from tests.support.hostmemory import HostMemory
from tests.support.waiting import until

from lipwire.domain import AvatarInvalid, Overloaded, Unavailable
from lipwire.engine import Engine, runtime
from lipwire.engine.device import DeviceLost
from lipwire.engine.gpu.memory.cropplaces import CROP_BYTES
from lipwire.engine.gpu.memory.devicememory import DeviceOutOfMemory, Region
from lipwire.engine.gpu.onnx import gpusessions


@pytest.mark.slow
def test_a_full_device_gives_up_avatars_and_goes_on(
    avatars: Any, oracle: Any, make_inputs: Any
) -> None:
    """The device ends where the weights of six avatars and nothing else would fit."""
    inputs = make_inputs(1)
    with Engine(threads=1, memory=HostMemory(PLENTY), tuning=SINGLE) as engine:
        image_bytes = load_both(engine, avatars[0][1]).weights_bytes
    staging_bytes = 2 * inputs.crops.nbytes + inputs.windows.nbytes
    memory = HostMemory(2 * image_bytes + staging_bytes + 1000)
    tuning = replace(SINGLE, streams=1, device_bytes=6 * image_bytes, batch_sizes=(1,))
    with Engine(threads=1, memory=memory, tuning=tuning) as engine:
        models = [load_both(engine, folder) for _, folder in avatars[:6]]
        for (source, _), model in zip(avatars, models, strict=False):
            made = engine.infer(model, inputs.crops, inputs.windows)
            assert near(made, oracle(source).pixels(inputs))
        assert engine.weights_bytes == image_bytes
    assert memory.regions == 0


def test_a_device_that_is_too_small_says_come_back(avatars: Any, make_inputs: Any) -> None:
    inputs = make_inputs(1)
    memory = HostMemory(1000)
    with Engine(threads=1, memory=memory, tuning=SINGLE) as engine:
        model = load_both(engine, avatars[0][1])
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
    whole = runtime.open_session

    def full_at_first(*arguments: Any) -> Any:
        if left[0]:
            left[0] -= 1
            raise RuntimeError(message)
        return whole(*arguments)

    monkeypatch.setattr(gpusessions, "open_session", full_at_first)
    with Engine(threads=1, memory=memory, tuning=replace(SINGLE, streams=1)) as engine:
        models = [load_both(engine, folder) for _, folder in avatars[:6]]
        made = engine.infer(models[0], inputs.crops, inputs.windows)
        assert near(made, oracle(avatars[0][0]).pixels(inputs))
        stats = engine.weights
        assert stats is not None
        assert stats.out_of_memory == 2
        assert stats.device_items == 1


def test_memory_that_never_suffices_is_no_endless_loop(
    memory: HostMemory, avatars: Any, make_inputs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = make_inputs(1)
    monkeypatch.setattr(gpusessions, "open_session", failing(MemoryError("std::bad_alloc")))
    with Engine(threads=1, memory=memory, tuning=SINGLE) as engine:
        model = load_both(engine, avatars[0][1])
        with pytest.raises(Overloaded, match="full"):
            engine.infer(model, inputs.crops, inputs.windows)


def test_a_network_that_fails_is_its_avatars_fault_and_nobody_elses(
    memory: HostMemory, avatars: Any, make_inputs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = make_inputs(1)
    with Engine(threads=1, memory=memory, tuning=SINGLE) as engine:
        model = load_both(engine, avatars[0][1])
        with monkeypatch.context() as broken:
            broken.setattr(gpusessions, "open_session", failing(RuntimeError("no such operator")))
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
        model = load_both(engine, avatars[0][1])
        with monkeypatch.context() as broken:
            broken.setattr(gpusessions, "open_session", failing(RuntimeError(message)))
            with pytest.raises(DeviceLost, match="has failed"):
                engine.infer(model, inputs.crops, inputs.windows)
        for use in (
            lambda: engine.infer(model, inputs.crops, inputs.windows),
            lambda: load_both(engine, avatars[1][1]),
        ):
            with pytest.raises(Unavailable, match="has failed"):
                use()


def test_a_device_that_fell_off_its_bus_is_unavailable(avatars: Any, make_inputs: Any) -> None:
    inputs = make_inputs(1)
    memory = HostMemory(PLENTY)
    with Engine(threads=1, memory=memory, tuning=SINGLE) as engine:
        model = load_both(engine, avatars[0][1])
        engine.infer(model, inputs.crops, inputs.windows)
        memory.lost = True
        with pytest.raises(Unavailable, match="cpu has failed"):
            engine.infer(model, inputs.crops, inputs.windows)
        memory.lost = False
        with pytest.raises(Unavailable, match="cpu has failed"):  # who knows what it forgot
            engine.infer(model, inputs.crops, inputs.windows)


def test_a_recording_that_fails_is_no_lost_device(
    memory: HostMemory, avatars: Any, make_inputs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = "CUDA failure 906: operation would make the legacy stream depend on a capturing one"
    inputs = make_inputs(1)
    with Engine(threads=1, memory=memory, tuning=SINGLE) as engine:
        model = load_both(engine, avatars[0][1])
        with monkeypatch.context() as broken:
            broken.setattr(gpusessions, "open_session", failing(RuntimeError(message)))
            with pytest.raises(AvatarInvalid):
                engine.infer(model, inputs.crops, inputs.windows)
        engine.infer(model, inputs.crops, inputs.windows)


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
    with Engine(threads=1, memory=memory, tuning=replace(SINGLE, streams=1)) as engine:
        model = load_both(engine, avatars[0][1])
        with pytest.raises(Overloaded):
            engine.infer(model, inputs.crops, inputs.windows)
        assert memory.regions <= 1
    assert (memory.regions, memory.host_blocks) == (0, 0)


@pytest.mark.slow
def test_a_full_device_gives_crops_up_first_and_no_request_fails(
    folders: Any, frames: Any, wanted: Any
) -> None:
    """A device with less room than two networks, a stream and some crops; the budget is larger."""
    image_bytes = image_bytes_of(folders[0])
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


@pytest.mark.slow
def test_no_request_fails_for_crops_that_are_in_use(
    folders: Any, frames: Any, wanted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The budget has room for one network and one avatar's crops. While these are in use another
    network is wanted, for which the crops have to go: it waits for them."""
    memory = HostMemory(PLENTY)
    budget_bytes = image_bytes_of(folders[0]) + FRAMES * CROP_BYTES
    tuning = replace(TUNING, streams=2, device_bytes=budget_bytes)
    engine, (model,) = opened(folders[:1], frames[:1], memory, tuning)
    inside, go_on = threading.Event(), threading.Event()
    whole = runtime.open_session

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
        other = load_both(engine, folders[1], frames[1])
        second = threads.submit(engine.infer_frames, other, [0, 1], speech(2, 1))
        until(lambda: engine._gpu._crops._away)  # type: ignore[union-attr]
        assert not second.done()
        go_on.set()
        assert (second.result(30) == wanted(1, [0, 1], speech(2, 1))).all()
        assert (first.result(30) == wanted(0, [0, 1], speech(2))).all()
    assert memory.regions == 0


def test_a_request_goes_without_its_own_crops_where_they_take_what_it_needs(
    memory: HostMemory, folders: Any, frames: Any, wanted: Any
) -> None:
    """The budget holds an avatar's crops, or its network."""
    image_bytes = image_bytes_of(folders[0])
    tuning = replace(TUNING, device_bytes=max(image_bytes, FRAMES * CROP_BYTES))
    engine, models = opened(folders[:1], frames[:1], memory, tuning)
    with engine:
        engine._gpu._weights.give_up(1)  # type: ignore[union-attr]
        for turn in range(3):
            made = engine.infer_frames(models[0], [0, turn], speech(2))
            assert (made == wanted(0, [0, turn], speech(2))).all()
        use = engine.memory_use
        assert use is not None
        assert use.weights + use.crops <= tuning.device_bytes  # type: ignore[operator]


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
