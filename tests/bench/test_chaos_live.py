"""What chaos sees in live sessions: each frame's mouth, and the sound."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from lipwire.audio import AudioEncoder, extract_windows
from lipwire.avatars import Avatar
from lipwire.bench.chaos.cast import Cast
from lipwire.bench.chaos.clients import Tally
from lipwire.bench.chaos.comparison import Comparison, Renderer
from lipwire.domain import Float32Array
from lipwire.session.live import FramesDropped, LiveFrame, Sound

BEGINS = 3


@pytest.fixture(scope="module")
def speech() -> Float32Array:
    noise = np.random.default_rng(1).normal(0, 0.1, 20 * 640)
    samples: Float32Array = (np.rint(noise.clip(-1, 1) * 32767) / 32768).astype(np.float32)
    return samples


@pytest.fixture(scope="module")
def renderer(
    compiled_template: Path, speech: Float32Array, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Renderer]:
    package = shutil.copytree(compiled_template, tmp_path_factory.mktemp("chaos") / "anna")
    with Avatar.open(package) as avatar:
        assert avatar.encoder_path is not None
        windows = extract_windows(speech, AudioEncoder.open(avatar.encoder_path))
    with Renderer(package, [windows]) as renderer:
        yield renderer


@pytest.fixture
def comparison(renderer: Renderer, speech: Float32Array) -> Comparison:
    return Comparison(renderer, 0, speech)


def frame(at: int, data: bytes, speech: int = 1, *, position: int | None = None) -> LiveFrame:
    return LiveFrame(at, data, 320, 240, BEGINS + at if position is None else position, speech)


def hear(comparison: Comparison, speech: Float32Array, at: dict[int, int]) -> None:
    """Have the sound of frames come: of frame ``at[n]`` of ``speech`` with the session's n."""
    for moment, number in at.items():
        comparison.sound(Sound(moment, speech[640 * number : 640 * (number + 1)], 1))


def rest(comparison: Comparison, moments: range) -> None:
    """Have the sound of frames come in which nobody speaks."""
    for moment in moments:
        comparison.sound(Sound(moment, np.zeros(640, np.float32), 0))


def test_frames_with_their_own_mouths_are_right(
    renderer: Renderer, comparison: Comparison, speech: Float32Array
) -> None:
    hear(comparison, speech, {number: number for number in range(5)})
    for number in (0, 1, 4):
        comparison.frame(frame(number, renderer.spoken(BEGINS + number, 0, number)))
    assert (comparison.right, comparison.held, comparison.wrong) == (3, 0, [])


def test_an_earlier_mouth_is_held_where_a_frame_has_none(
    renderer: Renderer, comparison: Comparison, speech: Float32Array
) -> None:
    hear(comparison, speech, {number: number for number in range(7)})
    comparison.frame(frame(0, renderer.spoken(BEGINS, 0, 0)))
    comparison.frame(frame(6, renderer.spoken(BEGINS + 6, 0, 1, BEGINS + 1)))
    assert (comparison.right, comparison.held, comparison.wrong) == (1, 1, [])


def test_a_frame_is_as_it_was_filmed_only_where_nothing_could_be_made_yet(
    renderer: Renderer, comparison: Comparison, speech: Float32Array
) -> None:
    hear(comparison, speech, {number: number for number in range(5)})
    comparison.frame(frame(0, renderer.filmed(BEGINS), speech=0))
    comparison.frame(frame(1, renderer.filmed(BEGINS + 1)))
    assert (comparison.right, comparison.held, comparison.wrong) == (1, 1, [])
    rest = renderer.resting(BEGINS + 2)
    comparison.frame(frame(2, rest))
    comparison.frame(frame(3, rest, position=BEGINS + 2))
    assert (comparison.right, comparison.held, comparison.wrong) == (1, 3, [])
    comparison.frame(frame(4, renderer.filmed(BEGINS + 4)))
    assert len(comparison.wrong) == 1


@pytest.mark.slow
def test_mouths_of_other_frames_are_wrong(
    renderer: Renderer, comparison: Comparison, speech: Float32Array
) -> None:
    hear(comparison, speech, {number: number for number in range(3)})
    comparison.frame(frame(0, renderer.spoken(BEGINS, 0, 0)))
    comparison.frame(frame(1, renderer.spoken(BEGINS + 1, 0, 9)))
    comparison.frame(frame(2, renderer.spoken(BEGINS + 3, 0, 2)))
    comparison.frame(frame(3, b"of another avatar", speech=0))
    comparison.frame(frame(4, renderer.spoken(BEGINS + 4, 0, 4)))
    assert comparison.right == 1
    assert comparison.wrong == [
        "position 4, speech 0, frame 1, shows speech 0, frame 9, made for position 4",
        "position 5, speech 0, frame 2",
        "position 6 at rest",
        "position 7 without its sound",
    ]


def test_a_mouth_of_a_moment_before_or_after_its_sound_is_wrong(
    renderer: Renderer, comparison: Comparison, speech: Float32Array
) -> None:
    hear(comparison, speech, {number: number for number in range(3)})
    comparison.frame(frame(1, renderer.spoken(BEGINS + 1, 0, 2)))
    comparison.frame(frame(2, renderer.spoken(BEGINS + 2, 0, 1)))
    assert len(comparison.wrong) == 2


@pytest.mark.parametrize("waits", [1, 8])
def test_speech_may_wait_for_what_is_to_come(
    renderer: Renderer, comparison: Comparison, speech: Float32Array, waits: int
) -> None:
    """The avatar moves on where sound is waited for; its frames then come that much later."""
    hear(comparison, speech, {0: 0, 1: 1})
    rest(comparison, range(2, 2 + waits))
    hear(comparison, speech, {2 + waits: 2, 3 + waits: 3})
    comparison.frame(frame(1, renderer.spoken(BEGINS + 1, 0, 1)))
    comparison.frame(frame(2 + waits, renderer.spoken(BEGINS + 2 + waits, 0, 2)))
    held = renderer.spoken(BEGINS + 3 + waits, 0, 1, BEGINS + 1)
    comparison.frame(frame(3 + waits, held))
    assert (comparison.right, comparison.held, comparison.wrong) == (2, 1, [])


def test_the_avatar_may_wait_for_a_mouth(
    renderer: Renderer, comparison: Comparison, speech: Float32Array
) -> None:
    hear(comparison, speech, {9: 0, 10: 1})
    comparison.frame(frame(10, renderer.spoken(BEGINS + 1, 0, 1), position=BEGINS + 1))
    assert (comparison.right, comparison.held, comparison.wrong) == (1, 0, [])


def test_sound_has_to_be_what_was_sent(comparison: Comparison, speech: Float32Array) -> None:
    comparison.sound(Sound(0, np.zeros(0, np.float32), 0))
    comparison.sound(Sound(1, speech[:640], 1))
    comparison.ended(interrupted=True)
    assert comparison.wrong == []
    comparison.ended(interrupted=False)
    comparison.sound(Sound(2, speech[:640], 1))
    assert comparison.wrong == ["sound before 0.08 s", "640 of 12800 samples were heard"]


def test_no_sound_may_be_missing(comparison: Comparison, speech: Float32Array) -> None:
    comparison.left_out(FramesDropped(0, 3, "late"))
    hear(comparison, speech, {0: 0, 1: 1, 4: 2})
    assert comparison.wrong == ["no sound from 80 to 160 ms"]
    assert comparison.dropped == 3


def test_sound_may_be_missing_behind_what_the_client_had_not_taken(
    renderer: Renderer, comparison: Comparison, speech: Float32Array
) -> None:
    """What was under way comes first: the gap is seconds later than the client stood still."""
    hear(comparison, speech, {0: 0, 1: 1})
    comparison.left_out(FramesDropped(0, 9, "unread"))
    hear(comparison, speech, {2: 2, 3: 3, 9: 9, 10: 10})
    comparison.frame(frame(8, renderer.spoken(BEGINS + 8, 0, 8)))
    comparison.frame(frame(9, renderer.spoken(BEGINS + 9, 0, 9)))
    assert (comparison.right, comparison.held, comparison.wrong) == (1, 0, [])


def test_a_session_may_say_later_why_sound_is_missing(
    comparison: Comparison, speech: Float32Array
) -> None:
    hear(comparison, speech, {0: 0, 3: 3})
    assert len(comparison.wrong) == 1
    comparison.left_out(FramesDropped(0, 9, "unread"))
    assert comparison.wrong == []


def test_what_a_session_says_explains_what_is_near(
    comparison: Comparison, speech: Float32Array
) -> None:
    hear(comparison, speech, {0: 0, 3: 3})
    comparison.left_out(FramesDropped(10_000, 9, "unread"))
    assert comparison.wrong == ["no sound from 40 to 120 ms"]
    assert comparison.has_gaps
    hear(comparison, speech, {4: 4, 300: 6})
    assert len(comparison.wrong) == 2
    comparison.left_out(FramesDropped(2_000, 9, "unread"))
    assert comparison.wrong == []
    assert not comparison.has_gaps


def test_the_end_of_a_speech_may_be_missing(comparison: Comparison, speech: Float32Array) -> None:
    hear(comparison, speech, {0: 0})
    comparison.ended(interrupted=False)
    assert comparison.wrong == ["640 of 12800 samples were heard"]
    comparison.left_out(FramesDropped(1_000, 9, "unread"))
    assert comparison.wrong == []


def test_a_session_that_was_resumed_before_its_first_sound(
    comparison: Comparison, speech: Float32Array
) -> None:
    comparison.resumed()
    hear(comparison, speech, {7: 5, 8: 6})
    assert comparison.wrong == []
    hear(comparison, speech, {11: 9})
    assert comparison.wrong == ["no sound from 360 to 440 ms"], "that was after it"


def test_of_missing_sound_some_may_have_been_silence(
    comparison: Comparison, speech: Float32Array
) -> None:
    hear(comparison, speech, {0: 0})
    comparison.left_out(FramesDropped(0, 9, "unread"))
    rest(comparison, range(1, 3))
    hear(comparison, speech, {8: 4})
    assert comparison.wrong == []
    hear(comparison, speech, {9: 6})
    assert comparison.wrong == ["sound before 0.24 s"]


def test_more_speech_than_sound_is_missing_is_wrong(
    comparison: Comparison, speech: Float32Array
) -> None:
    hear(comparison, speech, {0: 0})
    comparison.left_out(FramesDropped(0, 9, "unread"))
    hear(comparison, speech, {4: 5})
    assert comparison.wrong == ["sound before 0.08 s"]


def test_a_speech_that_becomes_two_is_wrong(comparison: Comparison, speech: Float32Array) -> None:
    comparison.sound(Sound(0, speech[:640], 1))
    comparison.sound(Sound(1, speech[640:1280], 2))
    assert comparison.wrong == ["the speech was cut 0.04 s after it began"]


def test_what_a_session_showed_wrong_is_told(comparison: Comparison, tmp_path: Path) -> None:
    comparison.is_wrong("position 4")
    comparison.is_wrong("position 5")
    tally = Tally(Cast(tmp_path, (), ()))
    tally.session("anna", comparison)
    assert tally.counts["wrong"] == 1
    assert tally.wrong == ["anna, a live session: position 4, and 1 more"]


def test_a_session_that_was_resumed_goes_on_where_it_is(
    renderer: Renderer, comparison: Comparison, speech: Float32Array
) -> None:
    hear(comparison, speech, {0: 0, 1: 1})
    comparison.resumed()
    comparison.frame(frame(5, renderer.spoken(BEGINS + 5, 0, 5)))  # its sound is gone
    hear(comparison, speech, {number: number for number in range(6, 20)})
    comparison.frame(frame(7, renderer.spoken(BEGINS + 7, 0, 7)))
    comparison.ended(interrupted=False)
    assert (comparison.right, comparison.held, comparison.wrong) == (1, 0, [])
    comparison.frame(frame(8, renderer.spoken(BEGINS + 8, 0, 2)))
    assert len(comparison.wrong) == 1


def test_what_a_resumed_session_says_is_compared(
    comparison: Comparison, speech: Float32Array
) -> None:
    hear(comparison, speech, {0: 0})
    comparison.resumed()
    comparison.sound(Sound(4, -speech[640:1280], 1))
    assert len(comparison.wrong) == 1
