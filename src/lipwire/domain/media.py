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
    """Open ``file``, a binary, seekable stream, as a media file that begins at its current
    position, and return PyAV's container; the caller closes that. ``file`` stays open.

    FFmpeg opens no other file or address, neither one in the file's name nor one in a playlist.
    Tags that cannot be decoded do no harm. FFmpeg allocates at most MAX_BLOCK_BYTES (272 MiB) at
    once where ``limit_blocks`` can limit it, and opens at most MAX_TRACKS (64) tracks. Raises
    FFmpegError, OSError and ValueError where FFmpeg cannot read the format, and
    av.error.MemoryError, which is one of them, where the file is beyond these limits; of Matroska
    files with more tracks, the first ones are read.
    """
    import av

    limit_blocks()
    options = {"protocol_whitelist": "none", "max_streams": str(MAX_TRACKS)}
    return av.open(file, "r", metadata_errors="ignore", options=options)


@functools.cache
def limit_blocks() -> bool:
    """Limit the memory that FFmpeg allocates at once in this process to MAX_BLOCK_BYTES. Returns
    True where that was done, False where PyAV does not let FFmpeg's functions be called, because
    FFmpeg is linked into it."""
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
    """Return the end of an error message whose beginning is the name of a file, for ``error``,
    which was raised while the file was opened or read. For a MemoryError, the text is "asks for
    more memory than there is or is allowed: ...", and names the limits, 272 MiB at once and 64
    tracks; for any other error it is empty."""
    if not isinstance(error, MemoryError):
        return ""
    return (
        f"asks for more memory than there is or is allowed: {MAX_BLOCK_BYTES >> 20} MiB at once,"
        f" and {MAX_TRACKS} tracks"
    )


def packets_of(container: InputContainer, stream: StreamT) -> Iterator[av.Packet[StreamT]]:
    """Yield the packets of ``stream``, one of the streams of ``container``, from the container's
    current position to its end, and then an empty packet, with which the decoder returns the frames
    that it still has. Raises FFmpegError, OSError and ValueError where the rest of the file cannot
    be read."""
    try:
        yield from cast("Iterator[av.Packet[StreamT]]", container.demux(stream))
    except IndexError:
        # At the end PyAV fails at streams that first appeared on the way, as they may in FLV and
        # MPEG-TS. They come after ``stream``, of which everything was given by then.
        return
