"""What containers tell of a recording's length, before anything is decoded."""

import io

import pytest
from tests.audio.soundfiles import encoded, tone

from lipwire.audio.recordings.lengths import outlook
from lipwire.audio.recordings.source import Source

FORMATS = [
    ("wav", "pcm_s16le"),
    ("flac", "flac"),
    ("mp3", "libmp3lame"),
    ("adts", "aac"),
    ("ac3", "ac3"),
    ("mp4", "aac"),
    ("ogg", "libopus"),
    ("webm", "libopus"),
    ("matroska", "flac"),
    ("mpegts", "aac"),
    ("flv", "aac"),
    ("aiff", "pcm_s16be"),
]


def source_of(content: bytes) -> Source:
    return Source("a recording", io.BytesIO(content), len(content))


@pytest.mark.slow
@pytest.mark.parametrize(("container", "codec"), FORMATS)
def test_the_length_is_told_and_a_whole_file_is_not_cut_short(container: str, codec: str) -> None:
    rate_hz = 44_100 if container == "flv" else 48_000
    look = outlook(source_of(encoded(container, codec, tone(4.0, rate_hz), rate_hz)), None)
    assert look.length_s == pytest.approx(4.0, abs=0.15)
    assert not look.cut_short


def test_parts_that_were_put_together_are_added_up() -> None:
    part = encoded("mp3", "libmp3lame", tone(2.0, 44_100), 44_100)
    assert outlook(source_of(part * 3), None).length_s == pytest.approx(6.0, abs=0.3)


def test_a_stream_that_says_nothing_is_counted_by_its_packets() -> None:
    """As browsers record it: without a length in front."""
    content = encoded("webm", "libopus", tone(4.0, 48_000), 48_000, options={"live": "1"})
    look = outlook(source_of(content), None)
    assert look.length_s == pytest.approx(4.0, abs=0.1)
    assert not look.cut_short


@pytest.mark.parametrize(("container", "codec"), [("flac", "flac"), ("matroska", "flac")])
def test_a_file_that_ends_before_its_length_is_cut_short(container: str, codec: str) -> None:
    content = encoded(container, codec, tone(6.0, 44_100), 44_100)
    assert outlook(source_of(content[: len(content) // 2]), None).cut_short


def test_the_file_stands_where_it_stood() -> None:
    source = source_of(encoded("flac", "flac", tone(2.0, 44_100), 44_100))
    source.file.seek(1234)
    outlook(source, None)
    assert source.file.tell() == 1234
