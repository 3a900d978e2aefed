"""Recordings and videos that somebody made, opened with PyAV."""

from __future__ import annotations

import ctypes
import functools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, TypeVar, cast

if TYPE_CHECKING:
    import av
    from av.container import InputContainer
    from av.stream import Stream

    StreamT = TypeVar("StreamT", bound=Stream)

MAX_BLOCK_BYTES: Final = 272 << 20
"""The most memory that FFmpeg takes at once. A file of a few bytes can say that it holds billions
of samples, or a text of gigabytes, and FFmpeg makes room before it looks for them. A picture of
8192x8192 in four bytes a pixel and the table of 11 million samples fit in."""

MAX_TRACKS: Final = 64
"""Of one file, with covers and subtitles. Each has tables of its own. Of Matroska the first ones
are read, files of other formats with more are refused."""


def open_media(file: IO[bytes]) -> InputContainer:
    """Return the container that ``file``, opened as binary and seekable, holds from where it
    stands; the caller closes it. ``file`` stays open.

    The file is handed over open, and FFmpeg may open no other: neither an address in its name nor
    one inside a playlist leads anywhere. Tags in old encodings are not worth failing for. What it
    may hold is limited by MAX_BLOCK_BYTES and MAX_TRACKS. Raises FFmpegError, OSError and
    ValueError where FFmpeg does not know its format; of these av.error.MemoryError where it is
    beyond the limits.
    """
    import av

    limit_blocks()
    options = {"protocol_whitelist": "none", "max_streams": str(MAX_TRACKS)}
    return av.open(file, "r", metadata_errors="ignore", options=options)


@functools.cache
def limit_blocks() -> bool:
    """Limit what FFmpeg takes at once in this process to MAX_BLOCK_BYTES, and return whether that
    was possible: not with an FFmpeg that is linked into PyAV itself and shows nothing of it."""
    import av._core

    places = [Path(av._core.__file__)]
    if sys.platform == "win32":  # there a library shows nothing of those that it needs
        places += sorted(places[0].parents[1].glob("av.libs/avutil-*.dll"))
    for place in places:
        try:
            limit = ctypes.CDLL(str(place)).av_max_alloc
        except (OSError, AttributeError):
            continue
        limit.argtypes, limit.restype = [ctypes.c_size_t], None
        limit(MAX_BLOCK_BYTES)
        return True
    return False


def beyond_limits(error: BaseException) -> str:
    """Return what a message is to say of a file where ``error``, raised while it was opened or
    read, is a MemoryError, so that it asked for more than MAX_BLOCK_BYTES or MAX_TRACKS: "asks for
    more memory than ...", the end of a sentence that begins with the file. Empty for other errors.
    """
    if not isinstance(error, MemoryError):
        return ""
    return (
        f"asks for more memory than there is or is allowed: {MAX_BLOCK_BYTES >> 20} MiB at once,"
        f" and {MAX_TRACKS} tracks"
    )


def packets_of(container: InputContainer, stream: StreamT) -> Iterator[av.Packet[StreamT]]:
    """Yield the packets of ``stream``, one of those of ``container``, from where the container
    stands to its end, and an empty one, which makes the decoder give what it still holds. Raises
    FFmpegError, OSError and ValueError where the file cannot be read on."""
    try:
        yield from cast("Iterator[av.Packet[StreamT]]", container.demux(stream))
    except IndexError:
        # At the end PyAV fails at streams that first appeared on the way, as they may in FLV and
        # MPEG-TS. They come after ``stream``, of which everything was given by then.
        return
