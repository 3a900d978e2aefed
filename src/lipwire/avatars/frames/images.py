"""One image file's bytes to pixels, with a clear reason where that cannot be done.

The size is read from the header and the file is checked for its end before anything is decoded: a
truncated JPEG decodes to grey without an error, and a forged header could ask for gigabytes.
PNG: https://www.w3.org/TR/png-3/#5DataRep. JPEG: ITU-T T.81, annex B.
"""

from pathlib import Path
from typing import Final

import cv2
import numpy as np

from lipwire.domain import AvatarInvalid, UInt8Array
from lipwire.domain.filekinds import kind_hint

MAX_SIDE_PX: Final = 8192
"""Twice 4K; a frame of that size takes 200 MB while it is compiled."""

MAX_FILE_BYTES: Final = 256 * 1024 * 1024
"""Room for the largest frame without compression."""

_PNG_MAGIC: Final = b"\x89PNG\r\n\x1a\n"
_JPEG_MAGIC: Final = b"\xff\xd8\xff"
_START_OF_FRAME: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_START_OF_SCAN: Final = 0xDA
_END_OF_IMAGE: Final = b"\xff\xd9"
_WITHOUT_LENGTH: Final = frozenset({0x01, *range(0xD0, 0xD9)})


def image_size(data: bytes, label: str) -> tuple[int, int]:
    """Return (width, height) in pixels of a PNG or JPEG file, of which ``data`` is all bytes.

    It is not turned as EXIF says. Raises AvatarInvalid where it is of neither format, cut off, or
    has a side outside 1..8192; ``label`` names the file at the beginning of the message.
    """
    if not data:
        raise AvatarInvalid(f"{label} is empty; it has to be a PNG or JPEG image")
    if data.startswith(_PNG_MAGIC):
        size = _png_size(data)
    elif data.startswith(_JPEG_MAGIC):
        size = _jpeg_size(data)
    else:
        raise AvatarInvalid(
            f"{label} begins with {data[:4]!r}; it has to be a PNG or JPEG image{kind_hint(data)}"
        )
    if size is None:
        raise AvatarInvalid(f"{label} is cut off or damaged after {len(data)} bytes")
    if not (1 <= size[0] <= MAX_SIDE_PX and 1 <= size[1] <= MAX_SIDE_PX):
        raise AvatarInvalid(
            f"{label} is {size[0]}x{size[1]}; each side has to be 1 to {MAX_SIDE_PX} pixels"
        )
    return size


def decode_image(data: bytes, label: str) -> UInt8Array:
    """Decode an image file to (height, width, 3) uint8 BGR.

    ``data`` is all bytes of the file. It is turned as its EXIF orientation says; 16 bits become 8,
    grey and palettes become colours, and alpha is dropped. Raises AvatarInvalid where it is neither
    PNG nor JPEG, cut off or damaged, or has a side over 8192 pixels; ``label`` names the file at
    the beginning of the message.
    """
    width, height = image_size(data, label)
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        pixels = None
    # The stubs promise an array; a broken file gives None. Orientations 5 to 8 are lying pictures.
    if pixels is None or pixels.shape not in ((height, width, 3), (width, height, 3)):
        raise AvatarInvalid(f"{label} cannot be decoded; it is damaged")
    return np.asarray(pixels, np.uint8)


def read_image(path: Path, label: str) -> UInt8Array:
    """Read the PNG or JPEG file at ``path`` and return its pixels, (height, width, 3) uint8 BGR,
    turned as its EXIF orientation says; 16 bits become 8, grey and palettes become colours, and
    alpha is dropped. Raises AvatarInvalid where it cannot be read, has more than 256 MiB or a side
    over 8192 pixels, is neither PNG nor JPEG, or is cut off or damaged; ``label`` names it at the
    beginning of the message."""
    try:
        size_bytes = path.stat().st_size
        if size_bytes > MAX_FILE_BYTES:
            raise AvatarInvalid(
                f"{label} has {size_bytes} bytes; at most {MAX_FILE_BYTES} are read"
            )
        data = path.read_bytes()
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise AvatarInvalid(f"{label} cannot be read; {reason}") from error
    return decode_image(data, label)


def _png_size(data: bytes) -> tuple[int, int] | None:
    if data[12:16] != b"IHDR":
        return None
    position = len(_PNG_MAGIC)
    while position + 12 <= len(data):
        length = int.from_bytes(data[position : position + 4])
        if length > len(data) - position - 12:
            return None  # OpenCV takes memory for what a chunk says, before it looks for it
        if data[position + 4 : position + 8] == b"IEND":
            return int.from_bytes(data[16:20]), int.from_bytes(data[20:24])
        position += 12 + length
    return None


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    size = None
    position = 2
    while position + 4 <= len(data):
        if data[position] != 0xFF:
            return None
        marker = data[position + 1]
        if marker == 0xFF:  # fill bytes may stand before a marker
            position += 1
            continue
        if marker in _WITHOUT_LENGTH:
            position += 2
            continue
        if marker in _START_OF_FRAME:
            size = (
                int.from_bytes(data[position + 7 : position + 9]),
                int.from_bytes(data[position + 5 : position + 7]),
            )
        if marker == _START_OF_SCAN:
            # Inside a scan 0xFF is always followed by 0x00 or a restart marker.
            return size if data.find(_END_OF_IMAGE, position) >= 0 else None
        position += 2 + int.from_bytes(data[position + 2 : position + 4])
    return None
