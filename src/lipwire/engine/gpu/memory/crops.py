"""Crops of avatars' frames, kept on a device, so that a request brings numbers instead of pixels.

    uploaded ──────────▶ the stream's input ──▶ the network
                            │        ▲
          on its first use  ▼        │  from then on: a copy within the device
                            the crop's place

A crop is kept when it is first used. It has to be uploaded for that use anyway, so keeping it costs
one more copy within the device (0.3 MB at 4 TB/s: 0.15 µs), and frames that nobody asks for take no
room. Places come in blocks of consecutive frames: an avatar is walked through back and forth, and
neighbours are copied together.

Crops can always be uploaded again. They take what weights leave, are evicted first when weights or
runs need room, and where there is none for them they are uploaded each time.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from lipwire.engine.gpu.memory.budgetshare import BudgetShare
from lipwire.engine.gpu.memory.cropplaces import CROP_BYTES, CropPlace
from lipwire.engine.gpu.memory.devicebudget import DeviceBudget
from lipwire.engine.gpu.memory.devicememory import DeviceOutOfMemory, Memory, Region
from lipwire.engine.usage import CropStats
from lipwire.registry.eviction import NEVER_USED, PinnedItems, Policy

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

    def place(self, number: int, *, there: bool) -> CropPlace:
        return CropPlace(self.region, number % BLOCK_FRAMES * CROP_BYTES, there)


class AvatarCrops:
    """Stands for the crops of one avatar in the ``Crops`` that made it (``Crops.add``), and says
    which of them are on the device."""

    __slots__ = ("blocks", "closed", "frames", "pins", "worth")

    def __init__(self, frames: int) -> None:
        """The avatar has ``frames`` frames, and no crop is kept yet."""
        self.frames: Final = frames
        self.blocks: dict[int, _Block] = {}
        """By number: block 0 has the first frames. Those made first come first."""
        self.worth = NEVER_USED
        self.pins = 0
        self.closed = False


class Crops:
    """Keeps crops, the pictures of the face that networks are shown, on one device, so that a
    request brings frames' numbers in place of pixels. Thread-safe.

        with crops.use(of_avatar, numbers) as places:
            ...  # copy from places that are there, to those that are not; nothing takes them away
    """

    def __init__(
        self,
        memory: Memory,
        budget: DeviceBudget,
        *,
        most_bytes: int | None = None,
        spare_bytes: int = 0,
        policy: Policy = "lfu",
    ) -> None:
        """``memory`` is that of the device. Crops take at most ``most_bytes`` (None: no limit) and
        what others leave of ``budget``. New ones are kept only while the device has ``spare_bytes``
        free besides. ``policy`` says which avatar's crops are evicted first: "lru" those not used
        for longest, "lfu" those used least often."""
        self._memory = memory
        self._share = BudgetShare(memory, budget, most_bytes=most_bytes)
        self._spare_bytes = spare_bytes
        self._changed = threading.Condition()
        self._avatars: PinnedItems[AvatarCrops] = PinnedItems(policy)
        """Those with blocks."""
        self._away = 0
        """How many want nothing kept at the moment."""
        self._hits = self._misses = self._evictions = 0
        self._closed = False

    @property
    def keeps_any(self) -> bool:
        """Whether the most bytes that crops may take are enough for one crop; where they are not,
        nothing is ever kept."""
        return self._share.most_bytes >= CROP_BYTES

    @property
    def device_bytes(self) -> int:
        """Bytes of the device that crops take now: the places of all crops that are there, and of
        those that somebody is about to copy there."""
        return self._share.taken_bytes

    def add(self, frames: int) -> AvatarCrops:
        """Return an object for a new avatar of ``frames`` frames, of which no crop is kept yet. The
        caller passes the object to ``use``, and to ``unload`` or ``remove`` in the end."""
        return AvatarCrops(frames)

    def unload(self, avatar: AvatarCrops) -> None:
        """Evict the crops of ``avatar``: at once, or when their last user is done. From now on
        ``use`` gives only None for its crops. Raises DeviceLost where the device has failed."""
        with self._changed:
            self.remove(avatar)
            self._sweep()

    def remove(self, avatar: AvatarCrops) -> None:
        """Have the crops of ``avatar`` evicted later, the next time that crops of any avatar are
        used; from now on ``use`` gives only None for them.

        May be called during a garbage collection, in any thread: it takes no lock.
        """
        avatar.closed = True
        self._avatars.remove_later(avatar)

    def missing(self, avatar: AvatarCrops, numbers: Sequence[int]) -> list[int]:
        """Return those of the frame ``numbers`` of ``avatar``, each once, whose crops are not on
        the device at this moment."""
        with self._changed:
            return [number for number in dict.fromkeys(numbers) if not _has(avatar, number)]

    @contextmanager
    def use(self, avatar: AvatarCrops, numbers: Sequence[int]) -> Iterator[list[CropPlace | None]]:
        """Context manager: give the places of the crops of frames ``numbers`` on the device, in
        their order, and keep them for the block. A place is None where the crop is not kept, or is
        about to be copied there: by another caller, or to an earlier place of the same list.

        Each number is from 0 to the avatar's number of frames - 1. Into each place that is not
        ``there`` the caller has to copy the frame's crop before the block ends without an error,
        and in any case it has to wait in the block for all its copies. Raises DeviceLost where the
        device has failed.
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
        """Evict crops to free ``size_bytes`` of the device for something else, those of the least
        used avatars first; return how many bytes were freed.

        The result may be more than ``size_bytes``, or less, because crops in use stay. Raises
        DeviceLost where the device has failed.
        """
        with self._changed:
            self._sweep()
            freed_bytes = 0
            while freed_bytes < size_bytes:
                region = self._evict_one()
                if region is None:
                    break
                self._share.free(region)
                freed_bytes += region.size_bytes
            return freed_bytes

    @contextmanager
    def out_of_the_way(self) -> Iterator[None]:
        """Context manager: evict all crops, and keep none during the block, to leave the device's
        memory to something else.

        Waits for uses under way, so it must not be entered within one. Raises DeviceLost where the
        device has failed.
        """
        with self._changed:
            self._away += 1
            self._changed.wait_for(lambda: not self._avatars.pins)
        try:
            self.give_up(self._share.taken_bytes)
            yield
        finally:
            with self._changed:
                self._away -= 1

    def stats(self) -> CropStats:
        """Return how many crops are kept now, and how often they were found, uploaded and evicted
        since the start."""
        with self._changed:
            self._sweep()
            return CropStats(
                self._share.taken_bytes,
                self._share.items,
                len(self._avatars),
                self._hits,
                self._misses,
                self._evictions,
            )

    def close(self) -> None:
        """Evict all crops, once the uses under way are over. Later uses find nothing kept. Raises
        DeviceLost where the device has failed."""
        with self._changed:
            self._closed = True
            self._changed.wait_for(lambda: not self._avatars.pins)
            for avatar in list(self._avatars):
                self._drop(avatar)
            self._sweep()

    # -- all under the lock, but for _enter --------------------------------------------------------

    def _enter(self, avatar: AvatarCrops, numbers: Sequence[int]) -> list[CropPlace | None] | None:
        with self._changed:
            self._sweep()
            if self._closed or self._away or avatar.closed or not self.keeps_any:
                self._misses += len(numbers)
                return None
            self._avatars.pin(avatar)
            places: list[CropPlace | None] = []
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
        places: Sequence[CropPlace | None],
        *,
        kept: bool,
    ) -> None:
        for number, place in zip(numbers, places, strict=False):
            if place is not None and not place.there:
                block = avatar.blocks[number // BLOCK_FRAMES]
                block.coming.discard(number)
                if kept:
                    block.there.add(number)
        self._avatars.unpin(avatar)
        self._sweep()
        self._changed.notify_all()

    def _new_block(self, avatar: AvatarCrops, number: int) -> _Block | None:
        """Room for a block, taken from avatars that are worth less; None where there is none."""
        frames = min(BLOCK_FRAMES, avatar.frames - number * BLOCK_FRAMES)
        size_bytes = frames * CROP_BYTES
        spare: Region | None = None
        while not self._share.take(size_bytes):
            region = self._evict_one(below=avatar.worth)
            if region is None:
                if spare is not None:
                    self._share.free(spare)
                return None
            spare = self._share.recycled(spare, region, size_bytes)
        try:
            while spare is None and not self._is_spacious(size_bytes):
                region = self._evict_one(below=avatar.worth)
                if region is None:
                    break
                spare = self._share.recycled(spare, region, size_bytes)
            else:
                if spare is None:
                    spare = self._share.allocate(size_bytes)
        except DeviceOutOfMemory:
            pass
        finally:
            if spare is None:
                self._share.give_back(size_bytes)
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
        victim = self._avatars.victim(below)
        if victim is None:
            return None
        block = victim.blocks.pop(next(iter(victim.blocks)))
        if not victim.blocks:
            self._avatars.discard(victim)
        self._evictions += 1
        self._share.give_back(block.region.size_bytes)
        return block.region

    def _drop(self, avatar: AvatarCrops) -> None:
        self._avatars.discard(avatar)
        while avatar.blocks:
            _, block = avatar.blocks.popitem()
            self._share.give_back(block.region.size_bytes)
            self._share.free(block.region)

    def _sweep(self) -> None:
        """Evict what was removed and is not in use."""
        for avatar in self._avatars.removed():
            self._drop(avatar)


def _has(avatar: AvatarCrops, number: int) -> bool:
    block = avatar.blocks.get(number // BLOCK_FRAMES)
    return block is not None and number in block.there


def _place(block: _Block, number: int) -> CropPlace | None:
    """Where ``number`` is or is to be; None where somebody else is copying it there."""
    if number in block.there:
        return block.place(number, there=True)
    if number in block.coming:
        return None
    block.coming.add(number)
    return block.place(number, there=False)
