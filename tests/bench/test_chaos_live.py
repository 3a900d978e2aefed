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
from lipwire.session.live import FRAME_MS, LiveFrame, Sound

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


def frame(number: int, data: bytes, speech: int = 1) -> LiveFrame:
    return LiveFrame(number, data, 320, 240, BEGINS + number, speech)


def test_frames_with_their_own_mouths_are_right(renderer: Renderer, comparison: Comparison) -> None:
    for number in (0, 1, 4):
        comparison.frame(frame(number, renderer.spoken(BEGINS + number, 0, number)))
    assert (comparison.right, comparison.held, comparison.wrong) == (3, 0, [])


def test_an_earlier_mouth_is_held_where_a_frame_has_none(
    renderer: Renderer, comparison: Comparison
) -> None:
    comparison.frame(frame(0, renderer.spoken(BEGINS, 0, 0)))
    comparison.frame(frame(6, renderer.spoken(BEGINS + 6, 0, 1, BEGINS + 1)))
    assert (comparison.right, comparison.held, comparison.wrong) == (1, 1, [])


def test_mouths_of_other_frames_are_wrong(renderer: Renderer, comparison: Comparison) -> None:
    comparison.frame(frame(0, renderer.spoken(BEGINS, 0, 0)))
    comparison.frame(frame(1, renderer.spoken(BEGINS + 1, 0, 9)))
    comparison.frame(frame(2, renderer.spoken(BEGINS + 3, 0, 2)))
    comparison.frame(frame(3, b"of another avatar", speech=0))
    assert comparison.right == 1
    assert comparison.wrong == [
        "position 4, speech 0, frame 1",
        "position 5, speech 0, frame 2",
        "position 6 at rest",
    ]


def test_speech_may_go_on_a_frame_later(renderer: Renderer, comparison: Comparison) -> None:
    for number, of in ((0, 0), (1, 1), (2, 1), (3, 2), (4, 3)):
        comparison.frame(frame(number, renderer.spoken(BEGINS + number, 0, of)))
    assert (comparison.right, comparison.wrong) == (5, [])


def test_the_first_frames_may_have_been_left_out(
    renderer: Renderer, comparison: Comparison
) -> None:
    comparison.began(2 * FRAME_MS)
    comparison.frame(frame(12, renderer.spoken(BEGINS + 12, 0, 10)))
    comparison.frame(frame(13, renderer.spoken(BEGINS + 13, 0, 4, BEGINS + 2 + 4)))
    assert (comparison.right, comparison.held, comparison.wrong) == (1, 1, [])


def test_sound_has_to_be_what_was_sent(comparison: Comparison, speech: Float32Array) -> None:
    comparison.sound(Sound(0, np.zeros(0, np.float32), 0))
    comparison.sound(Sound(1, speech[:640], 1))
    comparison.ended(interrupted=True)
    assert comparison.wrong == []
    comparison.ended(interrupted=False)
    comparison.sound(Sound(2, speech[:640], 1))
    assert comparison.wrong == ["640 of 12800 samples were heard", "sound before 0.08 s"]


def test_what_a_session_showed_wrong_is_told(comparison: Comparison, tmp_path: Path) -> None:
    comparison.wrong += ["position 4", "position 5"]
    tally = Tally(Cast(tmp_path, (), ()))
    tally.session("anna", comparison)
    assert tally.counts["wrong"] == 1
    assert tally.wrong == ["anna, a live session: position 4, and 1 more"]
