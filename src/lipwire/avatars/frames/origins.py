"""Where each frame that an avatar shows comes from, so that it can be decoded again."""

import zlib
from bisect import bisect_right
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from lipwire.avatars.compiled.container import Container, ContainerDamagedError, ContainerWriter
from lipwire.avatars.frames.videoframes import Damage
from lipwire.domain import UInt8Array

_ROWS_APART: Final = 16
"""No larger than a macroblock, of which each damaged one is then seen."""


@dataclass(slots=True)
class Origins:
    """Which frames an avatar shows, 25 a second, of those of its source, a folder of images or a
    video, and how they are found in it. Frames are counted from 0. It is filled frame by frame
    while an avatar is compiled (``frameloading``, ``compile_avatar``), stored with it, and read
    back when it is opened. Not thread-safe while it is filled.

    For each frame that is shown, ``shown`` has the number of its source frame, never falling, and
    ``sums`` the checksum of its pixels (``frame_sum``). Of a video, ``times`` has for each source
    frame the time stamp to seek it by (``VideoFrame.mark``), ``keys`` the numbers of the key
    frames, with which decoding can begin, and ``damage`` what could not be decoded. ``sources`` is
    how many source frames there are.
    """

    shown: list[int] = field(default_factory=list)
    """For each frame that is shown, the number of its source frame; never falling."""
    sums: list[int] = field(default_factory=list)
    """For each frame that is shown, ``frame_sum`` of its pixels."""
    times: list[int | None] = field(default_factory=list)
    """For each source frame of a video, what to seek it by; of images there are none."""
    keys: list[int] = field(default_factory=list)
    """Numbers of the source frames of a video with which decoding can begin, rising."""
    sources: int = 0
    damage: Damage = field(default_factory=Damage)
    """What of a video could not be decoded."""

    @property
    def resampled(self) -> bool:
        """False where each source frame is shown exactly once, in order; else True. Valid once
        ``shown`` and ``sources`` are complete."""
        return self.shown != list(range(self.sources))

    def key_before(self, source: int) -> int:
        """Return the number of the source frame with which decoding has to begin to get to source
        frame ``source``: the last one in ``keys`` that is not after it, 0 where there is none."""
        place = bisect_right(self.keys, source)
        return self.keys[place - 1] if place else 0

    def write(self, writer: ContainerWriter) -> None:
        """Write this with ``writer`` as sections of a container, for ``read``; the container's
        ``finish`` is left to the caller. Times are left out where one is not known or they are not
        unique."""
        known = [time for time in self.times if time is not None]
        sought = len(known) == len(self.times) and len(set(known)) == len(known)
        writer.array("shown", np.array(self.shown, np.int64))
        writer.array("sums", np.array(self.sums, np.int64))
        writer.array("times", np.array(known if sought else [], np.int64))
        writer.array("keys", np.array(self.keys, np.int64))
        writer.array("sources", np.array([self.sources], np.int64))
        writer.array("damaged", np.array(self.damage.frames, np.int64))
        writer.array("lost", np.array([self.damage.lost], np.int64))

    @classmethod
    def read(cls, container: Container, count: int) -> "Origins":
        """Return what ``write`` wrote into ``container``, of an avatar that shows ``count`` frames.

        Raises ContainerDamagedError where the sections do not fit each other.
        """
        shown, sums, times, keys, sources, damaged, lost = (
            container.array(name).ravel().tolist()
            for name in ("shown", "sums", "times", "keys", "sources", "damaged", "lost")
        )
        sound = (
            len(shown) == len(sums) == count
            and len(sources) == len(lost) == 1
            and all(0 <= number < sources[0] for number in (*shown, *keys, *damaged))
            and len(times) in (0, sources[0])
            and shown == sorted(shown)
            and keys == sorted(keys)
        )
        if not sound:
            raise ContainerDamagedError(f"{container.path.name} has tables that do not add up")
        return cls(shown, sums, times, keys, sources[0], Damage(damaged, lost[0]))


def frame_sum(pixels: UInt8Array) -> int:
    """Return the CRC-32 of every 16th row of ``pixels``, (height, width, 3) uint8.

    It tells a frame from another one, and from one that was damaged in decoding.
    """
    return zlib.crc32(pixels[::_ROWS_APART].tobytes())
