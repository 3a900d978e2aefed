"""Recordings that are damaged, or hold what is not heard."""

import struct

import numpy as np
import pytest
from tests.audio.soundfiles import ape, both_forms, encoded, id3v2, loud, mp3, tone

from lipwire.audio import FileRecording, decode_audio
from lipwire.domain import InvalidInput


@pytest.mark.slow
@pytest.mark.parametrize(
    ("container", "codec"), [("mp4", "aac"), ("mpegts", "aac"), ("adts", "aac")]
)
def test_damage_is_told_with_its_place_and_allowed_it_is_silence(
    container: str, codec: str
) -> None:
    content = bytearray(encoded(container, codec, tone(4.0, 44_100), 44_100, "stereo"))
    middle = len(content) // 2
    content[middle : middle + 500] = b"\xff" * 500
    with pytest.raises(InvalidInput, match=r"is damaged (1\.[89]|2\.[01])\d s after its begin"):
        decode_audio(bytes(content))
    with FileRecording(bytes(content), allow_damaged=True) as recording:
        assert recording.samples / 16_000 == pytest.approx(4.0, abs=0.3)
        assert any("damaged" in line and "of silence there" in line for line in recording.warnings)
    heard, _ = both_forms(bytes(content), allow_damaged=True)
    assert loud(heard, 0.1, 1.7)
    assert loud(heard, 3.2, 3.7)


@pytest.mark.parametrize(
    ("container", "codec"),
    [("wav", "pcm_s16le"), ("flac", "flac"), ("aiff", "pcm_s16be"), ("matroska", "flac")],
)
def test_a_truncated_file_is_told_and_allowed_it_is_what_is_there(
    container: str, codec: str
) -> None:
    content = encoded(container, codec, tone(4.0, 44_100), 44_100)
    content = content[: len(content) // 2]
    with pytest.raises(InvalidInput, match="truncated") as caught:
        decode_audio(content)
    assert " s" in str(caught.value)
    assert "--allow-damaged" in str(caught.value)
    heard, _ = both_forms(content, allow_damaged=True)
    assert len(heard) / 16_000 == pytest.approx(2.0, abs=0.5)


def wav(seconds: float, hz: float = 440.0) -> bytes:
    return encoded("wav", "pcm_s16le", tone(seconds, 16_000, hz), 16_000)


def patched(content: bytes, counted_bytes: int) -> bytes:
    at = content.index(b"data") + 4
    return content[:at] + struct.pack("<I", counted_bytes) + content[at + 4 :]


@pytest.mark.parametrize(
    ("content", "heard_s", "warned"),
    [
        (wav(1.0), 1.0, None),
        (wav(1.0) + wav(2.0), 1.0, "64"),  # 64,000 bytes and a header
        (patched(wav(3.0), 32_000), 1.0, "64000 bytes more follow at 1.00 s"),
        (wav(1.0) + b"LIST" + struct.pack("<I", 20_000) + bytes(20_000), 1.0, None),
        (wav(1.0) + bytes(100), 1.0, None),
        (patched(wav(1.0), 0xFFFF_FFFF), 1.0, None),
    ],
    ids=["whole", "two files", "a short count", "a chunk behind", "some zeros", "from a pipe"],
)
def test_what_a_wav_header_does_not_count_is_warned_about(
    content: bytes, heard_s: float, warned: str | None
) -> None:
    with FileRecording(content) as recording:
        assert recording.samples / 16_000 == pytest.approx(heard_s, abs=0.01)
        assert len(recording.warnings) == (warned is not None)
        assert warned is None or warned in recording.warnings[0]


def rf64(seconds: float) -> bytes:
    sound = tone(seconds, 16_000)
    return encoded("wav", "pcm_s16le", sound, 16_000, options={"rf64": "always"})


def test_what_a_long_wav_lacks_or_holds_more_is_told() -> None:
    with pytest.raises(InvalidInput, match=r"truncated at 0\.5\d s"):
        decode_audio(rf64(1.0)[:16_900])
    with FileRecording(rf64(1.0) + rf64(2.0)) as recording:
        assert recording.samples == 16_000
        assert ["more follow at 1.00 s" in line for line in recording.warnings] == [True]


KINDS = {
    "AIFF": ("aiff", "pcm_s16be"),
    "MP4": ("mp4", "aac"),
    "FLV": ("flv", "aac"),
    "TTA": ("tta", "tta"),
    "FLAC": ("flac", "flac"),
    "Ogg": ("ogg", "flac"),
}


def of_kind(kind: str, seconds: float) -> bytes:
    container, codec = KINDS[kind]
    return encoded(container, codec, tone(seconds, 44_100), 44_100)


@pytest.mark.parametrize(
    ("first", "second", "kind"),
    [
        ("AIFF", of_kind("AIFF", 1.0), "AIFF"),
        ("MP4", of_kind("MP4", 1.0), "MP4"),
        ("FLV", of_kind("FLV", 1.0), "FLV"),
        ("TTA", of_kind("TTA", 1.0), "TTA"),
        ("FLAC", wav(1.0), "WAV"),
        ("MP4", of_kind("FLAC", 1.0), "FLAC"),
        ("AIFF", of_kind("Ogg", 1.0), "Ogg"),
        ("Ogg", mp3(1.0), "MP3"),
    ],
)
def test_a_second_file_that_is_not_heard_is_warned_about(
    first: str, second: bytes, kind: str
) -> None:
    content = of_kind(first, 2.0)
    with FileRecording(content) as recording:
        assert recording.warnings == ()
    with FileRecording(content + second) as recording:
        assert recording.samples / 16_000 == pytest.approx(2.0, abs=0.1)
        (line,) = recording.warnings
        assert f"byte {len(content)} as a file of its own does ({kind}) is not heard" in line


@pytest.mark.parametrize("container", ["mp3", "adts", "ac3"])
@pytest.mark.parametrize("junk", [bytes(9_000), np.random.default_rng(0).bytes(9_000)])
def test_what_is_no_sound_at_the_end_is_warned_about(container: str, junk: bytes) -> None:
    codec = {"mp3": "libmp3lame", "adts": "aac", "ac3": "ac3"}[container]
    content = encoded(container, codec, tone(2.0, 44_100), 44_100)
    with FileRecording(content + junk) as recording:
        (line,) = recording.warnings
    assert "bytes at its end are no sound" in line


@pytest.mark.parametrize("tag", [ape(b"cover".ljust(9_000, b"x")), id3v2(b"x" * 9_000)])
def test_a_tag_at_the_end_is_not_warned_about(tag: bytes) -> None:
    with FileRecording(mp3(2.0) + tag) as recording:
        assert recording.warnings == ()


@pytest.mark.parametrize(
    ("container", "codec"),
    [("webm", "libopus"), ("matroska", "aac"), ("ogg", "libopus"), ("mp4", "aac")],
)
def test_a_clock_that_does_not_begin_at_0_is_no_damage(container: str, codec: str) -> None:
    content = encoded(container, codec, tone(4.0, 48_000), 48_000, move_s=lambda _: 300.0)
    with FileRecording(content) as recording:
        assert recording.warnings == ()
        assert recording.samples / 16_000 == pytest.approx(4.0, abs=0.05)
