"""Plans as launches of kernels: every step makes what NumPy makes of it, in any order of threads.

A step that was checked hands on what NumPy made: mistakes do not add up, and little is allowed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from tests.engine.conftest import NARROW_WIDTHS
from tests.engine.drawing import ODD, Drawing, Rig, joined, places_of
from tests.engine.emulated import H200
from tests.engine.emulator import Emulator
from tests.engine.reference import Halved, Weights, halve, run

from lipwire.bench.randomnetworks import write_unet
from lipwire.domain import UInt8Array
from lipwire.engine.gpu.kernels.cuda.kerneltexts import CannotLower
from lipwire.engine.gpu.kernels.lowering.lowered import Lowered
from lipwire.engine.gpu.kernels.planning.plan import Ending, InvertedResidual, Pixels, Plan, Speech
from lipwire.engine.gpu.kernels.planning.planner import plan_network
from lipwire.engine.gpu.programs import Limits

pytestmark = pytest.mark.slow  # g++ takes ten seconds and more for each text

MOST_APART = 1.5e-3
"""Of a tensor's largest value: a few of its roundings to float16."""


@dataclass(frozen=True)
class Case:
    """A plan as kernels, and two avatars whose frames make a batch."""

    plan: Plan
    places: dict[str, int]
    weights: Sequence[Weights]
    crops: Sequence[Any]
    speech: Sequence[Any]
    mouth_px: int
    emulator: Emulator

    def lowered(self, limits: Limits = H200) -> Lowered:
        return Lowered(self.plan, self.places, limits)

    def rig(self, frames: Sequence[int] = (0, 1), limits: Limits = H200) -> Rig:
        """A batch of the avatars with these numbers."""
        return Rig(
            self.lowered(limits),
            self.places,
            [self.weights[frame] for frame in frames],
            [self.crops[frame] for frame in frames],
            [self.speech[frame] for frame in frames],
            mouth_px=self.mouth_px,
        )


def _case(
    plan: Plan, weights: Sequence[Weights], emulate: Callable[[str], Emulator], mouth_px: int
) -> Case:
    places, _ = places_of(weights[0])
    random = np.random.default_rng(5)
    crops = random.integers(0, 256, (2, 320, 320, 3), np.uint8)
    speech = random.standard_normal((2, 32, 16, 16), np.float32)
    emulator = emulate(Lowered(plan, places, H200).source.text)
    return Case(plan, places, weights, list(crops), list(speech), mouth_px, emulator)


@pytest.fixture(scope="session")
def odd(emulate: Callable[[str], Emulator]) -> Case:
    return _case(ODD.plan, [ODD.weights(seed) for seed in (1, 2)], emulate, 160)


@pytest.fixture(scope="session")
def published(emulate: Callable[[str], Emulator], tmp_path_factory: pytest.TempPathFactory) -> Case:
    """The published network with few channels."""
    folder = tmp_path_factory.mktemp("published")

    def network(seed: int) -> Halved:
        write_unet(folder / f"{seed}.onnx", seed=seed, widths=NARROW_WIDTHS)
        return halve(folder / f"{seed}.onnx", folder)

    one, two = network(1), network(2)
    return _case(plan_network(one.graph), [one.weights, two.weights], emulate, 320)


def _apart(made: Any, wanted: Any) -> float:
    """As a share of the largest value."""
    apart = np.abs(made.astype(np.float32) - wanted.astype(np.float32)).max()
    return float(apart / np.abs(wanted.astype(np.float32)).max())


def _check_steps(case: Case, frames: Sequence[int], schedule: int = 0) -> dict[int, float]:
    """How far the tensors of steps are from NumPy's, by their numbers, in the worst of frames."""
    wanted = [
        run(case.plan, case.weights[i], case.crops[i], case.speech[i], keep=True) for i in frames
    ]
    rig = case.rig(frames)
    apart = {}
    for step, launches in rig.by_step(case.plan):
        for launch in launches:
            case.emulator.launch(launch, schedule)
        if step.out == case.plan.tensors[-1]:
            continue  # only its mouth leaves the chip
        made = rig.made(launches[-1], step.out)
        tensors = [kept[step.out.number] for _, kept in wanted]
        apart[step.out.number] = max(map(_apart, made, tensors))
        made[:] = tensors
    rig.check_guards()
    for mouth, (right, _) in zip(rig.mouths, wanted, strict=True):
        assert np.ptp(right) > 50
        assert np.abs(mouth.astype(int) - right).max() <= 1
    return apart


@pytest.fixture(scope="session")
def odd_apart(odd: Case) -> dict[int, float]:
    return _check_steps(odd, (0, 1))


@pytest.mark.parametrize("name", list(ODD.names)[:-1])
def test_a_step_makes_what_numpy_makes(odd_apart: dict[int, float], name: str) -> None:
    assert odd_apart[ODD.names[name]] < MOST_APART


def test_every_step_of_the_published_network_makes_what_numpy_makes(published: Case) -> None:
    apart = _check_steps(published, (0,), schedule=1)
    assert len(apart) == len(published.plan.tensors) - 1
    assert max(apart.values()) < MOST_APART


@pytest.fixture(scope="session")
def odd_mouths(odd: Case) -> UInt8Array:
    """Of a batch of both avatars, threads in the order of their numbers."""
    return odd.rig([0, 1]).run(odd.emulator)


def test_threads_in_any_order_make_the_same_mouth(odd: Case, odd_mouths: UInt8Array) -> None:
    """And copies that arrive at any time."""
    assert (odd.rig([0]).run(odd.emulator, schedule=2) == odd_mouths[:1]).all()


def test_avatars_in_one_batch_each_make_their_own_mouth(odd: Case, odd_mouths: UInt8Array) -> None:
    """Bit for bit what they make alone: weights, crops and speech are each frame's own."""
    assert (odd_mouths[0] != odd_mouths[1]).mean() > 0.9
    for frame, mouth in enumerate(odd_mouths):
        assert (odd.rig([frame]).run(odd.emulator)[0] == mouth).all()


@pytest.mark.parametrize("multiprocessors", [1, 8])
def test_any_number_of_multiprocessors_makes_the_same_mouth(
    odd: Case, odd_mouths: UInt8Array, multiprocessors: int
) -> None:
    """The sizes of tiles, and how many of them one block of threads does, go by it."""
    limits = replace(H200, multiprocessors=multiprocessors)
    usual, rig = odd.rig([0]), odd.rig([0], limits)
    chosen = [[(launch.kernel, launch.grid) for launch in r.launches] for r in (usual, rig)]
    assert chosen[0] != chosen[1]
    assert odd.lowered(limits).source == odd.lowered().source
    assert (rig.run(odd.emulator) == odd_mouths[:1]).all()


def test_one_source_serves_all_avatars_wherever_their_weights_lie(odd: Case) -> None:
    other = {name: place + 64 for name, place in odd.places.items()}
    assert Lowered(odd.plan, other, H200).source == odd.lowered().source


def test_a_batch_takes_so_many_times_the_memory_of_a_frame(odd: Case) -> None:
    lowered = odd.lowered()
    assert lowered.scratch_bytes(3) == 3 * lowered.scratch_bytes(1)
    largest = max(tensor.height * tensor.width * tensor.channels * 2 for tensor in ODD.tensors)
    everything = sum(tensor.height * tensor.width * tensor.channels * 2 for tensor in ODD.tensors)
    assert largest < lowered.scratch_bytes(1) < everything


def test_no_product_is_written_over_what_it_is_made_of(odd: Case, published: Case) -> None:
    for case in (odd, published):
        for taken, out in case.rig([0, 1]).products():
            assert all(out.stop <= each.start or each.stop <= out.start for each in taken)


def test_every_launch_says_what_it_does(published: Case) -> None:
    lowered = published.lowered()
    labels = lowered.labels
    assert len(labels) == len(published.rig([0]).launches)
    assert labels[0] == "6-12-16 channels to 320 px"
    assert labels.count("speech as a picture") == 1
    assert labels[-1] == "8-16-8 channels to 320 px"


# Endings


@pytest.mark.parametrize(("ending", "channels"), [("sigmoid", 16), ("clip", 8), ("none", 16)])
def test_every_ending_makes_what_numpy_makes(
    emulate: Callable[[str], Emulator], ending: Ending, channels: int
) -> None:
    """Where nothing clips, colours still end at 0 and 255."""
    d = Drawing()
    large = d.full("80 pixels", Speech(), 8, padding=33)
    d.mouth(d.inverted("before the mouth", large, channels, biases=""), ending)
    case = _case(d.plan, [d.weights(1), d.weights(2)], emulate, 80)
    wanted = run(case.plan, case.weights[1], case.crops[1], case.speech[1])
    made = case.rig([1]).run(case.emulator)[0]
    assert np.abs(made.astype(int) - wanted).max() <= 1
    assert np.ptp(wanted) > 100
    if ending != "sigmoid":
        assert {0, 255} <= set(wanted.flat)


@pytest.mark.parametrize("large", [True, False])
def test_a_channel_that_overflows_spoils_no_other(
    emulate: Callable[[str], Emulator], large: bool
) -> None:
    """Infinity in a channel's middle, of which its 3x3 and relu make zero."""
    d = Drawing()
    source = d.full("source", Speech(), 8, padding=33 if large else 1)
    d.inverted("too large", source, 8)
    d.mouth(d.inverted("80 pixels", d.full("seen", Speech(), 8, padding=33), 8), "none")
    weights = d.weights(1)
    weights["too large: expand"][3] = 0
    weights["too large: expand bias"][3] = 65504
    weights["too large: expand"][3, 0] = 60000
    weights["too large: depthwise"][3] = -np.abs(weights["too large: depthwise"][3])
    case = _case(d.plan, [weights, weights], emulate, 80)
    with np.errstate(over="ignore"):
        _, kept = run(d.plan, weights, case.crops[0], case.speech[0], keep=True)
    number = d.names["too large"]
    rig = case.rig([0])
    for step, launches in rig.by_step(d.plan):
        for launch in launches:
            case.emulator.launch(launch)
        if isinstance(step, InvertedResidual) and step.out.number == number:
            made = rig.made(launches[-1], step.out)[0]
            assert _apart(made, kept[number]) < 2e-3
            break
    else:
        pytest.fail("the step was not run")


# What is refused


def _pixels(**changes: Any) -> Drawing:
    d = Drawing()
    d.mouth(d.inverted("only", Pixels(), **{"outputs": 8, **changes}), "sigmoid")
    return d


def _mouth_of_small_pictures() -> Drawing:
    d = Drawing()
    d.mouth(d.inverted("16 pixels", Speech(), 8), "sigmoid")
    return d


def _twelve_channels(*, second: bool, padding: int = 1) -> Drawing:
    d = Drawing()
    wide, odd = (d.full(f"{n} channels", Speech(), n, padding=padding) for n in (20, 12))
    d.inverted("joined", joined(wide, odd) if second else joined(odd, wide), 8)
    return d


def _plain_twelve_channels() -> Drawing:
    d = Drawing()
    d.inverted("80 pixels", d.full("12 channels", Speech(), 12, padding=33), 8)
    return d


def _middle(channels: int) -> Drawing:
    """Of pictures that are too small for a block."""
    d = Drawing()
    d.inverted("16 pixels", Speech(), 8, middle=channels)
    return d


REFUSED: dict[str, tuple[Drawing, str]] = {
    "pixels that become too many channels": (_pixels(middle=136), "6, 136 and 8 channels"),
    "pixels that end as too many channels": (_pixels(outputs=72), "6, 12 and 72 channels"),
    "pixels that end as odd channels": (_pixels(outputs=12), "6, 12 and 12 channels at 320"),
    "too many channels before the mouth": (_pixels(outputs=24), "24 channels come before"),
    "a mouth of a small picture": (_mouth_of_small_pictures(), "at 16 pixels begins or ends"),
    "a picture of twelve channels": (_twelve_channels(second=False), r"has (12|20) channels"),
    "a first picture of twenty channels": (_twelve_channels(second=True), "has 20 channels"),
    "a large picture of twelve channels": (_plain_twelve_channels(), "has 12 channels"),
    "large pictures of twelve and twenty": (
        _twelve_channels(second=False, padding=33),
        r"has (12|20) channels",
    ),
    "a middle of twenty channels": (_middle(20), "a picture has 20 channels, wanted are eights"),
    "a middle of thirteen channels": (_middle(13), "a picture has 13 channels"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_kernels_do_not_do_is_refused_in_one_line(name: str) -> None:
    drawing, says = REFUSED[name]
    places, _ = places_of(drawing.weights(1))
    with pytest.raises(CannotLower, match=says) as refused:
        Lowered(drawing.plan, places, H200)
    assert "\n" not in str(refused.value)


def test_a_device_with_little_shared_memory_is_refused(odd: Case) -> None:
    needed = max(odd.lowered().source.kernels.values())
    assert odd.lowered(replace(H200, shared_bytes=needed)).source == odd.lowered().source
    with pytest.raises(CannotLower, match=rf"takes {needed} bytes of .*, there are {needed - 1}"):
        odd.lowered(replace(H200, shared_bytes=needed - 1))
