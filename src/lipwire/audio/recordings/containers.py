"""Opening a file with FFmpeg, and finding the files that it may have been put together from."""

from typing import BinaryIO, Final, cast

import av
from av.container import InputContainer

from lipwire.audio.recordings.joins import beginnings
from lipwire.audio.recordings.source import Part, Source
from lipwire.domain import InvalidInput
from lipwire.domain.media import beyond_limits, open_media

BARE: Final = frozenset({"mp3", "aac", "ac3", "eac3"})
"""Formats without a container: all that a file holds is sound, or tags."""


class NotAudioError(InvalidInput):
    """FFmpeg does not know the format of the file that was given as a recording, or the file is
    beyond the limits of what is opened."""


def open_container(source: Source) -> InputContainer:
    """Open ``source``, which ``open_source`` has made, from its beginning with FFmpeg and return
    PyAV's container; the caller closes that. Raises NotAudioError, an InvalidInput, where FFmpeg
    does not know the file's format, or the file asks for more than 272 MiB of memory at once, or
    has more than 64 tracks and is not Matroska."""
    file = source.file
    file.seek(0)
    try:
        return open_media(file)
    except (av.FFmpegError, OSError, ValueError) as error:
        reason = beyond_limits(error) or "is not audio that can be decoded"
        raise NotAudioError(f"{source.name} {reason}") from error


def parts_of(container: InputContainer, source: Source) -> list[Source]:
    """Return the files that ``source`` was put together from with ``cat``, in their order; mostly
    only ``source`` itself. ``container`` is ``source``, opened by ``open_container``, and says
    which format it has.

    Parts are looked for in MP3, Ogg, FLAC and fragmented MP4. The returned sources share the file
    of ``source``, so that only one may be read at a time; ``container`` can still be read
    afterwards. Raises InvalidInput where there are more than 10,000 parts, or an MP4 file has more
    than a million boxes.
    """
    position = source.file.tell()
    try:
        starts = beginnings(source.file, source.size_bytes, container.format.name)
    except InvalidInput as error:
        raise InvalidInput(f"{source.name} {error}") from None
    source.file.seek(position)
    if len(starts) == 1:
        return [source]
    ends = [*starts[1:], source.size_bytes]
    return [
        Source(source.name, cast(BinaryIO, Part(source.file, start, end)), end - start)
        for start, end in zip(starts, ends, strict=True)
    ]
