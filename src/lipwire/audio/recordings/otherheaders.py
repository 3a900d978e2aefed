"""What the headers of W64 and CAF files say about their length.

FFmpeg guesses the length of such files by all that there is, and takes a second CAF file behind the
first for a damaged part of it.

W64: chunks of a GUID of 16 bytes, a 64-bit size that counts these 24 bytes, and the data, padded to
a multiple of 8. The first one, "riff", is the whole file, and "wave" follows without a size. CAF
(Apple Core Audio Format Specification 1.0): eight bytes, then chunks of four letters, a 64-bit size
in network order (-1 for "data": to the end of the file), and the data.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final, cast

from lipwire.audio.recordings.findings import Findings
from lipwire.audio.recordings.source import Part, Source
from lipwire.audio.recordings.wav import missing_bytes

_W64: Final = bytes.fromhex("726966662e91cf11a5d628db04c10000")
_W64_WAVE: Final = bytes.fromhex("77617665f3acd3118cd100c04f8edb8a")
_CAF: Final = b"caff\x00\x01\x00\x00"
_CHUNKS: Final = 256


@dataclass(frozen=True, slots=True)
class _Chunk:
    kind: bytes  # four letters
    start: int  # of its data, bytes from the beginning of the file
    size: int  # of its data
    end: int  # where the next one begins


def without_rest(source: Source, findings: Findings) -> Source:
    """Return ``source`` without what follows the sound that its header counts, where it is a W64 or
    CAF file that contains more: a new source, which reads from the same file. A warning about the
    rest is then added to ``findings``. In every other case ``source`` itself is returned. The
    position of ``source.file`` is changed."""
    file = source.file
    file.seek(0)
    header = file.read(40)
    if header.startswith(_W64) and header[24:] == _W64_WAVE:
        name, chunks = "W64", _w64_chunks(source)
    elif header.startswith(_CAF):
        name, chunks = "CAF", _caf_chunks(source)
    else:
        return source
    bytes_a_second = data_bytes = end = 0
    for chunk in chunks:
        if chunk.kind == b"fmt ":  # 8: average bytes a second (WAVEFORMATEX)
            file.seek(chunk.start + 8)
            bytes_a_second = int.from_bytes(file.read(4), "little")
        elif chunk.kind == b"desc":
            bytes_a_second = _caf_bytes_a_second(file, chunk.start)
        elif chunk.kind == b"data":
            data_bytes = chunk.size
        end = chunk.end
    behind = source.size_bytes - end
    if not data_bytes or behind <= missing_bytes(bytes_a_second):
        return source
    at = f" at {data_bytes / bytes_a_second:.2f} s" if bytes_a_second else ""
    findings.note(
        f"the header counts {data_bytes} bytes of samples, and {behind} bytes more follow{at},"
        f" which are not heard; {name} files that were put together with cat look like this"
    )
    return Source(source.name, cast(BinaryIO, Part(file, 0, end)), end)


def _w64_chunks(source: Source) -> Iterator[_Chunk]:
    at = 40
    for _ in range(_CHUNKS):
        source.file.seek(at)
        header = source.file.read(24)
        size = int.from_bytes(header[16:24], "little")
        end = at + -(-size // 8) * 8
        kind = header[:4]
        if not _fits(source, kind, size >= 24, at + size):
            return
        yield _Chunk(kind, at + 24, size - 24, min(end, source.size_bytes))
        at = end


def _caf_chunks(source: Source) -> Iterator[_Chunk]:
    at = 8
    for _ in range(_CHUNKS):
        source.file.seek(at)
        header = source.file.read(12)
        kind, size = header[:4], int.from_bytes(header[4:12], "big", signed=True)
        if size < 0 and kind == b"data":
            size = source.size_bytes - at - 12
        if not _fits(source, kind, size >= 0, at + 12 + size):
            return
        yield _Chunk(kind, at + 12, size, at + 12 + size)
        at += 12 + size


def _fits(source: Source, kind: bytes, sized: bool, end: int) -> bool:
    """Whether such a chunk belongs to the file, and does not begin another one."""
    text = kind.decode("latin-1")
    known = len(kind) == 4 and text.isascii() and text.isprintable()
    return known and kind not in (b"riff", b"caff") and sized and end <= source.size_bytes


def _caf_bytes_a_second(file: BinaryIO, start: int) -> int:
    """By the chunk "desc": rate, format, flags, bytes and samples in a packet; 0 where that
    varies."""
    file.seek(start)
    form = file.read(24)
    if len(form) < 24:
        return 0
    rate_hz: float = struct.unpack(">d", form[:8])[0]
    packet_bytes = int.from_bytes(form[16:20], "big")
    packet_samples = int.from_bytes(form[20:24], "big")
    if not (packet_bytes and packet_samples and 0 < rate_hz < 1e7):
        return 0
    return round(rate_hz * packet_bytes / packet_samples)
