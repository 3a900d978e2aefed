"""How often which avatar is asked for, by Zipf's law, and how many of them a cache has to hold."""

from typing import Final

import numpy as np
import numpy.typing as npt

from lipwire.domain import InvalidInput

_DRAWN: Final = 65_536
_HALVINGS: Final = 200


class Zipf:
    """Popularity of avatars by Zipf's law: the avatar of rank r, from 1 on, is asked for in
    proportion to r ** -``exponent``. With an exponent of 0 all are asked for alike."""

    def __init__(self, avatars: int, exponent: float) -> None:
        """``avatars`` is how many there are. Raises InvalidInput for fewer than one avatar, or an
        exponent that is not 0 to 4."""
        if avatars < 1:
            raise InvalidInput(f"there are {avatars} avatars; allowed are 1 and above")
        if not 0 <= exponent <= 4:
            raise InvalidInput(f"the exponent of Zipf's law is {exponent:g}; allowed are 0 to 4")
        weights = np.arange(1, avatars + 1, dtype=np.float64) ** -exponent
        self.shares: Final[npt.NDArray[np.float64]] = weights / weights.sum()
        """Of all requests, by rank from 0 on: (avatars,), the largest first, 1 in all."""
        self._cumulated = np.cumsum(self.shares)

    def __len__(self) -> int:
        """How many avatars there are."""
        return len(self.shares)

    def draw(self, random: np.random.Generator, count: int) -> npt.NDArray[np.int64]:
        """Draw ``count`` requests with the generator ``random``, and return the rank of the avatar
        that each asks for, from 0 on: (count,) int64."""
        found = np.searchsorted(self._cumulated, random.random(count), side="right")
        return np.minimum(found, len(self) - 1).astype(np.int64)

    def lru_hit_rate(self, held: int) -> float:
        """Return the share of requests, 0 to 1, that find their avatar in a cache of the ``held``
        most recently used avatars, once the cache is full; 0 where ``held`` is 0 or below.

        By the approximation of Che, Tung and Wang ("Hierarchical web caching systems", 2002): each
        avatar is taken to stay in the cache for the same time after its last use, and this time is
        chosen so that ``held`` avatars are expected to be there.
        """
        if held <= 0:
            return 0.0
        if held >= len(self):
            return 1.0
        low, high = 0.0, 1.0
        while self._expected_held(high) < held:
            high *= 2
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            if self._expected_held(middle) < held:
                low = middle
            else:
                high = middle
            if high - low <= 1e-9 * high:
                break
        return float((self.shares * -np.expm1(-self.shares * high)).sum())

    def held_for(self, hit_rate: float) -> int:
        """Return how many avatars a cache of the most recently used ones has to hold so that the
        share ``hit_rate``, 0 to 1, of requests find their avatar in it (``lru_hit_rate``). The
        result may be about a thousandth larger than needed; it is the number of all avatars where
        ``hit_rate`` is 1."""
        low, high = 0, len(self)
        while high - low > max(1, low // 1000):
            middle = (low + high) // 2
            if self.lru_hit_rate(middle) < hit_rate:
                low = middle
            else:
                high = middle
        return high

    def _expected_held(self, requests: float) -> float:
        """How many different avatars are asked for in ``requests`` requests, as they are expected
        to come."""
        return float(-np.expm1(-self.shares * requests).sum())


class Draws:
    """An endless sequence of requests, each for one avatar: the avatars' ranks, drawn from ``zipf``
    with the generator ``random``. Not thread-safe."""

    def __init__(self, zipf: Zipf, random: np.random.Generator) -> None:
        self._zipf = zipf
        self._random = random
        self._ranks: list[int] = []

    def next(self) -> int:
        """Return the rank of the avatar that the next request asks for; 0 is the most popular."""
        if not self._ranks:
            self._ranks = self._zipf.draw(self._random, _DRAWN).tolist()
        return self._ranks.pop()


def erlang_b(load: float, places: int) -> float:
    """Return the share of callers, 0 to 1, that find all ``places`` taken, where those who are
    refused do not try again. ``load`` is how many callers would be there at once in the mean if
    there were places without end. Both are 0 or more.

    This is Erlang's formula B (1917); it holds whatever the distribution of the lengths of calls,
    as long as callers come independently of each other.
    """
    if load <= 0:
        return 0.0
    blocked = 1.0
    for number in range(1, places + 1):
        blocked = load * blocked / (number + load * blocked)
    return blocked


def places_for(load: float, refused: float) -> int:
    """Return the least number of places with which at most the share ``refused`` (above 0, to 1) of
    callers find all places taken, by Erlang's formula (``erlang_b``). ``load``, 0 or more, is how
    many callers would be there at once in the mean if there were places without end."""
    blocked, number = 1.0 if load > 0 else 0.0, 0
    while blocked > refused:
        number += 1
        blocked = load * blocked / (number + load * blocked)
    return number
