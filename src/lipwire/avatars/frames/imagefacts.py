"""What an image file says of its pixels beside them: orientation, alpha, depth.

EXIF: CIPA DC-008, 4.5.4 and 4.6.4. PNG: https://www.w3.org/TR/png-3/, 11.2.1 and 11.3.4.4. JPEG:
ITU-T T.81, annex B.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

_PNG_MAGIC: Final = b"\x89PNG\r\n\x1a\n"
_EXIF_MAGIC: Final = b"Exif\0\0"
_APP1: Final = 0xE1
_START_OF_SCAN: Final = 0xDA
_ORIENTATION: Final = 0x0112
_PNG_ALPHA: Final = frozenset({4, 6})
"""Colour types that have alpha of their own."""


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What the headers of an image file say: its EXIF ``orientation``, 1 to 8, where 1 is upright;
    whether pixels may be transparent (``alpha``); and how many ``bits`` each channel has."""

    orientation: int
    """1 to 8 as EXIF counts; 1 is upright."""
    alpha: bool
    """Whether pixels may be transparent."""
    bits: int
    """Bits of each channel."""


def image_facts(data: bytes) -> ImageFacts:
    """Return the EXIF orientation, alpha and bit depth that the headers of a PNG or JPEG file say,
    without decoding it.

    ``data`` is the whole file. What is missing or cannot be read is as if it were the usual:
    orientation 1, no alpha, 8 bits. Nothing is raised, whatever ``data`` is.
    """
    if data.startswith(_PNG_MAGIC):
        return _png_facts(data)
    exif = next((each for marker, each in _segments(data) if marker == _APP1), b"")
    is_exif = exif.startswith(_EXIF_MAGIC)
    return ImageFacts(_orientation(exif[len(_EXIF_MAGIC) :]) if is_exif else 1, False, 8)


def _png_facts(data: bytes) -> ImageFacts:
    orientation, alpha, bits = 1, False, 8
    position = len(_PNG_MAGIC)
    while position + 12 <= len(data):
        length = int.from_bytes(data[position : position + 4])
        kind, content = data[position + 4 : position + 8], data[position + 8 :][:length]
        if kind == b"IHDR" and len(content) >= 10:
            bits, alpha = content[8], content[9] in _PNG_ALPHA
        elif kind == b"tRNS":
            alpha = True
        elif kind == b"eXIf":
            orientation = _orientation(content)
        position += 12 + length
    return ImageFacts(orientation, alpha, bits)


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(marker, content) of a JPEG's segments before its first scan; EXIF alone of APP1's uses."""
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # fill bytes may stand before a marker
            position += 1
            continue
        if marker == _START_OF_SCAN:
            return
        length = int.from_bytes(data[position + 2 : position + 4])
        content = data[position + 4 : position + 2 + length]
        if marker != _APP1 or content.startswith(_EXIF_MAGIC):
            yield marker, content
        position += 2 + max(length, 2)


def _orientation(tiff: bytes) -> int:
    """The orientation in the first directory of EXIF's TIFF; 1 where there is none."""
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, start)
        for entry in range(count):
            tag, _, _, value = struct.unpack_from(f"{order}HHIH", tiff, start + 2 + 12 * entry)
            if tag == _ORIENTATION:
                return value if 1 <= value <= 8 else 1
    except struct.error:  # cut off
        pass
    return 1
