"""One run at a time in each stream, what streams keep ready, and their end."""

import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from tests.engine.standin import SINGLE
from tests.support.compilednetworks import load_both
from tests.support.hostmemory import HostMemory
from tests.support.waiting import until

from lipwire.engine import Engine, runtime
from lipwire.engine.gpu.gpustreams import GpuStream
from lipwire.engine.gpu.memory.sharedexclusivelock import SharedExclusiveLock
from lipwire.engine.gpu.onnx import gpusessions
from lipwire.engine.runtime import CudaOptions


@pytest.mark.slow
def test_a_call_under_way_survives_closing_and_later_ones_do_not(
    memory: HostMemory, avatars: Any, make_inputs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = make_inputs(30)
    engine = Engine(threads=1, memory=memory, tuning=replace(SINGLE, batch_sizes=(50,)))
    model = load_both(engine, avatars[0][1])
    begun = threading.Event()
    run = GpuStream.run

    def run_late(self: GpuStream, *arguments: Any) -> None:
        begun.set()
        assert engine._gpu is not None
        gpu = engine._gpu
        until(lambda: gpu._streams.closed)
        run(self, *arguments)

    monkeypatch.setattr(GpuStream, "run", run_late)
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
    """The first runs of each session hold the lock exclusively; later ones share it."""
    alone = []
    whole = SharedExclusiveLock.exclusive

    def counted(self: SharedExclusiveLock) -> Any:
        alone.append(1)
        return whole(self)

    monkeypatch.setattr(SharedExclusiveLock, "exclusive", counted)
    tuning = replace(SINGLE, streams=2, batch_sizes=(1,), cuda=CudaOptions(graphs=True))
    inputs = make_inputs(1)
    with (
        Engine(threads=1, memory=memory, tuning=tuning) as engine,
        ThreadPoolExecutor(4) as threads,
    ):
        models = [load_both(engine, folder) for _, folder in avatars[:4]]
        wanted = [engine.infer(model, inputs.crops, inputs.windows) for model in models]
        for _ in range(6):
            made = threads.map(lambda m: engine.infer(m, inputs.crops, inputs.windows), models)
            assert all((one == two).all() for one, two in zip(made, wanted, strict=True))
    assert len(alone) == 2 * 3


def test_a_session_ends_while_nobody_records(
    memory: HostMemory, avatars: Any, make_inputs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits for the whole device, which spoils what is recorded."""
    inside = []
    opened = runtime.open_session

    def watched(*arguments: Any) -> Any:
        session = opened(*arguments)
        weakref.finalize(session, lambda: inside.append(memory.allocation_lock._holders))
        return session

    monkeypatch.setattr(gpusessions, "open_session", watched)
    inputs = make_inputs(1)
    with Engine(threads=1, memory=memory, tuning=SINGLE) as engine:
        engine.infer(load_both(engine, avatars[0][1]), inputs.crops, inputs.windows)
    assert inside == [1]


def test_an_architecture_that_nobody_has_any_more_gives_its_room_back(
    memory: HostMemory, avatars: Any, make_inputs: Any
) -> None:
    inputs = make_inputs(1)
    with Engine(threads=1, memory=memory, tuning=replace(SINGLE, streams=1)) as engine:
        first, other = load_both(engine, avatars[0][1]), load_both(engine, avatars[6][1])
        engine.infer(first, inputs.crops, inputs.windows)
        engine.infer(other, inputs.crops, inputs.windows)
        before = memory.regions
        del other
        gc.collect()
        engine.infer(first, inputs.crops, inputs.windows)
        assert engine.weights_bytes == first.weights_bytes
        assert memory.regions == before - 5  # weights, slot, face, speech, mouth


@pytest.mark.slow
def test_every_call_has_its_lane_to_itself(
    memory: HostMemory, avatars: Any, make_inputs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside: dict[int, int] = {}
    most: list[int] = []
    lock = threading.Lock()
    all_three = threading.Barrier(3, timeout=60)
    whole = GpuStream.run

    def counted(self: GpuStream, *arguments: Any) -> None:
        with lock:
            first = id(self) not in inside
            inside[id(self)] = inside.get(id(self), 0) + 1
            most.append(inside[id(self)])
        if first:
            all_three.wait()  # where one call after the other came, one stream would do
        whole(self, *arguments)
        with lock:
            inside[id(self)] -= 1

    monkeypatch.setattr(GpuStream, "run", counted)
    inputs = make_inputs(2)
    with (
        Engine(threads=1, memory=memory, tuning=replace(SINGLE, streams=3)) as engine,
        ThreadPoolExecutor(8) as threads,
    ):
        model = load_both(engine, avatars[0][1])
        list(threads.map(lambda _: engine.infer(model, inputs.crops, inputs.windows), range(24)))
    assert set(most) == {1}
    assert len(inside) == 3
