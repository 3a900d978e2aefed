"""What a WAV file's header says about its length, which FFmpeg does not compare with the file.

RIFF: "RIFF", size, "WAVE", then chunks of four letters, a 32-bit size and the data, padded to an
even length (Microsoft, Multimedia Programming Interface and Data Specifications 1.0). RF64, for
files of more than 4 GB, has the size of "data" in a chunk "ds64" (EBU Tech 3306).
"""

import struct
from typing import Final

from lipwire.audio.recordings.findings import Findings
from lipwire.audio.recordings.source import Source

_LEAST_BYTES: Final = 128  # some programs count their header in
_MOST_BYTES: Final = 4096
_MISSING_S: Final = 0.02
_MISSING_SHARE: Final = 0.02
_CHUNKS: Final = 64  # in front of the samples; two or three are usual
_SEE_DS64: Final = 0xFFFF_FFFF
_UNKNOWN_LENGTH: Final = 0x7FFF_0000  # programs that write into a pipe put this or more, or 0


def check_wav_length(source: Source, findings: Findings) -> None:
    """Compare the length of ``source``, where it is a WAV file, with what its header says. The
    position of ``source.file`` is 0 afterwards.

    Bytes behind the samples that are no part of the file, a second WAV file for example, are noted
    in ``findings``. Missing samples are damage: InvalidInput is raised where ``findings`` does not
    allow it. Files of other formats are left alone.
    """
    file = source.file
    file.seek(0)
    header = file.read(12)
    is_wav = header[:4] in (b"RIFF", b"RF64") and header[8:] == b"WAVE"
    bytes_a_second = long_size = 0
    for _ in range(_CHUNKS if is_wav else 0):
        if len(chunk := file.read(8)) < 8:
            break
        kind, size = struct.unpack("<4sI", chunk)
        if kind == b"ds64" and size >= 16:
            form = file.read(16)
            long_size = int.from_bytes(form[8:16], "little")
            file.seek(-len(form), 1)
        if kind == b"data":
            if size == _SEE_DS64 and long_size:
                _check_data(source, file.tell(), long_size, bytes_a_second, findings)
            elif 0 < size < _UNKNOWN_LENGTH:
                _check_data(source, file.tell(), size, bytes_a_second, findings)
            break
        if kind == b"fmt " and size >= 12:
            form = file.read(12)
            bytes_a_second = int.from_bytes(form[8:12], "little")
            file.seek(-len(form), 1)
        file.seek(size + size % 2, 1)
    file.seek(0)


def missing_bytes(bytes_a_second: int) -> int:
    """Return by how many bytes the length of a file may differ from its header without a warning.
    ``bytes_a_second`` is how many bytes a second of its sound has: the result is 0.02 s of it, at
    least 128 and at most 4096; 4096 where ``bytes_a_second`` is 0, which means that it is not
    known."""
    if not bytes_a_second:
        return _MOST_BYTES
    return max(_LEAST_BYTES, min(_MOST_BYTES, round(_MISSING_S * bytes_a_second)))


def _check_data(
    source: Source, start: int, size: int, bytes_a_second: int, findings: Findings
) -> None:
    there = source.size_bytes - start
    least = missing_bytes(bytes_a_second)
    if size - there > max(least, _MISSING_SHARE * size):
        findings.damage(
            f"truncated{_at(there, bytes_a_second)}: {there} of {size} bytes of samples are there"
        )
    behind = _bytes_behind(source, start + size + size % 2)
    if behind > least:
        findings.note(
            f"the header counts {size} bytes of samples, and {behind} bytes more follow"
            f"{_at(size, bytes_a_second)}, which are not heard; "
            "WAV files that were put together with cat look like this"
        )


def _bytes_behind(source: Source, offset: int) -> int:
    """How many bytes follow that are not chunks of this file."""
    file = source.file
    while offset + 8 <= source.size_bytes:
        file.seek(offset)
        kind, size = struct.unpack("<4sI", file.read(8))
        if (
            kind in (b"RIFF", b"RF64", b"data")
            or not kind.isascii()
            or offset + 8 + size > source.size_bytes
        ):
            break
        if not kind.decode("ascii").isprintable():
            break
        offset += 8 + size + size % 2
    return max(0, source.size_bytes - offset)


def _at(size_bytes: int, bytes_a_second: int) -> str:
    return f" at {size_bytes / bytes_a_second:.2f} s" if bytes_a_second else ""
