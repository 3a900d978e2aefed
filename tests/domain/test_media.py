"""What somebody else's recordings and videos are read with."""

import io
import struct
from contextlib import suppress
from typing import Any

import av
import pytest
from tests.audio.soundfiles import encoded, several_tracks, tone
from tests.fuzz.costs import MIB, measured

from lipwire.domain.media import (
    MAX_BLOCK_BYTES,
    MAX_TRACKS,
    beyond_limits,
    limit_blocks,
    open_media,
    packets_of,
)


class Container:
    """One that gives ``packets`` and then raises ``error``."""

    def __init__(self, packets: list[str], error: Exception) -> None:
        self.packets = packets
        self.error = error

    def demux(self, stream: object) -> Any:
        yield from self.packets
        raise self.error


def test_a_stream_that_appears_on_the_way_ends_no_other_one() -> None:
    """PyAV 18 looks such a stream up in a list that was made before (``InputContainer.demux``)."""
    container: Any = Container(["first", "second", "flush"], IndexError("list index out of range"))
    found: list[Any] = list(packets_of(container, container))
    assert found == ["first", "second", "flush"]


@pytest.mark.parametrize("error", [OSError("the disk"), ValueError("a closed file")])
def test_other_errors_are_told(error: Exception) -> None:
    container: Any = Container(["first"], error)
    with pytest.raises(type(error), match=str(error)):
        list(packets_of(container, container))


def in_fragments(samples: int) -> bytes:
    """Half a second of AAC as MP4 in fragments, the first of which counts ``samples``."""
    options = {"movflags": "empty_moov+default_base_moof", "frag_duration": "50000"}
    content = bytearray(encoded("mp4", "aac", tone(0.5, 16_000), 16_000, options=options))
    count_at = content.index(b"trun") + 8  # behind the flags (ISO/IEC 14496-12, 8.8.8)
    content[count_at : count_at + 4] = samples.to_bytes(4)
    return bytes(content)


def of_one_size(samples: int) -> bytes:
    """Half a second of AAC as MP4, whose table of sizes counts ``samples`` of one byte each, all of
    them in its first chunk."""
    content = bytearray(encoded("mp4", "aac", tone(0.5, 16_000), 16_000))
    sizes_at = content.index(b"stsz") + 8  # ISO/IEC 14496-12, 8.7.3.2
    content[sizes_at : sizes_at + 8] = struct.pack(">II", 1, samples)
    chunks_at = content.index(b"stsc") + 16  # 8.7.4: samples in each chunk
    content[chunks_at : chunks_at + 4] = samples.to_bytes(4)
    return bytes(content)


def with_text(size_bytes: int) -> bytes:
    """A WAV file in front of whose samples there is a name that is said to be so long."""
    content = encoded("wav", "pcm_s16le", tone(0.5, 16_000), 16_000)
    at = content.index(b"data")
    text = b"INAM" + struct.pack("<I", size_bytes)
    listed = b"LIST" + struct.pack("<I", 12 + size_bytes) + b"INFO" + text
    return content[:at] + listed + content[at:]


@pytest.mark.skipif(not limit_blocks(), reason="this FFmpeg cannot be told how much it may take")
@pytest.mark.parametrize(
    "content",
    [
        in_fragments(80_000_000),
        in_fragments(0x7FFF_FFFF),
        of_one_size(80_000_000),
        with_text(900_000_000),
    ],
    ids=["fragment", "longest fragment", "table", "text"],
)
def test_what_a_file_only_counts_takes_no_memory(content: bytes) -> None:
    open_media(io.BytesIO(in_fragments(2))).close()  # libraries are loaded
    with measured() as cost, suppress(av.FFmpegError):
        open_media(io.BytesIO(content)).close()
    assert cost.grown_bytes < MAX_BLOCK_BYTES


@pytest.mark.skipif(not limit_blocks(), reason="this FFmpeg cannot be told how much it may take")
def test_a_file_that_asks_for_too_much_is_told_apart() -> None:
    with pytest.raises(av.FFmpegError) as caught:
        open_media(io.BytesIO(in_fragments(80_000_000)))
    assert "272 MiB at once, and 64 tracks" in beyond_limits(caught.value)
    with pytest.raises(av.FFmpegError) as caught:
        open_media(io.BytesIO(b"no container at all"))
    assert beyond_limits(caught.value) == ""


@pytest.mark.skipif(not limit_blocks(), reason="this FFmpeg cannot be told how much it may take")
def test_a_text_that_is_there_is_read() -> None:
    name = b"n" * 4 * MIB
    content = with_text(len(name))
    at = content.index(b"data")
    with open_media(io.BytesIO(content[:at] + name + content[at:])) as container:
        assert container.metadata["title"] == name.decode()


def tracks(count: int, container: str) -> bytes:
    sounds = [tone(0.1, 16_000)] * count
    languages = ["und"] * count
    return several_tracks(
        sounds, default=0, languages=languages, rate_hz=16_000, container=container
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "container"),
    [(MAX_TRACKS, "mp4"), (MAX_TRACKS, "matroska"), (MAX_TRACKS + 1, "matroska")],
)
def test_as_many_tracks_as_are_allowed_are_read(count: int, container: str) -> None:
    with open_media(io.BytesIO(tracks(count, container))) as opened:
        assert len(opened.streams) == MAX_TRACKS


@pytest.mark.slow
def test_more_tracks_than_are_allowed_are_refused() -> None:
    with pytest.raises(av.FFmpegError) as caught:
        open_media(io.BytesIO(tracks(MAX_TRACKS + 1, "mp4")))
    assert "64 tracks" in beyond_limits(caught.value)
