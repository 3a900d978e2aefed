"""Runs in kernels of our own when memory ends, something fails, or an avatar goes.

The kernels are imitated: a mouth shows whose weights, crops and speech it was made of.
"""

from typing import Any

import pytest
from tests.engine.imitated import ImitatedPrograms, StampedAvatars
from tests.engine.standin import PLENTY
from tests.support.compilednetworks import load_both
from tests.support.hostmemory import HostMemory

from lipwire.domain import AvatarInvalid, Overloaded, Unavailable
from lipwire.engine import Engine, Request
from lipwire.engine.device import DeviceLost
from lipwire.engine.gpu.memory.devicememory import DeviceOutOfMemory, Region
from lipwire.engine.gpu.programs import KernelsUnavailable
from lipwire.engine.tuning import Tuning


def test_memory_that_ends_while_room_is_made_gives_avatars_up(
    three: StampedAvatars, stamping: ImitatedPrograms, make_inputs: Any
) -> None:
    """The device ends where the weights of three avatars and nothing else would fit."""
    inputs = make_inputs(1)
    image_bytes = stamping.image_bytes
    with Engine(threads=1, memory=HostMemory(PLENTY, programs=stamping)) as engine:
        engine.infer(load_both(engine, three.folders[0]), inputs.crops, inputs.windows)
        use = engine.memory_use
        assert use is not None
        assert use.slots == 0
    memory = HostMemory(image_bytes + use.staging + 1000, programs=stamping)
    tuning = Tuning(streams=1, device_bytes=1 << 40, crop_bytes=0)
    with Engine(threads=1, memory=memory, tuning=tuning) as engine:
        models = three.load(engine)
        for which, model in enumerate(models):
            made = engine.infer(model, inputs.crops, inputs.windows)
            assert three.are(which, made, inputs.crops, inputs.windows)
        two = make_inputs(2)
        before = engine.weights
        with pytest.raises(Overloaded):
            engine.infer(models[0], two.crops, two.windows)
        after = engine.weights
        assert before is not None
        assert after is not None
        # It was not tried for long: weights that are given up are not brought for the next try.
        assert after.out_of_memory - before.out_of_memory < 5
        made = engine.infer(models[1], inputs.crops, inputs.windows)
        assert three.are(1, made, inputs.crops, inputs.windows)
    assert (memory.regions, memory.host_blocks, stamping.loaded) == (0, 0, 0)


@pytest.mark.parametrize("where", ["record", "run"])
def test_memory_that_ends_in_a_run_is_found_and_the_run_goes_on(
    device: HostMemory,
    stamping: ImitatedPrograms,
    three: StampedAvatars,
    make_inputs: Any,
    where: str,
) -> None:
    inputs = make_inputs(1)
    with Engine(threads=1, memory=device, tuning=Tuning(streams=1)) as engine:
        models = three.load(engine)
        stamping.fails[where] += [DeviceOutOfMemory("told to")] * 2
        made = engine.infer(models[2], inputs.crops, inputs.windows)
        assert three.are(2, made, inputs.crops, inputs.windows)


@pytest.mark.parametrize("where", ["record", "run"])
def test_memory_that_never_suffices_is_no_endless_loop(
    device: HostMemory,
    stamping: ImitatedPrograms,
    three: StampedAvatars,
    make_inputs: Any,
    where: str,
) -> None:
    inputs = make_inputs(1)
    with Engine(threads=1, memory=device) as engine:
        models = three.load(engine)
        stamping.fails[where] += [DeviceOutOfMemory("told to")] * 1000
        with pytest.raises(Overloaded):
            engine.infer(models[0], inputs.crops, inputs.windows)
        stamping.fails[where].clear()
        made = engine.infer(models[0], inputs.crops, inputs.windows)
        assert three.are(0, made, inputs.crops, inputs.windows)


@pytest.mark.slow
@pytest.mark.parametrize("where", ["record", "run"])
@pytest.mark.parametrize("error", [RuntimeError("spoilt"), KernelsUnavailable("spoilt")])
def test_a_run_that_fails_is_one_line_and_leaves_lanes_usable(
    device: HostMemory,
    stamping: ImitatedPrograms,
    three: StampedAvatars,
    make_inputs: Any,
    where: str,
    error: Exception,
) -> None:
    inputs = make_inputs(1)
    with Engine(threads=1, memory=device, tuning=Tuning(streams=1)) as engine:
        models = three.load(engine)
        stamping.fails[where].append(error)
        with pytest.raises(AvatarInvalid, match="the network failed: spoilt"):
            engine.infer_frames(models[0], [1], inputs.windows)
        for which, model in enumerate(models):
            made = engine.infer_frames(model, [1], inputs.windows)
            assert three.are(which, made, three.frames[which].crops[[1]], inputs.windows)


def test_a_device_that_is_lost_stays_lost_and_is_closed_without_a_fuss(
    device: HostMemory,
    stamping: ImitatedPrograms,
    three: StampedAvatars,
    make_inputs: Any,
) -> None:
    inputs = make_inputs(1)
    with Engine(threads=1, memory=device) as engine:
        model, other, _ = three.load(engine)
        engine.infer(model, inputs.crops, inputs.windows)
        stamping.fails["run"].append(DeviceLost("gone"))
        for each in (model, other, model):
            with pytest.raises(DeviceLost, match="gone"):
                engine.infer(each, inputs.crops, inputs.windows)


# Avatars that go


def test_an_avatar_that_is_unloaded_cannot_be_run(
    device: HostMemory,
    stamping: ImitatedPrograms,
    three: StampedAvatars,
    make_inputs: Any,
) -> None:
    inputs = make_inputs(1)
    with Engine(threads=1, memory=device) as engine:
        models = three.load(engine)
        together = [Request(model, inputs.crops, inputs.windows) for model in models]
        engine.infer_together(together)
        engine.unload(models[1])
        with pytest.raises(Unavailable):
            engine.infer_together(together)
        made = engine.infer(models[2], inputs.crops, inputs.windows)
        assert three.are(2, made, inputs.crops, inputs.windows)


def test_lanes_keep_nothing_for_avatars_that_are_gone(
    device: HostMemory,
    stamping: ImitatedPrograms,
    three: StampedAvatars,
    make_inputs: Any,
) -> None:
    """The kernels stay: the next avatar of the architecture needs no trial."""
    inputs = make_inputs(1)
    with Engine(threads=1, memory=device) as engine:
        models = three.load(engine)
        for model in models:
            engine.infer(model, inputs.crops, inputs.windows)
        for model in models:
            engine.unload(model)
        assert device.regions == 0
        assert stamping.loaded == 1
        model = three.load(engine)[0]
        made = engine.infer(model, inputs.crops, inputs.windows)
        assert three.are(0, made, inputs.crops, inputs.windows)
        assert stamping.loads == 1
        del model


def test_what_kernels_take_is_told_to_the_byte(
    device: HostMemory,
    three: StampedAvatars,
    make_inputs: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken: dict[int, int] = {}
    allocate, free = HostMemory.allocate, HostMemory.free

    def allocated(self: HostMemory, size_bytes: int) -> Region:
        region = allocate(self, size_bytes)
        taken[region.address] = size_bytes
        return region

    def freed(self: HostMemory, region: Region) -> None:
        del taken[region.address]
        free(self, region)

    monkeypatch.setattr(HostMemory, "allocate", allocated)
    monkeypatch.setattr(HostMemory, "free", freed)
    with Engine(threads=1, memory=device) as engine:
        models = three.load(engine)
        for frames, model in enumerate(models, 1):
            engine.infer_frames(model, [0] * frames, make_inputs(frames).windows)
            use = engine.memory_use
            assert use is not None
            assert use.device == sum(taken.values())
            assert (use.slots, use.staging > 0) == (0, True)
