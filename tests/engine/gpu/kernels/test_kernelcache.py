"""Which networks run in kernels of our own, and what is said where others do not."""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.engine.imitated import ImitatedPrograms, half_of, stamped
from tests.support.compilednetworks import gpu_folder
from tests.support.hostmemory import HostMemory

from lipwire.bench.randomnetworks import write_tiny_unet
from lipwire.domain import AvatarInvalid
from lipwire.engine import Device
from lipwire.engine.device import DeviceLost
from lipwire.engine.gpu.kernels import kernelcache
from lipwire.engine.gpu.kernels.kernelcache import KernelCache
from lipwire.engine.gpu.kernels.lowering import lowered
from lipwire.engine.gpu.kernels.planning.planner import plan_network
from lipwire.engine.gpu.kernels.running.kernelruns import Program
from lipwire.engine.gpu.kernels.verify.trialprocess import Trials
from lipwire.engine.gpu.memory.devicememory import DeviceOutOfMemory
from lipwire.engine.gpu.programs import KernelSource, KernelsUnavailable, Limits, Module, Programs
from lipwire.engine.gpu.store.gpufiles import ImageFile
from lipwire.engine.store.files import StoredWeight

pytestmark = pytest.mark.slow

PLENTY = 1 << 28
WAIT_S = 60.0
"""For what comes in a moment."""

Find = Callable[..., Program | None]


class Without(HostMemory):
    """A device whose kernels cannot be compiled."""

    def programs(self) -> Programs:
        raise KernelsUnavailable("NVRTC is not there")


@pytest.fixture
def programs(guides: Any) -> ImitatedPrograms:
    return ImitatedPrograms(stamped, half_of(guides.folders[0])[2].nbytes)


@pytest.fixture
def memory(programs: ImitatedPrograms) -> Iterator[HostMemory]:
    """All of it has to be given back."""
    memory = HostMemory(PLENTY, programs=programs)
    yield memory
    assert (memory.regions, memory.host_blocks, programs.loaded) == (0, 0, 0)


@pytest.fixture
def cache(memory: HostMemory) -> Iterator[KernelCache]:
    cache = KernelCache(memory)
    yield cache
    cache.close()


@pytest.fixture
def trials(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the next trials say or raise; they pass when there is no more. That takes no time."""
    verdicts: list[Any] = []

    def tried(*_: Any) -> Any:
        verdict = verdicts.pop(0) if verdicts else None
        if isinstance(verdict, Exception):
            raise verdict
        return verdict

    monkeypatch.setattr(kernelcache, "why_not_the_same", tried)
    return verdicts


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Callable[[int], list[str]]:
    """``said(level)``: what was logged."""
    caplog.set_level(logging.INFO, "lipwire.engine.gpu.kernels.kernelcache")

    def messages(level: int) -> list[str]:
        return [record.getMessage() for record in caplog.records if record.levelno == level]

    return messages


def found(cache: KernelCache, folder: Path, **changes: Any) -> Program | None:
    """``changes`` are of what the manifest says of the graph."""
    model, graph, _ = half_of(folder)
    folder = gpu_folder(folder)
    return cache.program(folder, replace(graph, **changes), None, ImageFile(folder, model))


def test_avatars_of_an_architecture_share_its_kernels(
    cache: KernelCache, programs: ImitatedPrograms, guides: Any, trials: Any, said: Any
) -> None:
    one, two = (found(cache, folder) for folder in guides.folders)
    assert one is two is not None
    assert programs.loads == 1
    assert said(logging.WARNING) == []
    assert said(logging.INFO) == ["cpu: an architecture runs in kernels of Lipwire's own"]


def test_weights_in_other_places_are_another_architecture(
    cache: KernelCache, programs: ImitatedPrograms, guides: Any, trials: Any
) -> None:
    """Launches have the places in them."""
    one = found(cache, guides.folders[0])
    _, graph, _ = half_of(guides.folders[0])
    assert found(cache, guides.folders[0], weights=tuple(graph.weights)) is one
    other = found(cache, guides.folders[0], weights=moved(guides.folders[0]))
    assert other is not None
    assert other is not one
    assert programs.loads == 2


def moved(folder: Path) -> tuple[StoredWeight, ...]:
    """Two weights in each other's place: another architecture, with the same graph."""
    weights = list(half_of(folder)[1].weights)
    first, second, *_ = (n for n, weight in enumerate(weights) if len(weight.shape) == 4)
    one_place, other_place = weights[first].offset_bytes, weights[second].offset_bytes
    weights[first] = replace(weights[first], offset_bytes=other_place)
    weights[second] = replace(weights[second], offset_bytes=one_place)
    return tuple(weights)


def test_no_architecture_waits_while_kernels_of_another_are_compiled(
    guides: Any, trials: Any, programs: ImitatedPrograms, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiling, go_on = threading.Event(), threading.Event()
    load = programs.load

    def slow_at_first(source: KernelSource) -> Module:
        if not compiling.is_set():
            compiling.set()
            assert go_on.wait(WAIT_S)
        return load(source)

    monkeypatch.setattr(programs, "load", slow_at_first)
    cache = KernelCache(HostMemory(PLENTY, programs=programs))
    folder, weights = guides.folders[0], moved(guides.folders[0])
    with closing(cache), ThreadPoolExecutor(2) as threads:
        try:
            first = threads.submit(found, cache, folder)
            assert compiling.wait(WAIT_S)
            same = threads.submit(found, cache, guides.folders[1])
            other = found(cache, folder, weights=weights)  # compiled while the first is held up
            assert other is not None
            assert found(cache, folder, weights=weights) is other
            assert not first.done()
            assert not same.done()
        finally:
            go_on.set()
        assert first.result(WAIT_S) is same.result(WAIT_S) is not None
    assert programs.loads == 2
    assert not programs.held


def test_threads_that_come_together_make_one_program(
    cache: KernelCache, programs: ImitatedPrograms, guides: Any, trials: Any
) -> None:
    with ThreadPoolExecutor(6) as threads:
        made = list(threads.map(lambda n: found(cache, guides.folders[n % 2]), range(12)))
    assert set(made) == {made[0]}
    assert made[0] is not None
    assert programs.loads == 1


@pytest.mark.parametrize("fixed_batch", [None, 4])
def test_a_trial_is_given_the_avatar_as_it_is(
    cache: KernelCache, guides: Any, monkeypatch: pytest.MonkeyPatch, fixed_batch: int | None
) -> None:
    given: list[Any] = []
    monkeypatch.setattr(kernelcache, "why_not_the_same", lambda *each: given.extend(each))
    model, graph, image = half_of(guides.folders[0])
    folder = gpu_folder(guides.folders[0])
    source = ImageFile(folder, model)
    program = cache.program(folder, graph, fixed_batch, source)
    assert given[1:5] == [
        program,
        (folder / graph.file).read_bytes(),
        fixed_batch,
        graph.weights,
    ]
    assert (given[5] == image).all()


# Networks that ONNX Runtime runs


def test_a_trial_that_fails_is_told_once_and_not_made_again(
    cache: KernelCache, programs: ImitatedPrograms, guides: Any, said: Any
) -> None:
    """Really: these kernels make other mouths."""
    assert [found(cache, folder) for folder in (*guides.folders, guides.folders[0])] == [None] * 3
    (warning,) = said(logging.WARNING)
    assert warning.startswith(
        "cpu: an architecture runs in ONNX Runtime: its kernels did not pass: a pixel differs by"
    )
    assert programs.loads == 1
    assert programs.loaded == 0


def test_a_device_without_kernels_says_so_when_it_is_opened(guides: Any, said: Any) -> None:
    cache = KernelCache(Without(PLENTY))
    assert said(logging.WARNING) == ["cpu: all networks run in ONNX Runtime: NVRTC is not there"]
    assert [found(cache, folder) for folder in guides.folders] == [None, None]
    assert len(said(logging.WARNING)) == 1
    cache.close()


def test_a_device_that_has_no_kernels_by_nature_says_nothing(guides: Any, said: Any) -> None:
    cache = KernelCache(HostMemory(PLENTY))
    assert found(cache, guides.folders[0]) is None
    assert (said(logging.WARNING), said(logging.INFO)) == ([], [])
    cache.close()


def test_kernels_that_do_not_compile_are_told_once(
    cache: KernelCache, programs: ImitatedPrograms, guides: Any, said: Any
) -> None:
    programs.fails["load"].append(KernelsUnavailable("network.cu(3): error: what?"))
    assert [found(cache, folder) for folder in guides.folders] == [None, None]
    assert said(logging.WARNING) == [
        "cpu: an architecture runs in ONNX Runtime: network.cu(3): error: what?"
    ]
    assert programs.loads == 1


@pytest.mark.parametrize("where", ["record", "run"])
def test_kernels_that_cannot_be_run_are_told_once(
    cache: KernelCache, programs: ImitatedPrograms, guides: Any, said: Any, where: str
) -> None:
    programs.fails[where].append(KernelsUnavailable("cuGraphInstantiate refuses"))
    assert [found(cache, folder) for folder in guides.folders] == [None, None]
    (warning,) = said(logging.WARNING)
    assert warning.endswith("cuGraphInstantiate refuses")
    assert (programs.loads, programs.loaded) == (1, 0)


def test_another_family_is_no_reason_to_warn(
    cache: KernelCache, programs: ImitatedPrograms, tmp_path: Path, compiled_for_gpu: Any, said: Any
) -> None:
    write_tiny_unet(tmp_path / "tiny.onnx", seed=1)
    folder = compiled_for_gpu(tmp_path / "tiny.onnx")
    assert [found(cache, folder) for _ in range(2)] == [None, None]
    assert said(logging.WARNING) == []
    (info,) = said(logging.INFO)
    assert info.startswith("cpu: an architecture is ONNX Runtime's: ")
    assert programs.loads == 0


def test_a_device_that_is_too_small_for_the_kernels_is_no_reason_to_warn(
    guides: Any, said: Any
) -> None:
    programs = ImitatedPrograms(stamped, 0, limits=Limits((8, 0), 4, 1024))
    cache = KernelCache(HostMemory(PLENTY, programs=programs))
    assert found(cache, guides.folders[0]) is None
    assert said(logging.WARNING) == []
    assert "bytes of shared memory" in said(logging.INFO)[0]
    cache.close()


def test_an_avatar_with_another_constant_is_alone_in_onnx_runtime(
    cache: KernelCache, alike: Callable[[int], list[Path]], trials: Any, said: Any
) -> None:
    usual, odd, other = alike(3)
    model, graph, image = half_of(odd)
    name, planned = plan_network((gpu_folder(odd) / graph.file).read_bytes()).constants[0]
    (weight,) = (weight for weight in graph.weights if weight.name == name)
    dtype = np.dtype(weight.element_type)
    image[weight.offset_bytes :][: dtype.itemsize].view(dtype)[0] = planned + 1
    (gpu_folder(odd) / model.image_file).write_bytes(image.tobytes())
    one = found(cache, usual)
    assert one is not None
    assert found(cache, odd) is None
    assert found(cache, other) is one
    assert said(logging.WARNING) == [
        f"cpu: a network runs in ONNX Runtime: {name} is {planned + 1}, planned is {planned}"
    ]


# What goes wrong meanwhile


@pytest.mark.parametrize(
    "error", [DeviceOutOfMemory("full"), DeviceLost("gone"), RuntimeError("spoilt")]
)
def test_a_trial_that_is_broken_off_is_made_again(
    cache: KernelCache, programs: ImitatedPrograms, guides: Any, trials: Any, error: Exception
) -> None:
    trials.append(error)
    with pytest.raises(type(error)):
        found(cache, guides.folders[0])
    assert programs.loaded == 0
    assert found(cache, guides.folders[0]) is not None


@pytest.mark.parametrize("error", [DeviceOutOfMemory("full"), DeviceLost("gone")])
def test_loading_that_is_broken_off_is_done_again(
    cache: KernelCache, programs: ImitatedPrograms, guides: Any, trials: Any, error: Exception
) -> None:
    programs.fails["load"].append(error)
    with pytest.raises(type(error)):
        found(cache, guides.folders[0])
    assert found(cache, guides.folders[0]) is not None


def test_a_damaged_graph_is_its_avatars_fault_alone(
    cache: KernelCache, alike: Callable[[int], list[Path]], trials: Any
) -> None:
    damaged, whole = alike(2)
    _, graph, _ = half_of(damaged)
    (gpu_folder(damaged) / graph.file).write_bytes(b"no graph")
    with pytest.raises(AvatarInvalid):
        found(cache, damaged)
    assert found(cache, whole) is not None


class Asked(Trials):
    """Trials that nobody makes."""

    def __init__(self, reason: str | None) -> None:
        self.reason = reason
        self.asked: list[tuple[Device, Path, tuple[str, ...]]] = []

    def why_not(self, device: Device, compiled: Path, identity: Sequence[str]) -> str | None:
        self.asked.append((device, compiled, tuple(identity)))
        return self.reason


def test_a_device_that_kernels_can_spoil_has_them_tried_elsewhere(
    memory: HostMemory, programs: ImitatedPrograms, guides: Any, trials: list[Any]
) -> None:
    trials.append(AssertionError("tried in this process"))
    programs.identity = "a GPU and its driver"
    elsewhere = Asked(None)
    cache = KernelCache(memory, elsewhere)
    folder = gpu_folder(guides.folders[0])
    model, graph, _ = half_of(guides.folders[0])
    source = ImageFile(folder, model)
    assert cache.program(folder, graph, None, source) is not None
    assert cache.program(folder, graph, None, source) is not None
    ((device, compiled, identity),) = elsewhere.asked
    assert (device, compiled) == (memory.device, folder)
    assert identity[0] == "a GPU and its driver"
    assert graph.sha256 in identity
    assert programs.runs == []
    cache.close()


def test_kernels_that_are_launched_in_another_way_are_tried_again(
    memory: HostMemory, programs: ImitatedPrograms, guides: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By another version of Lipwire, say: their text is the same."""
    programs.identity = "a GPU and its driver"
    elsewhere = Asked(None)
    for rounds in (8, 8, 1):
        monkeypatch.setattr(lowered, "_ROUNDS", rounds)
        cache = KernelCache(memory, elsewhere)
        assert found(cache, guides.folders[0]) is not None
        cache.close()
    identities = [identity for _, _, identity in elsewhere.asked]
    assert identities[0] == identities[1] != identities[2]


def test_kernels_that_end_their_trials_process_are_not_run(
    memory: HostMemory,
    programs: ImitatedPrograms,
    guides: Any,
    said: Callable[[int], list[str]],
) -> None:
    programs.identity = "a GPU and its driver"
    cache = KernelCache(memory, Asked("their trial ended with status -6"))
    folder = gpu_folder(guides.folders[0])
    model, graph, _ = half_of(guides.folders[0])
    assert cache.program(folder, graph, None, ImageFile(folder, model)) is None
    assert said(logging.WARNING) == [
        "cpu: an architecture runs in ONNX Runtime: its kernels did not pass: their trial ended"
        " with status -6"
    ]
    assert programs.loaded == 0
    cache.close()
