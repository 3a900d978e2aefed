"""The trial of kernels of our own: what passes, what does not, and that it leaves nothing."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.engine.emulated import H200
from tests.engine.imitated import ImitatedPrograms, Make, half_of, played, stamped
from tests.support.compilednetworks import gpu_folder
from tests.support.hostmemory import HostMemory
from tests.support.quickfirst import quick_first

from lipwire.domain import Float32Array, UInt8Array
from lipwire.engine.device import DeviceLost
from lipwire.engine.gpu.compile.gpugraphs import hard_inputs
from lipwire.engine.gpu.compile.halfprecision import MAX_DIFFERENCE
from lipwire.engine.gpu.kernels.cuda.arguments import BlockArguments
from lipwire.engine.gpu.kernels.lowering.lowered import Lowered
from lipwire.engine.gpu.kernels.lowering.operations import Addresses
from lipwire.engine.gpu.kernels.planning.plan import Plan
from lipwire.engine.gpu.kernels.planning.planner import plan_network
from lipwire.engine.gpu.kernels.running.kernelruns import Program
from lipwire.engine.gpu.kernels.verify import kerneltrial
from lipwire.engine.gpu.kernels.verify.kerneltrial import why_not_planned, why_not_the_same
from lipwire.engine.gpu.memory.devicememory import Bytes, DeviceOutOfMemory, Region
from lipwire.engine.gpu.programs import KernelsUnavailable, Launch, Module, Recording
from lipwire.engine.gpu.store.gpufiles import GpuGraph, read_gpu_graph
from lipwire.engine.runtime import open_session
from lipwire.engine.tuning import MOST_FRAMES

pytestmark = pytest.mark.slow

PLENTY = 1 << 28


@dataclass(frozen=True)
class Tried:
    """A compiled avatar."""

    data: bytes
    graph: GpuGraph
    image: Bytes
    plan: Plan
    wanted: Make

    def why_not(
        self,
        memory: HostMemory,
        programs: ImitatedPrograms,
        image: Bytes | None = None,
        fixed_batch: int | None = None,
    ) -> str | None:
        places = {weight.name: weight.offset_bytes for weight in self.graph.weights}
        lowered = Lowered(self.plan, places, programs.limits)
        module = programs.load(lowered.source)
        program = Program(lowered, programs, module)
        image = self.image if image is None else image
        try:
            return why_not_the_same(
                memory, program, self.data, fixed_batch, self.graph.weights, image
            )
        finally:
            programs.drop(module)

    def programs(self, make: Make) -> ImitatedPrograms:
        return ImitatedPrograms(make, self.image.nbytes)


@pytest.fixture(scope="session")
def tried(guides: Any) -> Tried:
    folder: Path = guides.folders[0]
    _, graph, image = half_of(folder)
    data = read_gpu_graph(gpu_folder(folder), graph)
    return Tried(data, graph, image, plan_network(data), played(data, graph.weights))


class Orderly(HostMemory):
    """Nothing may be freed while copies are under way."""

    under_way = False

    def upload(self, stream: int, address: int, source: Bytes) -> None:
        self.under_way = True
        super().upload(stream, address, source)

    def wait(self, stream: int) -> None:
        self.under_way = False
        super().wait(stream)

    def free(self, region: Region) -> None:
        assert not self.under_way
        super().free(region)

    def free_host(self, block: Bytes) -> None:
        assert not self.under_way
        super().free_host(block)


@pytest.fixture
def memory() -> Iterator[HostMemory]:
    """All of it has to be given back."""
    memory = Orderly(PLENTY)
    yield memory
    assert (memory.regions, memory.host_blocks) == (0, 0)


@pytest.fixture
def one_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """A trial of the first of its inputs alone, for what does not depend on the others."""
    monkeypatch.setattr(kerneltrial, "hard_inputs", lambda batch: hard_inputs(batch)[:1])


def test_kernels_that_make_the_networks_mouths_pass(memory: HostMemory, tried: Tried) -> None:
    """Of all hard inputs, in one batch, in both ways."""
    programs = tried.programs(tried.wanted)
    assert tried.why_not(memory, programs) is None
    assert programs.runs == [3, 3]
    assert programs.loaded == 0


def test_the_weights_that_are_tried_are_those_of_the_image(
    memory: HostMemory, tried: Tried, guides: Any, one_input: None
) -> None:
    _, _, other = half_of(guides.folders[1])
    assert tried.why_not(memory, tried.programs(tried.wanted), other) is None


def test_a_network_of_a_fixed_batch_is_tried_in_it(
    memory: HostMemory, tried: Tried, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime runs it in batches of its size, of which the last one is filled up."""
    batches: list[int] = []

    def counted(*arguments: Any) -> Any:
        session = open_session(*arguments)

        class Counted:
            def run(self, names: Any, feeds: Any) -> Any:
                batches.append(len(feeds["face"]))
                return session.run(names, feeds)

        return Counted()

    monkeypatch.setattr(kerneltrial, "open_session", counted)
    programs = tried.programs(tried.wanted)
    assert tried.why_not(memory, programs, fixed_batch=2) is None
    assert batches == [2, 2]
    assert programs.runs == [4, 4]


@pytest.mark.parametrize("frame", [0, 2])
def test_one_wrong_pixel_in_any_frame_is_seen(
    memory: HostMemory, tried: Tried, frame: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in the last of a trial, whether that has one frame or three."""
    monkeypatch.setattr(kerneltrial, "hard_inputs", lambda batch: hard_inputs(batch)[: frame + 1])
    shown = np.concatenate([batch["face"] for batch in hard_inputs(None)])[frame]

    def make(image: Bytes, crop: UInt8Array, speech: Float32Array) -> UInt8Array:
        mouth = tried.wanted(image, crop, speech)
        if (crop == shown).all():
            mouth[319, 319, 2] ^= 0x80
        return mouth

    reason = tried.why_not(memory, tried.programs(make))
    assert reason == f"a pixel differs by 128 of 255, allowed are {MAX_DIFFERENCE}"


@pytest.mark.parametrize("run", quick_first([1, 0]))
def test_both_runs_are_looked_at(
    memory: HostMemory, tried: Tried, one_input: None, run: int
) -> None:
    made = itertools.count()

    def make(image: Bytes, crop: UInt8Array, speech: Float32Array) -> UInt8Array:
        return tried.wanted(image, crop, speech) if next(made) != run else crop

    assert "differs by" in str(tried.why_not(memory, tried.programs(make)))


def test_every_way_to_launch_a_kernel_is_tried(
    memory: HostMemory, tried: Tried, one_input: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That batches of any size take: kernels, and whether threads do one tile or several."""
    programs = tried.programs(tried.wanted)
    record = programs.record
    places = {weight.name: weight.offset_bytes for weight in tried.graph.weights}
    lowered = Lowered(tried.plan, places, programs.limits)
    blocks = {name for name, use in lowered.templates.items() if use.startswith("Block<")}

    def way(launch: Launch) -> tuple[str, bool]:
        if launch.kernel not in blocks:
            return launch.kernel, False
        return launch.kernel, BlockArguments.from_buffer_copy(launch.arguments).tiles_each > 1

    launched: set[tuple[str, bool]] = set()

    def watched(module: Module, launches: Sequence[Launch], stream: int) -> Recording:
        launched.update(map(way, launches))
        return record(module, launches, stream)

    monkeypatch.setattr(programs, "record", watched)
    assert tried.why_not(memory, programs) is None
    for multiprocessors in (20, H200.multiprocessors):
        chosen = lowered.launched_for(multiprocessors)
        for frames in (1, 3, MOST_FRAMES):
            launches = chosen.launches(frames, Addresses(0, 0, 0, 0, 0))
            assert set(map(way, launches)) <= launched


def test_other_mouths_are_seen(memory: HostMemory, tried: Tried, one_input: None) -> None:
    assert "differs by" in str(tried.why_not(memory, tried.programs(stamped)))


@pytest.mark.parametrize("where", ["record", "run"])
@pytest.mark.parametrize("error", [KernelsUnavailable("no"), RuntimeError("x"), DeviceLost("!")])
def test_a_trial_that_fails_says_why(
    memory: HostMemory, tried: Tried, where: str, error: Exception
) -> None:
    programs = tried.programs(tried.wanted)
    programs.fails[where].append(error)
    with pytest.raises(type(error), match=str(error)):
        tried.why_not(memory, programs)
    assert programs.loaded == 0


def test_a_trial_allocates_and_frees_while_nobody_records(
    tried: Tried, one_input: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A recording of another lane's would be spoilt."""
    memory = HostMemory(PLENTY)
    inside = []

    def watched(real: Any) -> Any:
        def call(*arguments: Any) -> Any:
            inside.append(memory.allocation_lock._holders)
            return real(*arguments)

        return call

    for name in ("allocate", "free", "allocate_host", "free_host"):
        monkeypatch.setattr(memory, name, watched(getattr(memory, name)))
    assert tried.why_not(memory, tried.programs(tried.wanted)) is None
    assert len(inside) == 2 * (1 + 2 * 7)
    assert set(inside) == {1}


def test_a_device_that_is_too_small_for_a_trial_says_so(tried: Tried) -> None:
    memory = HostMemory(tried.image.nbytes + 4096)
    with pytest.raises(DeviceOutOfMemory):
        tried.why_not(memory, tried.programs(tried.wanted))
    assert (memory.regions, memory.host_blocks) == (0, 0)


# Numbers that a plan has built in


def test_an_image_that_has_what_is_planned_is_taken(tried: Tried) -> None:
    assert tried.plan.constants
    assert why_not_planned(tried.plan, tried.graph.weights, tried.image) is None
    assert why_not_planned(replace(tried.plan, constants=()), (), tried.image) is None


def test_an_image_with_another_number_is_refused(tried: Tried) -> None:
    for name, planned in tried.plan.constants:
        image = tried.image.copy()
        (weight,) = (weight for weight in tried.graph.weights if weight.name == name)
        values = image[weight.offset_bytes :][: np.dtype(weight.element_type).itemsize]
        values.view(weight.element_type)[0] = planned + 1
        reason = why_not_planned(tried.plan, tried.graph.weights, image)
        assert reason == f"{name} is {planned + 1}, planned is {planned}"
