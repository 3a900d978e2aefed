"""How many of the latest frames were run for each tenant."""

import math
from collections import OrderedDict
from typing import Final

_MEMORY_FRAMES: Final = 800
"""A frame counts 1/e after so many more, of all tenants: 32 s of video."""
_FEW: Final = 0.02
"""A tenant with less than this part of all frames counts as a part of one."""
_REMEMBERED: Final = 1000
_LONGEST: Final = 20.0
_LARGEST_UNIT: Final = 1e100
"""Then all counts are made small again."""


class RecentFrames:
    """Counts the latest frames of tenants, and forgets them by and by, as others come. Not
    thread-safe."""

    def __init__(self) -> None:
        self._unit = 1.0
        """What the memory's frames count now. It grows, so that earlier ones count less."""
        self._all = 0.0
        self._of: OrderedDict[str, float] = OrderedDict()
        """By tenant; the one that had a frame last is last."""
        self._large: set[str] = set()
        self.tenants = 0.0
        """How many tenants the frames are of; those with less than 2 % each count as so many as
        would have 2 %. Not to be changed from outside."""

    @property
    def all(self) -> float:
        """The frames of all tenants: 800 at most."""
        return self._all / self._unit * _MEMORY_FRAMES

    def of(self, tenant: str) -> float:
        """Return how many of the frames are those of ``tenant``."""
        return self._of.get(tenant, 0.0) / self._unit * _MEMORY_FRAMES

    def add(self, tenant: str, frames: int) -> None:
        """Count ``frames`` more of ``tenant``."""
        # As if they had come one after the other; of very many the last ones count alone.
        before, passed = self._unit, min(frames / _MEMORY_FRAMES, _LONGEST)
        self._unit *= math.exp(passed)
        counted = self._unit - before
        self._of[tenant] = self._of.pop(tenant, 0.0) + counted
        self._all += counted
        if len(self._of) > _REMEMBERED:
            forgotten, _ = self._of.popitem(last=False)
            self._large.discard(forgotten)
        if self._unit > _LARGEST_UNIT:
            self._make_small()
        least = _FEW * self._all
        self._large = {name for name in {*self._large, tenant} if self._of[name] >= least}
        small = max(0.0, self._all - sum(self._of[name] for name in self._large))
        self.tenants = len(self._large) + small / least

    def _make_small(self) -> None:
        for name in self._of:
            self._of[name] /= self._unit
        self._all /= self._unit
        self._unit = 1.0
