"""The crops of a batch, and where on a device they are."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Final

import numpy.typing as npt

from lipwire.domain import UInt8Array
from lipwire.engine.forms import PIXELS_SHAPE
from lipwire.engine.gpu.memory.devicememory import Region

CROP_BYTES: Final = prod(PIXELS_SHAPE)


@dataclass(frozen=True, slots=True)
class CropPlace:
    """Where the crop of a frame, (320, 320, 3) uint8, is on the device, or is to be copied to:
    ``start_bytes`` from the beginning of ``region``. ``there`` says whether it has been copied."""

    region: Region
    """A block's: copies do not reach from one into another."""
    start_bytes: int
    there: bool

    @property
    def address(self) -> int:
        """Address of the crop on the device."""
        return self.region.address + self.start_bytes

    def behind(self, crops: int) -> "CropPlace":
        """Return the place that is ``crops`` crops after this one in the same region, with the same
        ``there``."""
        return CropPlace(self.region, self.start_bytes + crops * CROP_BYTES, self.there)


@dataclass(frozen=True, slots=True)
class Face:
    """The crop of one frame of a batch: its ``place`` on the device, None where it is not kept
    there; and its ``pixels``, (320, 320, 3) uint8, to be copied to the device, None where the crop
    is there already."""

    place: CropPlace | None
    pixels: UInt8Array | None

    @property
    def there(self) -> bool:
        """Whether the crop is on the device, so that ``pixels`` need not be copied there."""
        return self.place is not None and self.place.there


Faces = npt.NDArray[Any] | Sequence[Face]
"""The faces of a batch: all their pixels, or for each where its crop is."""


def stretches(faces: Sequence[Face]) -> Iterator[tuple[int, CropPlace, int]]:
    """Yield groups of consecutive faces whose places on the device are consecutive too, so that one
    copy is enough for each group.

    Each group is (index of its first face in ``faces``, place of that face, number of faces). Faces
    without a place are left out.
    """
    first, begin, frames = 0, None, 0
    for index, face in enumerate(faces):
        place = face.place
        if place is not None and begin is not None and place == begin.behind(frames):
            frames += 1
            continue
        if begin is not None:
            yield first, begin, frames
        first, begin, frames = index, place, 1
    if begin is not None:
        yield first, begin, frames
