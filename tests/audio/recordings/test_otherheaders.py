"""Files whose headers count less than they hold, and what lies behind and between sound."""

import struct

import numpy as np
import pytest
from tests.audio.soundfiles import encoded, tone

from lipwire.audio import FileRecording, decode_audio
from lipwire.audio.recordings.wav import missing_bytes
from lipwire.domain import Float32Array


def made(container: str, codec: str, seconds: float, rate_hz: int = 16_000) -> bytes:
    return encoded(container, codec, tone(seconds, rate_hz), rate_hz)


def heard_with_warnings(content: bytes) -> tuple[Float32Array, tuple[str, ...]]:
    with FileRecording(content) as recording:
        heard = np.concatenate(list(recording.heard()))
        return heard, recording.warnings


FORMATS = [("w64", "pcm_s16le"), ("w64", "pcm_f32le"), ("caf", "pcm_s16be"), ("caf", "alac")]


@pytest.mark.parametrize(("container", "codec"), FORMATS)
def test_whole_files_are_heard_without_a_word(container: str, codec: str) -> None:
    for seconds in (0.3, 1.0, 2.00005):
        heard, warnings = heard_with_warnings(made(container, codec, seconds))
        assert len(heard) == pytest.approx(seconds * 16_000, abs=800 if codec == "alac" else 4)
        assert warnings == ()


@pytest.mark.parametrize(("container", "codec"), FORMATS)
@pytest.mark.parametrize("second_s", [0.5, 3.0])
def test_the_first_of_two_is_heard_and_the_second_warned_about(
    container: str, codec: str, second_s: float
) -> None:
    first = made(container, codec, 1.0)
    second = made(container, codec, second_s)
    heard, (warning,) = heard_with_warnings(first + second)
    np.testing.assert_array_equal(heard, decode_audio(first))
    assert f"{len(second)} bytes more follow" in warning
    assert "at 1.00 s" in warning or codec == "alac"
    assert f"{container.upper()} files" in warning


@pytest.mark.parametrize(("container", "codec"), [("w64", "pcm_s16le"), ("caf", "pcm_s16be")])
def test_samples_that_the_header_does_not_count_are_warned_about(
    container: str, codec: str
) -> None:
    content = made(container, codec, 3.0)
    at = content.index(b"data")
    if container == "w64":
        counted = struct.pack("<Q", 24 + 32_000)
        content = content[: at + 16] + counted + content[at + 24 :]
    else:
        content = content[: at + 4] + struct.pack(">q", 4 + 32_000) + content[at + 12 :]
    heard, (warning,) = heard_with_warnings(content)
    assert len(heard) == 16_000
    assert "64000 bytes more follow at 1.00 s" in warning


def test_how_much_may_be_missing_is_a_time() -> None:
    assert missing_bytes(8_000) == 160  # mu-law of 8 kHz, of which 4096 bytes are half a second
    assert missing_bytes(32_000) == 640
    assert missing_bytes(1_000) == 128
    assert missing_bytes(4_000_000) == missing_bytes(0) == 4096


def test_a_fifth_of_a_second_behind_soft_sound_is_warned_about() -> None:
    telephone = made("wav", "pcm_mulaw", 2.0, 8_000)
    at = telephone.index(b"data") + 4
    counted = struct.pack("<I", 16_000 - 1_600)
    heard, (warning,) = heard_with_warnings(telephone[:at] + counted + telephone[at + 4 :])
    assert len(heard) == 28_800
    assert "1600 bytes more follow at 1.80 s" in warning


@pytest.mark.parametrize("tag", [b"", b"ID3\x03\x00\x00\x00\x00\x00\x0a" + bytes(10)])
def test_another_format_behind_bare_aac_is_not_damage(tag: bytes) -> None:
    first = made("adts", "aac", 2.0, 44_100)
    second = made("mp3", "libmp3lame", 1.0, 44_100)
    heard, (warning,) = heard_with_warnings(first + (tag or second[:0]) + second)
    np.testing.assert_allclose(len(heard), 32_000, atol=1600)
    assert "as a file of its own does (MP3) is not heard" in warning


def test_zeros_between_parts_are_not_at_the_end() -> None:
    part = made("mp3", "libmp3lame", 2.0, 44_100)
    tag = b"ID3\x03\x00\x00\x00\x00\x00\x0a" + bytes(10)
    first = part if part.startswith(b"ID3") else tag + part
    heard, (warning,) = heard_with_warnings(first + bytes(20_000) + first)
    assert len(heard) == pytest.approx(64_000, abs=3200)
    assert "20000 bytes, 2.0" in warning
    assert "s after its beginning, are no sound" in warning
    _, (warning,) = heard_with_warnings(first + first + bytes(20_000))
    assert "20000 bytes at its end are no sound" in warning
