"""The picture's measures, and its pixels: laid over each other, read and written.

Pixels are (height, width, 3) uint8 BGR, or (height, width, 4) with straight alpha, as OpenCV's.
"""

from pathlib import Path
from typing import Final

import cv2
import numpy as np

from lipwire.domain import CropRect, InvalidInput, NotFound, UInt8Array
from lipwire.domain.newfiles import write_file

WIDTH_PX: Final = 1280
HEIGHT_PX: Final = 720
WHOLE: Final = CropRect(0, 0, WIDTH_PX, HEIGHT_PX)
RECT_PX: Final = 240
"""Side of the crop rectangle."""

HEAD_LEFT_PX: Final = 222
HEAD_UP_PX: Final = 405
HEAD_RIGHT_PX: Final = 222
HEAD_DOWN_PX: Final = 165
"""From the middle of the crop rectangle: the box of all that moves in the idle loop."""
FADE_PX: Final = 28
"""Height of the rows at the box's lower edge in which the moving neck fades into the still body."""

PNG_COMPRESSION: Final = 4


def head_box(rect: CropRect) -> CropRect:
    """The part of the picture that is rendered for every frame; ``rect`` is its crop rectangle."""
    x, y = (rect.x1 + rect.x2) // 2, (rect.y1 + rect.y2) // 2
    return CropRect(
        max(x - HEAD_LEFT_PX, 0),
        max(y - HEAD_UP_PX, 0),
        min(x + HEAD_RIGHT_PX, WIDTH_PX),
        min(y + HEAD_DOWN_PX, HEIGHT_PX),
    )


def cut(picture: UInt8Array, box: CropRect) -> UInt8Array:
    """The pixels of ``picture`` in ``box``; a view."""
    return picture[box.y1 : box.y2, box.x1 : box.x2]


def over(front: UInt8Array, back: UInt8Array) -> UInt8Array:
    """``front`` (h, w, 4) with straight alpha over ``back`` (h, w, 3): (h, w, 3)."""
    alpha = front[..., 3:].astype(np.float32) / 255
    mixed = front[..., :3] * alpha + back * (1 - alpha)
    return np.asarray(mixed + 0.5, dtype=np.uint8)


def faded_into(still: UInt8Array, fresh: UInt8Array, box: CropRect) -> UInt8Array:
    """A copy of ``still`` with ``fresh`` in ``box``, its lowest `FADE_PX` rows faded out."""
    picture = still.copy()
    ramp = np.clip((box.height - 1 - np.arange(box.height)) / FADE_PX, 0, 1)[:, None, None]
    mixed = fresh * ramp + cut(still, box) * (1 - ramp) + 0.5
    cut(picture, box)[:] = mixed.astype(np.uint8)
    return picture


def read_picture(path: Path, box: CropRect = WHOLE, channels: int = 3) -> UInt8Array:
    """Read a picture of the size of ``box``.

    Raises `NotFound` where there is no file, and `InvalidInput` where it is damaged or of another
    size.
    """
    if not path.is_file():
        raise NotFound(f"{path} is missing")
    try:
        data = np.fromfile(path, np.uint8)
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}") from error
    flag = cv2.IMREAD_UNCHANGED if channels == 4 else cv2.IMREAD_COLOR
    picture = cv2.imdecode(data, flag) if data.size else None
    if picture is None:
        raise InvalidInput(f"{path} is not a picture, or damaged")
    if picture.dtype != np.uint8 or picture.shape != (box.height, box.width, channels):
        shape = "x".join(str(n) for n in picture.shape)
        raise InvalidInput(
            f"{path} is {shape} {picture.dtype} (height x width x channels); "
            f"{box.height}x{box.width}x{channels} uint8 is needed"
        )
    return np.asarray(picture, np.uint8)


def save_png(path: Path, pixels: UInt8Array) -> None:
    """Write ``pixels`` to ``path``: a file that is there is whole. Raises `StorageFailed`."""
    _, data = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, PNG_COMPRESSION])
    write_file(path, data.tobytes())
