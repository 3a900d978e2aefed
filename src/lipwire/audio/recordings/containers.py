"""Opening a file with FFmpeg, and finding the files that it may have been put together from."""

from typing import BinaryIO, Final, cast

import av
from av.container import InputContainer

from lipwire.audio.recordings.joins import beginnings
from lipwire.audio.recordings.source import Part, Source
from lipwire.domain import InvalidInput

BARE: Final = frozenset({"mp3", "aac", "ac3", "eac3"})
"""Formats without a container: all that a file holds is sound, or tags."""


class NotAudioError(InvalidInput):
    """FFmpeg does not know the file."""


def open_container(source: Source) -> InputContainer:
    """Open ``source`` from its beginning with FFmpeg; the caller closes what is returned. Raises
    NotAudioError, an InvalidInput, where FFmpeg does not know the file's format."""
    file = source.file
    file.seek(0)
    try:
        # The file is handed over open, and FFmpeg may open no other: neither an address in the name
        # nor one inside a playlist leads anywhere. Tags in old encodings are not worth failing for.
        return av.open(file, "r", metadata_errors="ignore", options={"protocol_whitelist": "none"})
    except (av.FFmpegError, OSError, ValueError) as error:
        raise NotAudioError(f"{source.name} is not audio that can be decoded") from error


def parts_of(container: InputContainer, source: Source) -> list[Source]:
    """Return the files that ``source``, opened as ``container``, was put together from with
    ``cat``, in their order; mostly only ``source`` itself.

    Parts are looked for in MP3, Ogg and FLAC. They read from the file of ``source``; ``container``
    can be read on afterwards.
    """
    position = source.file.tell()
    starts = beginnings(source.file, source.size_bytes, container.format.name)
    source.file.seek(position)
    if len(starts) == 1:
        return [source]
    ends = [*starts[1:], source.size_bytes]
    return [
        Source(source.name, cast(BinaryIO, Part(source.file, start, end)), end - start)
        for start, end in zip(starts, ends, strict=True)
    ]
