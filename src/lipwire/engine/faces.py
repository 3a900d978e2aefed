"""What a network is shown of its avatar, and where on a device it is."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Final, Protocol

import numpy.typing as npt

from lipwire.domain import UInt8Array
from lipwire.engine.memory import Region
from lipwire.engine.wrapping import PIXELS_SHAPE

CROP_BYTES: Final = prod(PIXELS_SHAPE)


class Frames(Protocol):
    """What a network may be shown of its avatar. Thread-safe."""

    @property
    def frame_count(self) -> int: ...

    def crop(self, index: int) -> UInt8Array:
        """What it sees of frame ``index``: (320, 320, 3) uint8. May raise."""
        ...


@dataclass(frozen=True, slots=True)
class Place:
    """Where a crop is on the device, or is to be kept."""

    region: Region
    """A block's: copies do not reach from one into another."""
    start_bytes: int
    there: bool

    @property
    def address(self) -> int:
        return self.region.address + self.start_bytes

    def behind(self, crops: int) -> "Place":
        """What is so many crops further on."""
        return Place(self.region, self.start_bytes + crops * CROP_BYTES, self.there)


@dataclass(frozen=True, slots=True)
class Face:
    """One frame of a batch. What is not ``there`` has its pixels, (320, 320, 3) uint8."""

    place: Place | None
    pixels: UInt8Array | None

    @property
    def there(self) -> bool:
        return self.place is not None and self.place.there


Faces = npt.NDArray[Any] | Sequence[Face]
"""Of a batch: all their pixels, or for each where they are."""


def stretches(faces: Sequence[Face]) -> Iterator[tuple[int, Place, int]]:
    """Faces with places that one copy will do for: the first one's index, its place, how many."""
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
