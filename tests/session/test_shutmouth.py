"""A mouth that stays shut under loud sound is noticed, and others are not."""

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from lipwire.api import open_avatar
from lipwire.domain import Float32Array, UInt8Array
from lipwire.session.performer import Performing
from lipwire.session.shutmouth import ShutMouth


def tone(hz: float, seconds: float = 2.0, rate_hz: int = 48_000) -> Float32Array:
    times_s = np.arange(int(seconds * rate_hz)) / rate_hz
    return (0.4 * np.sin(2 * np.pi * hz * times_s)).astype(np.float32)


def word_in_silence() -> Float32Array:
    pcm = np.zeros(48_000 * 5, np.float32)
    pcm[100_000:110_000] = tone(300)[:10_000]
    return pcm


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pcm", "warned"),
    [
        (tone(12_000), True),  # people hear it, the network does not
        pytest.param(tone(300), False, marks=pytest.mark.slow),
        pytest.param(word_in_silence(), False, marks=pytest.mark.slow),
        pytest.param(np.zeros(96_000, np.float32), False, marks=pytest.mark.slow),
        pytest.param(tone(12_000) * np.float32(1e-3), False, marks=pytest.mark.slow),
        # Nobody hears a constant.
        pytest.param(np.full(96_000, 0.4, np.float32), False, marks=pytest.mark.slow),
        pytest.param(np.stack([tone(300), -tone(300)], axis=1), False, marks=pytest.mark.slow),
        (tone(12_000, 0.4), False),  # too short to tell
    ],
    ids=["high", "speech", "word", "silence", "soft", "constant", "inverted", "short"],
)
def test_loud_sound_that_the_network_takes_for_silence_is_warned_about(
    avatar_package: Path, tmp_path: Path, pcm: Float32Array, warned: bool
) -> None:
    with open_avatar(avatar_package) as avatar:
        results = (
            avatar.render(pcm, tmp_path / "out.mp4", rate_hz=48_000),
            avatar.render_frames(pcm, tmp_path / "frames", rate_hz=48_000),
        )
    for result in results:
        assert len(result.warnings) == warned
        assert not warned or "mouth stays shut throughout" in result.warnings[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pcm", "warned"),
    [
        (tone(30, 1.2), True),
        (tone(60, 1.2), True),
        (np.random.default_rng(0).normal(0, 0.1, 57_600).astype(np.float32), True),
        (tone(300, 1.2), False),
    ],
    ids=["30 Hz", "hum", "noise", "300 Hz"],
)
def test_what_the_demo_avatar_does_not_take_for_speech_is_warned_about(
    tmp_path: Path, pcm: Float32Array, warned: bool
) -> None:
    with open_avatar("demo") as avatar:
        result = avatar.render(pcm, tmp_path / "out.mp4", rate_hz=48_000)
    assert ["mouth stays shut throughout" in line for line in result.warnings] == [True] * warned


@dataclass
class Stage:
    """An avatar that opens its mouth at what it hears: all that ``ShutMouth`` asks for.

    The encoder's numbers for silence are 2; a window is silence with ``heard`` added to it.
    """

    asked: list[int] = field(default_factory=list)
    """The frames of the avatar whose mouths at rest were asked for."""

    def performer(self) -> Performing:
        stage = SimpleNamespace(
            encoder=SimpleNamespace(encode=lambda mel: np.full((len(mel), 512), 2, np.float32)),
            mouths=self.mouths,
        )
        return cast(Performing, stage)

    def mouths(self, first: int, windows: Float32Array, _watch: Any) -> Any:
        """Mouths that look like the frames that they are for."""
        self.asked.append(first)
        assert windows.shape == (1, 32, 16, 16)
        assert (windows == 2).all(), "asked for silence"
        return mouth_on(first, 0)[np.newaxis]


def mouth_on(background: int, opened: float) -> UInt8Array:
    return np.full((320, 320, 3), background % 50 + opened, np.uint8)


def followed(stage: Stage, heard: Float32Array, opened: Float32Array, first: int = 0) -> bool:
    """Whether a render is warned about in which frame i hears ``heard[i]``, and its mouth is
    ``opened[i]`` of 255 brighter than at rest."""
    shut = ShutMouth(stage.performer())
    for start in range(0, len(heard), 3):
        shut.observe(
            np.full((1, 32, 16, 16), 2, np.float32) + heard[start : start + 3, None, None, None]
        )
    for index, amount in enumerate(opened):
        shut.show(first + index, mouth_on(first + index, amount))
    loud: Any = SimpleNamespace(loudest_rms=0.1)
    soft: Any = SimpleNamespace(loudest_rms=0.001)
    assert shut.warnings(soft) == ()
    return len(shut.warnings(loud)) == 1


HUM = np.full(100, 0.5, np.float32)  # a quarter of the numbers of silence


def some(at: "slice | list[int]", value: float) -> Float32Array:
    values = np.zeros(100, np.float32)
    values[at] = value
    return values


@pytest.mark.parametrize("first", [0, 17])
def test_mouths_are_compared_with_those_at_rest_on_the_same_frames(first: int) -> None:
    stage = Stage()
    assert followed(stage, HUM, some([], 0), first)
    assert len(set(stage.asked)) == 6
    assert all(first + 8 <= frame < first + 92 for frame in stage.asked)


@pytest.mark.parametrize("at", [slice(8, 20), slice(50, 55), [60], slice(84, 92)])
def test_a_mouth_that_opens_where_most_is_heard_is_no_shut_one(at: "slice | list[int]") -> None:
    heard = HUM + some(at, 0.4)
    assert not followed(Stage(), heard, some(at, 30))
    assert followed(Stage(), heard, some(at, 5)), "as the network rounds"


@pytest.mark.parametrize("at", [slice(0, 8), slice(92, 100)])
def test_a_click_at_either_end_opens_no_mouth(at: slice) -> None:
    assert followed(Stage(), HUM + some(at, 9.0), some(at, 90))


def test_one_stretch_does_not_hide_another() -> None:
    """A long hiss with a shut mouth is further from silence than the word behind it."""
    heard = HUM + some(slice(10, 20), 1.0) + some(slice(60, 64), 0.3)
    assert not followed(Stage(), heard, some(slice(60, 64), 30))


def test_speech_needs_no_look_at_mouths() -> None:
    stage = Stage()
    assert not followed(stage, HUM + some(slice(40, 43), 4.0), some([], 0))
    assert followed(stage, some([], 0), some([], 0)), "silence, of which mouths tell nothing new"
    assert stage.asked == []
