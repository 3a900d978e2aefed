"""`lipwire say`, with a voice made of numbers."""

from __future__ import annotations

import io
import sys
import wave
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING

import av
import numpy as np
import pytest

from lipwire import speech
from lipwire.config.compositing import SpeechSettings
from lipwire.speech import SpokenPiece, sentences

if TYPE_CHECKING:
    from tests.cli.conftest import Lipwire


class FakeVoice:
    """Says each sentence for 0.2 s."""

    name = "fake"

    def prepare(self) -> None:
        pass

    def say(self, text: str) -> Generator[SpokenPiece, None, None]:
        said = sentences(text)
        return (SpokenPiece(np.full(4800, 0.25, np.float32), 24_000, one) for one in said)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[SpeechSettings]:
    """The settings that a voice is opened with; "espeak-ng" is not there."""
    seen: list[SpeechSettings] = []

    def opened(settings: SpeechSettings) -> FakeVoice | None:
        seen.append(settings)
        return None if settings.voice == "espeak-ng" else FakeVoice()

    monkeypatch.setattr(speech, "open_voice", opened)
    return seen


def test_a_text_becomes_a_video_and_a_sound(
    lipwire: Lipwire, avatar_package: Path, tmp_path: Path, asked: list[SpeechSettings]
) -> None:
    out, sound = tmp_path / "out.mp4", tmp_path / "out.wav"
    outcome = lipwire("say", avatar_package, "One. Two.", "-o", out, "--save-audio", sound)
    assert (outcome.code, asked) == (0, [SpeechSettings()])
    assert outcome.out.startswith(f"{sound}: 0.4 s at 24000 Hz\n{out}: 0.4 s of 320x240 in ")
    with av.open(str(out), "r") as container:
        assert sum(1 for _ in container.decode(video=0)) == 10
    with wave.open(str(sound)) as file:
        assert (file.getnchannels(), file.getframerate(), file.getnframes()) == (1, 24_000, 9600)
        assert set(np.frombuffer(file.readframes(9600), "<i2").tolist()) == {8192}


def test_frames_may_be_files(
    lipwire: Lipwire, avatar_package: Path, tmp_path: Path, asked: list[SpeechSettings]
) -> None:
    assert lipwire("say", avatar_package, "One.", "-o", tmp_path / "frames").code == 0
    assert len(list((tmp_path / "frames").iterdir())) == 5


def test_options_go_before_the_configuration(
    lipwire: Lipwire, tmp_path: Path, asked: list[SpeechSettings]
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("speech: {voice: openai, url: 'http://x/v1', speed: 1.5, language: de}\n")
    audio = ("--save-audio", tmp_path / "a.wav", "--force")
    assert lipwire("say", "One.", *audio, "-c", config, "--speed", "0.5").code == 0
    assert lipwire("say", "One.", *audio, "--voice", "hibari", "--language", "fr").code == 0
    assert [(one.voice, one.speed, one.language) for one in asked] == [
        ("openai", 0.5, "de"),
        ("hibari", 1.0, "fr"),
    ]


def test_a_text_may_come_through_a_pipe(
    lipwire: Lipwire,
    tmp_path: Path,
    asked: list[SpeechSettings],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = "Eins. Zwei. Drei. Vier. Grüße.".encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given)))
    outcome = lipwire("say", "demo", "-", "--save-audio", tmp_path / "a.wav")
    assert outcome.out == f"{tmp_path / 'a.wav'}: 1.0 s at 24000 Hz\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("One.",), "name a file to write to: -o VIDEO.mp4, or --save-audio SOUND.wav"),
        (("One.", "-o", "-"), "name a file to write to"),
        (("One.", "-o", "x.avi"), "ends in .avi"),
        (("One.", "--save-audio", "x.mp3"), "x.mp3 ends in .mp3; allowed is .wav"),
        (("One.", "--save-audio", "no/x.wav"), "there is no folder no"),
        (("One.", "--save-audio", "there.wav"), "there.wav is there already; --force replaces it"),
        (("a", "b", "c", "-o", "x.mp4"), "3 arguments are given; allowed are an avatar and a text"),
        (("...", "-o", "x.mp4"), "nothing to say"),
        (("x" * 10_001, "-o", "x.mp4"), "has 10,001 characters; allowed are up to 10,000"),
    ],
)
def test_wrong_use_is_one_line_and_writes_nothing(
    lipwire: Lipwire,
    tmp_path: Path,
    asked: list[SpeechSettings],
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("there.wav").touch()
    outcome = lipwire("say", *arguments)
    assert outcome.code == 2
    assert outcome.err.startswith("error: ")
    assert said in outcome.err
    assert [path.name for path in tmp_path.iterdir()] == ["there.wav"]


def test_without_a_voice_it_is_said_what_to_install(
    lipwire: Lipwire, tmp_path: Path, asked: list[SpeechSettings]
) -> None:
    outcome = lipwire("say", "One.", "--voice", "espeak-ng", "--save-audio", tmp_path / "a.wav")
    assert outcome.code == 1
    assert "there is no voice; `pip install lipwire[speech]` brings one" in outcome.err
