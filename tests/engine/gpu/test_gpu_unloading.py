"""What is taken of a device, and given back."""

import gc
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tests.engine.standin import FRAMES, PLENTY, TUNING, opened, speech
from tests.support.compilednetworks import load_both
from tests.support.hostmemory import HostMemory

from lipwire.domain import Unavailable
from lipwire.engine import Engine
from lipwire.engine.gpu.gpustreams import GpuStream
from lipwire.engine.gpu.memory.cropplaces import CROP_BYTES
from lipwire.engine.gpu.memory.devicememory import Region


def test_what_is_taken_of_the_device_is_told_to_the_byte(
    memory: HostMemory, folders: Any, frames: Any
) -> None:
    engine, models = opened(folders, frames, memory, replace(TUNING, streams=2))

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
    engine, models = opened(folders[:2], frames[:2], memory, replace(TUNING, streams=2))
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
    whole = GpuStream._run

    def held(self: GpuStream, *arguments: Any) -> None:
        whole(self, *arguments)
        inside.set()
        assert go_on.wait(30)

    monkeypatch.setattr(GpuStream, "_run", held)
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
        model = load_both(engine, folders[0], frames[0])
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
    engine, models = opened(folders, frames, memory, replace(TUNING, streams=2))
    engine.infer_frames(models[0], [0], speech(1))
    threads = threading.active_count()
    memory.lost = True
    engine.unload(models[0])
    engine.close()
    assert threading.active_count() == threads - 1, "streams that ran leave no threads behind"
