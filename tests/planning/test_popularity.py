"""Zipf's law, the hit rate of a cache, and Erlang's formula."""

import math
from collections import OrderedDict

import numpy as np
import pytest

from lipwire.domain import InvalidInput
from lipwire.planning.popularity import Draws, Zipf, erlang_b, places_for


def counted_hit_rate(ranks: list[int], held: int) -> float:
    """Of the second half of ``ranks``, with a cache of the ``held`` used last."""
    cache: OrderedDict[int, None] = OrderedDict()
    hits = 0
    for number, rank in enumerate(ranks):
        if rank in cache:
            hits += 2 * number >= len(ranks)
            cache.move_to_end(rank)
        else:
            cache[rank] = None
            if len(cache) > held:
                cache.popitem(last=False)
    return hits / (len(ranks) / 2)


@pytest.mark.parametrize("exponent", [0.0, 0.8, 1.2])
def test_shares_follow_the_law(exponent: float) -> None:
    shares = Zipf(50, exponent).shares
    assert shares.sum() == pytest.approx(1)
    assert shares[0] / shares[9] == pytest.approx(10**exponent)


def test_draws_have_the_shares() -> None:
    zipf = Zipf(20, 1.0)
    counts = np.bincount(zipf.draw(np.random.default_rng(1), 200_000), minlength=20)
    np.testing.assert_allclose(counts / 200_000, zipf.shares, rtol=0.05)


def test_draws_are_repeatable() -> None:
    one, other = (Draws(Zipf(1000, 0.8), np.random.default_rng(5)) for _ in range(2))
    assert [one.next() for _ in range(100)] == [other.next() for _ in range(100)]


@pytest.mark.parametrize(("exponent", "held"), [(0.0, 100), (0.8, 40), (0.8, 200), (1.2, 25)])
def test_the_hit_rate_is_what_a_cache_counts(exponent: float, held: int) -> None:
    zipf = Zipf(500, exponent)
    ranks = zipf.draw(np.random.default_rng(2), 60_000).tolist()
    assert zipf.lru_hit_rate(held) == pytest.approx(counted_hit_rate(ranks, held), abs=0.01)


def test_of_avatars_alike_as_many_are_hit_as_are_held() -> None:
    zipf = Zipf(1000, 0.0)
    assert zipf.lru_hit_rate(250) == pytest.approx(0.25, abs=1e-3)
    assert (zipf.lru_hit_rate(0), zipf.lru_hit_rate(1000)) == (0.0, 1.0)


def test_so_many_have_to_be_held_for_a_hit_rate() -> None:
    zipf = Zipf(5000, 0.8)
    held = zipf.held_for(0.5)
    assert zipf.lru_hit_rate(held) >= 0.5 > zipf.lru_hit_rate(held - 2)


@pytest.mark.parametrize(
    ("load", "places", "refused"),
    [(0.0, 3, 0.0), (1.0, 1, 1 / 2), (1.0, 2, 1 / 5), (2.0, 2, 2 / 5), (5.0, 0, 1.0)],
)
def test_erlangs_formula(load: float, places: int, refused: float) -> None:
    assert erlang_b(load, places) == pytest.approx(refused)


def test_erlangs_formula_is_the_sum_that_it_is_written_as() -> None:
    load, places = 10.0, 14
    terms = [load**n / math.factorial(n) for n in range(places + 1)]
    assert erlang_b(load, places) == pytest.approx(terms[-1] / sum(terms))


def test_the_least_number_of_places() -> None:
    for load in (0.5, 10.0, 110.0):
        places = places_for(load, 0.01)
        assert erlang_b(load, places) <= 0.01 < erlang_b(load, places - 1)
    assert places_for(0.0, 0.01) == 0


@pytest.mark.parametrize(("avatars", "exponent"), [(0, 0.8), (10, -0.1), (10, 5.0)])
def test_numbers_out_of_range_are_refused(avatars: int, exponent: float) -> None:
    with pytest.raises(InvalidInput, match="allowed are"):
        Zipf(avatars, exponent)
