"""Files that were put together from several: where each of them begins.

FFmpeg takes such a file for one damaged stream, or for its first part. Four formats are put
together with ``cat`` and allow it: MP3 (tags lie between the parts), Ogg (a chained stream), FLAC,
and MP4 in fragments, of which FFmpeg reads the samples of all parts in the order of their times.
"""

from collections.abc import Iterator
from itertools import islice
from typing import BinaryIO, Final

from lipwire.domain import InvalidInput

MAX_PARTS: Final = 10_000
"""Files that one file may be put together from."""
MAX_BOXES: Final = 1_000_000
"""Of an MP4 file, none in another: two, of some encoders five, for each fragment. In four hours,
the longest that is heard, fragments may so be as short as 72 ms."""

_CHUNK_BYTES: Final = 1 << 20
_LONGEST_HEADER_BYTES: Final = 64

_OGG_BEGINNING: Final = 2  # in a page's fifth byte: the first page of a stream (RFC 3533, 6)
_FLAC_BEGINNING: Final = b"fLaC\x00\x00\x00\x22"  # STREAMINFO, 34 bytes, comes first (RFC 9639, 8)
_ID3V1_BYTES: Final = 128
_PADDING_BYTES: Final = 4096  # zeros that may follow a tag
_APE_IS_HEADER: Final = 1 << 29


def beginnings(file: BinaryIO, size_bytes: int, format_name: str) -> list[int]:
    """Return the offsets in bytes at which the files begin that were joined one behind the other
    (with ``cat``) to make ``file``. The first is 0, and mostly the only one.

    ``file`` is seekable, and its position is changed. ``size_bytes`` is its length, ``format_name``
    FFmpeg's name of the container. Each of the joined files can be decoded alone. Raises
    InvalidInput where there are more than 10,000, or an MP4 file has more than a million boxes; the
    message lacks the recording's name, which the caller puts in front.
    """
    found = [0, *islice(_further(file, size_bytes, format_name), MAX_PARTS)]
    if len(found) > MAX_PARTS:
        raise InvalidInput(
            f"was put together from more than {MAX_PARTS} files; allowed are up to {MAX_PARTS}"
        )
    return found


def _further(file: BinaryIO, size_bytes: int, format_name: str) -> Iterator[int]:
    if format_name == "ogg":
        yield from _ogg_links(file, size_bytes)
    elif format_name == "flac":
        yield from (at for at, _ in _occurrences(file, size_bytes, (_FLAC_BEGINNING,)) if at)
    elif "mp4" in format_name.split(","):
        yield from _mp4_parts(file, size_bytes)
    elif format_name == "mp3":
        yield from _mp3_parts(file, size_bytes)


def _ogg_links(file: BinaryIO, size_bytes: int) -> Iterator[int]:
    """First pages that come after other pages: a chained stream goes on there (RFC 3533, 4)."""
    beginning = True
    for at, header in _occurrences(file, size_bytes, (b"OggS\x00",)):
        begins = bool(header[5] & _OGG_BEGINNING) if len(header) > 5 else False
        if begins and not beginning:
            yield at
        beginning = begins


def _mp4_parts(file: BinaryIO, size_bytes: int) -> list[int]:
    """Where further files begin behind one in fragments, which has boxes "moof": with "ftyp", or
    with a "moov" of their own. Behind one that is whole nothing is played on (``behind``)."""
    starts: list[int] = []
    seen: set[bytes] = set()  # of the part at hand
    fragmented = False  # the first one
    for at, kind in _boxes(file, size_bytes):
        if kind in (b"ftyp", b"moov") and b"moov" in seen:
            starts.append(at)
            seen.clear()
        if kind in (b"ftyp", b"moov"):
            seen.add(kind)
        fragmented = fragmented or (kind == b"moof" and not starts)
    return starts if fragmented else []


def _boxes(file: BinaryIO, size_bytes: int) -> Iterator[tuple[int, bytes]]:
    """The boxes of an MP4 file that lie in no other (ISO/IEC 14496-12, 4.2): where, and which."""
    at = count = 0
    while at + 8 <= size_bytes:
        count += 1
        if count > MAX_BOXES:
            raise InvalidInput(
                f"is an MP4 file of more than {MAX_BOXES} boxes; allowed are up to {MAX_BOXES}"
            )
        header = _read_at(file, at, 16)
        size, kind = int.from_bytes(header[:4], "big"), header[4:8]
        if size == 1:
            size = int.from_bytes(header[8:16], "big")
        if size == 0:  # it reaches to the end
            size = size_bytes - at
        if size < 8:
            return
        yield at, kind
        at += size


def _mp3_parts(file: BinaryIO, size_bytes: int) -> Iterator[int]:
    """Where sound goes on behind tags. A part begins with its own ID3v2 tag, if it has one."""
    tags_begin = tags_end = 0  # tags that lie side by side
    begins: int | None = None
    for at, header in _occurrences(file, size_bytes, (b"ID3", b"TAG", b"APETAGEX")):
        if at < tags_end or not (size := tag_bytes(header)):
            continue  # part of a tag, or of the sound
        follows = _read_at(file, at + size, _PADDING_BYTES).lstrip(b"\0")
        if not (_is_frame(follows) or tag_bytes(follows)):
            continue
        if at > tags_end:
            tags_begin, begins = at, None
        if header.startswith(b"ID3") and begins is None:
            begins = at
        tags_end = at + size
        if tags_begin and _is_frame(follows):
            yield tags_end if begins is None else begins


def mp3_begins(file: BinaryIO, at: int) -> bool:
    """Return whether an ID3v2 tag begins at offset ``at`` of ``file``, and a frame of MPEG audio
    follows."""
    size = tag_bytes(_read_at(file, at, _LONGEST_HEADER_BYTES))
    return size > 0 and _is_frame(_read_at(file, at + size, _PADDING_BYTES).lstrip(b"\0"))


def tag_bytes(header: bytes) -> int:
    """Return the length in bytes of the ID3v2, ID3v1 or APEv2 tag whose first bytes, 24 or more,
    are ``header``; 0 where it is no tag.

    ID3v2 (id3.org, 2.4.0, 3.1): "ID3", version, flags, and a size of four times seven bits without
    the ten bytes before. APEv2: a size at 12 that counts the tag without its header.
    """
    if len(header) >= 10 and header.startswith(b"ID3"):
        sizes = header[6:10]
        if header[3] in (2, 3, 4) and header[4] < 0xFF and max(sizes) < 0x80:
            size = sizes[0] << 21 | sizes[1] << 14 | sizes[2] << 7 | sizes[3]
            return 10 + size + (10 if header[5] & 0x10 else 0)
    elif header.startswith(b"TAG"):
        return _ID3V1_BYTES
    elif len(header) >= 24 and header.startswith(b"APETAGEX"):
        size = int.from_bytes(header[12:16], "little")
        flags = int.from_bytes(header[20:24], "little")
        return 32 + size if flags & _APE_IS_HEADER else 32
    return 0


def _is_frame(header: bytes) -> bool:
    """Whether a frame of MPEG audio begins here (ISO/IEC 11172-3, 2.4.1.3)."""
    return (
        len(header) >= 4
        and header[0] == 0xFF
        and header[1] & 0xE0 == 0xE0
        and header[1] & 0x18 != 0x08  # the reserved version
        and header[1] & 0x06 != 0x00  # the reserved layer
        and header[2] & 0xF0 != 0xF0
        and header[2] & 0x0C != 0x0C
    )


def _occurrences(
    file: BinaryIO, size_bytes: int, words: tuple[bytes, ...]
) -> Iterator[tuple[int, bytes]]:
    """(offset, what stands there) of each of ``words`` in ``file``, in order."""
    for start in range(0, size_bytes, _CHUNK_BYTES):
        chunk = _read_at(file, start, _CHUNK_BYTES + _LONGEST_HEADER_BYTES)
        found = []
        for word in words:
            at = chunk.find(word)
            while 0 <= at < _CHUNK_BYTES:
                found.append(at)
                at = chunk.find(word, at + 1)
        for at in sorted(found):
            yield start + at, chunk[at : at + _LONGEST_HEADER_BYTES]


def _read_at(file: BinaryIO, offset: int, count: int) -> bytes:
    file.seek(offset)
    return file.read(count)
