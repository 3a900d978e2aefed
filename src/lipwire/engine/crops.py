"""Crops of avatars' frames, kept on a device, so that a request brings numbers instead of pixels.

    uploaded ──────────▶ the lane's input ──▶ the network
                            │        ▲
          on its first use  ▼        │  from then on: a copy within the device
                            the crop's place

A crop is kept when it is first used. Who uses it has to upload it anyway, so keeping it costs one
more copy within the device (0.3 MB at 4 TB/s: 0.15 µs), and what nobody looks at takes no room.
Places come in blocks of consecutive frames: an avatar is walked through back and forth, and
neighbours are copied together.

Crops are a convenience. They take what weights leave, are given up first when weights or runs need
room, and where there is none for them they are uploaded each time.
"""

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from lipwire.domain.eviction import NEVER_USED, Policy, Worths
from lipwire.engine.budget import Budget
from lipwire.engine.faces import CROP_BYTES, Place
from lipwire.engine.memory import DeviceOutOfMemory, Memory, Region
from lipwire.engine.room import Room

BLOCK_FRAMES: Final = 20
"""0.8 s of a walk in 6.14 MB. CUDA gives memory out in pages of 2 MiB, of which this leaves 2 %
empty; 13 frames would leave 5 %, single frames 12 % and three times the calls."""


class _Block:
    """Places of consecutive frames."""

    __slots__ = ("coming", "region", "there")

    def __init__(self, region: Region) -> None:
        self.region: Final = region
        self.there: set[int] = set()
        """Frames whose crops are in place."""
        self.coming: set[int] = set()
        """Frames whose crops somebody is copying there."""

    def place(self, number: int, *, there: bool) -> Place:
        return Place(self.region, number % BLOCK_FRAMES * CROP_BYTES, there)


class AvatarCrops:
    """What is kept of one avatar. Belongs to its ``Crops``."""

    __slots__ = ("blocks", "closed", "frames", "users", "worth")

    def __init__(self, frames: int) -> None:
        self.frames: Final = frames
        self.blocks: dict[int, _Block] = {}
        """By number: block 0 has the first frames. Those made first come first."""
        self.worth = NEVER_USED
        self.users = 0
        self.closed = False


@dataclass(frozen=True, slots=True)
class CropStats:
    """Counts since the start, and bytes now."""

    device_bytes: int
    blocks: int
    avatars: int
    """Of which anything is kept."""
    hits: int
    """Frames of requests that were on the device."""
    misses: int
    """Frames that were uploaded."""
    evictions: int
    """Blocks given up."""


class Crops:
    """The crops that one device keeps. Thread-safe.

    with crops.use(of_avatar, numbers) as places:
        ...  # copy from places that are there, to those that are not; nothing takes them away
    """

    def __init__(
        self,
        memory: Memory,
        budget: Budget,
        *,
        most_bytes: int | None = None,
        spare_bytes: int = 0,
        policy: Policy = "lfu",
    ) -> None:
        """At most ``most_bytes``, out of what others leave of ``budget``, and only while the device
        has ``spare_bytes`` left besides."""
        self._memory = memory
        self._room = Room(memory, budget, most_bytes=most_bytes)
        self._spare_bytes = spare_bytes
        self._worths = Worths(policy)
        self._changed = threading.Condition()
        self._avatars: set[AvatarCrops] = set()
        """Those with blocks."""
        self._removed: deque[AvatarCrops] = deque()
        self._users = 0
        self._away = 0
        """How many want nothing kept at the moment."""
        self._hits = self._misses = self._evictions = 0
        self._closed = False

    @property
    def keeps_any(self) -> bool:
        """Whether there is room for crops at all."""
        return self._room.most_bytes >= CROP_BYTES

    @property
    def device_bytes(self) -> int:
        """What crops take now."""
        return self._room.taken_bytes

    def add(self, frames: int) -> AvatarCrops:
        """An avatar of so many frames. Nothing of it is kept yet."""
        return AvatarCrops(frames)

    def unload(self, avatar: AvatarCrops) -> None:
        """Give up what is kept of ``avatar``: at once, or when its last user leaves."""
        with self._changed:
            self.remove(avatar)
            self._sweep()

    def remove(self, avatar: AvatarCrops) -> None:
        """As ``unload``, at the next use of anything.

        May be called by a garbage collection, in the middle of whatever: it takes no lock.
        """
        avatar.closed = True
        self._removed.append(avatar)

    def missing(self, avatar: AvatarCrops, numbers: Sequence[int]) -> list[int]:
        """Those of ``numbers``, each once, whose crops are not there at this moment."""
        with self._changed:
            return [number for number in dict.fromkeys(numbers) if not _has(avatar, number)]

    @contextmanager
    def use(self, avatar: AvatarCrops, numbers: Sequence[int]) -> Iterator[list[Place | None]]:
        """Places for the crops of ``numbers`` (0 up to the number of frames); None for what is not
        kept.

        Into each place that is not ``there`` its crop is to be copied, by the end of the block if
        that ends without an error. Copies have been waited for when it ends, with an error too.
        Raises DeviceLost.
        """
        places = self._enter(avatar, numbers)
        if places is None:
            yield [None] * len(numbers)
            return
        whole = False
        try:
            yield places
            whole = True
        finally:
            with self._changed:
                self._leave(avatar, numbers, places, kept=whole)

    def give_up(self, size_bytes: int) -> int:
        """Free ``size_bytes`` of the device for something else, or more; how many it are.

        They may be fewer, for what is in use stays.
        """
        with self._changed:
            self._sweep()
            freed_bytes = 0
            while freed_bytes < size_bytes:
                region = self._evict_one()
                if region is None:
                    break
                self._room.free(region)
                freed_bytes += region.size_bytes
            return freed_bytes

    @contextmanager
    def out_of_the_way(self) -> Iterator[None]:
        """Nothing is kept within the block. Waits for uses under way: not to be called within
        one."""
        with self._changed:
            self._away += 1
            self._changed.wait_for(lambda: not self._users)
        try:
            self.give_up(self._room.taken_bytes)
            yield
        finally:
            with self._changed:
                self._away -= 1

    def stats(self) -> CropStats:
        with self._changed:
            self._sweep()
            return CropStats(
                self._room.taken_bytes,
                self._room.items,
                len(self._avatars),
                self._hits,
                self._misses,
                self._evictions,
            )

    def close(self) -> None:
        """Give everything up. Waits for uses under way; later ones find nothing kept."""
        with self._changed:
            self._closed = True
            self._changed.wait_for(lambda: not self._users)
            for avatar in list(self._avatars):
                self._drop(avatar)
            self._removed.clear()

    # -- all under the lock, but for _enter --------------------------------------------------------

    def _enter(self, avatar: AvatarCrops, numbers: Sequence[int]) -> list[Place | None] | None:
        with self._changed:
            self._sweep()
            if self._closed or self._away or avatar.closed or not self.keeps_any:
                self._misses += len(numbers)
                return None
            self._users += 1
            avatar.users += 1
            self._worths.holding(len(self._avatars))
            avatar.worth = self._worths.after_use(avatar.worth)
            places: list[Place | None] = []
            full = False
            try:
                for number in numbers:
                    block = avatar.blocks.get(number // BLOCK_FRAMES)
                    if block is None and not full:
                        block = self._new_block(avatar, number // BLOCK_FRAMES)
                        full = block is None
                    places.append(None if block is None else _place(block, number))
            except BaseException:
                self._leave(avatar, numbers, places, kept=False)
                raise
            hits = sum(place is not None and place.there for place in places)
            self._hits += hits
            self._misses += len(places) - hits
            return places

    def _leave(
        self,
        avatar: AvatarCrops,
        numbers: Sequence[int],
        places: Sequence[Place | None],
        *,
        kept: bool,
    ) -> None:
        for number, place in zip(numbers, places, strict=False):
            if place is not None and not place.there:
                block = avatar.blocks[number // BLOCK_FRAMES]
                block.coming.discard(number)
                if kept:
                    block.there.add(number)
        avatar.users -= 1
        self._users -= 1
        self._sweep()
        self._changed.notify_all()

    def _new_block(self, avatar: AvatarCrops, number: int) -> _Block | None:
        """Room for a block, taken from avatars that are worth less; None where there is none."""
        frames = min(BLOCK_FRAMES, avatar.frames - number * BLOCK_FRAMES)
        size_bytes = frames * CROP_BYTES
        spare: Region | None = None
        while not self._room.take(size_bytes):
            region = self._evict_one(below=avatar.worth)
            if region is None:
                if spare is not None:
                    self._room.free(spare)
                return None
            spare = self._room.recycled(spare, region, size_bytes)
        try:
            while spare is None and not self._is_spacious(size_bytes):
                region = self._evict_one(below=avatar.worth)
                if region is None:
                    break
                spare = self._room.recycled(spare, region, size_bytes)
            else:
                if spare is None:
                    spare = self._room.allocate(size_bytes)
        except DeviceOutOfMemory:
            pass
        finally:
            if spare is None:
                self._room.give_back(size_bytes)
        if spare is None:
            return None
        block = avatar.blocks[number] = _Block(spare)
        self._avatars.add(avatar)
        return block

    def _is_spacious(self, size_bytes: int) -> bool:
        return self._memory.free_bytes() >= size_bytes + self._spare_bytes

    def _evict_one(self, below: float = float("inf")) -> Region | None:
        """Take the oldest block off the least worthy avatar that nobody uses; None where none is
        worth less than ``below``."""
        idle = (avatar for avatar in self._avatars if not avatar.users and avatar.worth < below)
        victim = min(idle, key=lambda avatar: avatar.worth, default=None)
        if victim is None:
            return None
        block = victim.blocks.pop(next(iter(victim.blocks)))
        if not victim.blocks:
            self._avatars.discard(victim)
        self._evictions += 1
        self._room.give_back(block.region.size_bytes)
        return block.region

    def _drop(self, avatar: AvatarCrops) -> None:
        self._avatars.discard(avatar)
        while avatar.blocks:
            _, block = avatar.blocks.popitem()
            self._room.give_back(block.region.size_bytes)
            self._room.free(block.region)

    def _sweep(self) -> None:
        """Let go of what was removed and is idle."""
        for _ in range(len(self._removed)):
            avatar = self._removed.popleft()
            if avatar.users:
                self._removed.append(avatar)
            else:
                self._drop(avatar)


def _has(avatar: AvatarCrops, number: int) -> bool:
    block = avatar.blocks.get(number // BLOCK_FRAMES)
    return block is not None and number in block.there


def _place(block: _Block, number: int) -> Place | None:
    """Where ``number`` is or is to be; None where somebody else is copying it there."""
    if number in block.there:
        return block.place(number, there=True)
    if number in block.coming:
        return None
    block.coming.add(number)
    return block.place(number, there=False)
