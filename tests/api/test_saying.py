"""Texts from Python."""

from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lipwire.api import say, saying
from lipwire.domain import DependencyMissing, InvalidInput, Unavailable
from lipwire.speech import SpokenPiece, sentences


class FakeVoice:
    """Says each sentence for 0.2 s at the rates that it is made with, in turn."""

    name = "fake"

    def __init__(self, *rates_hz: int) -> None:
        self.rates_hz = rates_hz

    def prepare(self) -> None:
        pass

    def say(self, text: str) -> Generator[SpokenPiece, None, None]:
        said = sentences(text)
        return (
            SpokenPiece(np.full(rate_hz // 5, 0.25, np.float32), rate_hz, sentence)
            for rate_hz, sentence in zip(self.rates_hz, said, strict=False)
        )


def test_an_avatar_says_a_text(avatar_package: Path, tmp_path: Path) -> None:
    voice = FakeVoice(24_000, 24_000)
    result = say(avatar_package, "One. Two.", tmp_path / "out.mp4", voice=voice)
    assert (result.frames, result.path) == (10, tmp_path / "out.mp4")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"text": b"One."}, "text is given as bytes; allowed: str"),
        ({"voice": "anna"}, "voice is 'anna': "),
        ({"speed": 9}, "speed is 9: "),
        ({"language": "../x"}, "language is '../x': "),
        ({"voice": "openai"}, "voice is openai and url is missing"),
    ],
)
def test_wrong_arguments_are_one_line(given: dict[str, Any], said: str) -> None:
    arguments = {"text": "One.", "voice": None, "speed": 1.0, "language": "de"} | given
    with pytest.raises(InvalidInput, match=said) as wrong:
        saying.sound_of(**arguments)
    assert "\n" not in str(wrong.value)


def test_a_voice_speaks_at_one_rate() -> None:
    with pytest.raises(Unavailable, match="speaks at 2 rates; allowed is one"):
        saying.sound_of("One. Two.", FakeVoice(24_000, 16_000), 1.0, "de")
    with pytest.raises(Unavailable, match="the voice fake says nothing"):
        saying.sound_of("One. Two.", FakeVoice(), 1.0, "de")


def test_without_a_voice_it_is_said_what_to_install() -> None:
    with pytest.raises(DependencyMissing, match=r"pip install lipwire\[speech\]"):
        saying.sound_of("One.", "none", 1.0, "de")
