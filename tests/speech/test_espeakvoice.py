"""The program espeak-ng, and programs that are none of it."""

import shutil
import struct
from pathlib import Path

import numpy as np
import pytest

from lipwire.domain import DependencyMissing, InvalidInput, Unavailable
from lipwire.speech.espeakvoice import EspeakVoice, samples_of

needs_espeak = pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="needs espeak-ng")


def wav(data: bytes, *, rate_hz: int = 22_050, channels: int = 1, before: bytes = b"") -> bytes:
    """A file as it is written to a pipe: its length is not known."""
    form = struct.pack("<HHIIHH", 1, channels, rate_hz, 2 * rate_hz, 2, 16)
    endless = struct.pack("<I", 0x7FFFF000)
    return (
        b"RIFF" + endless + b"WAVE" + b"fmt " + struct.pack("<I", 16) + form
        + before + b"data" + endless + data
    )  # fmt: skip


def test_samples_of_a_file_without_a_length() -> None:
    data = np.array([0, 16384, -32768], "<i2").tobytes()
    for before in (b"", b"LIST\x03\x00\x00\x00abc\x00"):
        pcm, rate_hz = samples_of(wav(data + b"\x01", before=before))
        assert rate_hz == 22_050
        assert pcm.tolist() == [0.0, 0.5, -1.0]


@pytest.mark.parametrize(
    "data", [b"", b"ID3", wav(b"")[:20], wav(b"\0\0", channels=2), b"RIFF" + b"\0" * 60]
)
def test_what_is_no_such_file_is_refused(data: bytes) -> None:
    with pytest.raises(Unavailable, match="bytes that are no 16-bit mono WAV file"):
        samples_of(data)


@needs_espeak
@pytest.mark.parametrize(
    ("language", "text"),
    [("en-us", "Good morning, my name is Anna."), ("de", "Guten Morgen, ich heiße Änne.")],
)
def test_it_says_sentences_of_a_language(language: str, text: str) -> None:
    voice = EspeakVoice(language=language)
    voice.prepare()
    pieces = list(voice.say(f"{text} -x; $(exit) [[a]]"))
    assert [piece.text for piece in pieces] == [text, "-x; $(exit) [[a]]"]
    first = pieces[0]
    assert 0.05 < len(first.pcm) / first.rate_hz / len(text) < 0.12
    assert 0.02 < float(np.sqrt(np.mean(first.pcm**2))) < 0.3


@needs_espeak
def test_faster_speech_is_shorter() -> None:
    lengths = [
        len(next(EspeakVoice(language="en-us", speed=speed).say("How fast is this?")).pcm)
        for speed in (0.5, 1.0, 2.0)
    ]
    assert lengths[0] > lengths[1] > lengths[2]


@needs_espeak
def test_a_language_that_it_does_not_have_is_refused() -> None:
    with pytest.raises(InvalidInput, match="espeak-ng has no language xx; `espeak-ng --voices`"):
        EspeakVoice(language="xx").prepare()


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program of that name, which does what a test writes."""
    path = tmp_path / "espeak-ng"
    path.write_text("#!/bin/sh\nexit 0\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return path


@pytest.mark.parametrize("language", ["", "../x", "-q", "de;ls", "a b", "x" * 50])
def test_a_language_is_a_code(language: str, program: Path) -> None:
    with pytest.raises(InvalidInput, match=r"language is '.*'; allowed are such as en-us"):
        EspeakVoice(language=language)


def test_a_program_that_fails_or_hangs_is_one_line(program: Path) -> None:
    program.write_text("#!/bin/sh\necho one >&2\necho two >&2\nexit 3\n")
    with pytest.raises(Unavailable, match=r"^espeak-ng failed: two$"):
        list(EspeakVoice(language="de").say("One."))
    program.write_text("#!/bin/sh\nexec sleep 600\n")
    with pytest.raises(Unavailable, match=r"espeak-ng did not end; allowed are 0.2 s a sentence"):
        list(EspeakVoice(language="de", timeout_s=0.2).say("One."))
    voice = EspeakVoice(language="de")
    program.unlink()
    with pytest.raises(Unavailable, match=r"espeak-ng cannot be run: No such file"):
        list(voice.say("One."))


def test_without_the_program_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(DependencyMissing, match="the program espeak-ng is not installed"):
        EspeakVoice(language="de")
