from collections.abc import Callable

import numpy as np
import pytest

from lipwire.domain.eviction import NEVER_USED, Candidates, Policy, Worths


class Thing:
    def __init__(self, name: str) -> None:
        self.name = name
        self.worth = NEVER_USED
        self.held = True
        self.count = 0


def hit_rate(policy: Policy, trace: list[int], capacity: int) -> float:
    """Of a cache run with the parts a registry uses."""
    worths = Worths(policy)
    candidates: Candidates[Thing] = Candidates(lambda thing: thing.held)
    held: dict[int, Thing] = {}
    hits = 0
    for name in trace:
        thing = held.get(name)
        if thing is None:
            if len(held) == capacity:
                chosen = candidates.choose(lambda _: True, lambda _: True)
                assert chosen is not None
                victim = chosen[0]
                victim.held = False
                del held[int(victim.name)]
                worths.remember(victim.name, victim.worth, len(held))
            thing = held[name] = Thing(str(name))
            worths.holding(len(held))
            thing.worth = worths.after_use(worths.remembered(thing.name))
            candidates.add(thing)
        else:
            hits += 1
            thing.worth = worths.after_use(thing.worth)
    return hits / len(trace)


def plain_lfu_hit_rate(trace: list[int], capacity: int) -> float:
    """Counts since loading, never aged: what the policy is measured against."""
    counts: dict[int, int] = {}
    hits = 0
    for name in trace:
        if name in counts:
            hits += 1
        elif len(counts) == capacity:
            del counts[min(counts, key=lambda key: counts[key])]
        counts[name] = counts.get(name, 0) + 1
    return hits / len(trace)


def zipf(seed: int, names: int, length: int, exponent: float = 0.9) -> list[int]:
    random = np.random.default_rng(seed)
    weights = 1.0 / np.arange(1, names + 1) ** exponent
    popular = random.permutation(names)
    drawn = random.choice(names, size=length, p=weights / weights.sum())
    return [int(name) for name in popular[drawn]]


def test_popular_names_stay_under_zipf_traffic() -> None:
    trace = zipf(seed=1, names=1_100, length=20_000)
    aged, lru = hit_rate("lfu", trace, 40), hit_rate("lru", trace, 40)
    assert aged > 1.3 * lru
    assert aged > 1.05 * plain_lfu_hit_rate(trace, 40)
    # Knowing the popularity of every name beforehand would give this much.
    counts = sorted(np.bincount(trace), reverse=True)
    assert aged > 0.8 * sum(counts[:40]) / len(trace)


def test_what_was_popular_yesterday_leaves_where_plain_counts_keep_it() -> None:
    yesterday = zipf(seed=2, names=200, length=20_000)
    today = [name + 1_000 for name in zipf(seed=3, names=200, length=4_000)]
    before_aged, before_plain = (
        hit_rate("lfu", yesterday, 40) * len(yesterday),
        plain_lfu_hit_rate(yesterday, 40) * len(yesterday),
    )
    trace = yesterday + today
    aged = (hit_rate("lfu", trace, 40) * len(trace) - before_aged) / len(today)
    plain = (plain_lfu_hit_rate(trace, 40) * len(trace) - before_plain) / len(today)
    assert aged > 0.9 * hit_rate("lfu", today, 40)
    assert aged > 1.5 * plain


def test_newcomers_that_come_again_soon_survive() -> None:
    # Ten favourites used a thousand times each; then two newcomers take turns among them.
    favourites = list(range(10)) * 1_000
    trace = favourites + [100, 101] * 200
    hits = hit_rate("lfu", trace, 10) * len(trace) - (len(favourites) - 10)
    assert hits > 0.8 * 400  # plain counts would give 0: each newcomer evicts the other
    assert plain_lfu_hit_rate(trace, 10) * len(trace) - (len(favourites) - 10) == 0


def test_lru_gives_up_the_least_recently_used() -> None:
    # Python's own functools.lru_cache is the oracle.
    from functools import lru_cache

    trace = zipf(seed=4, names=300, length=3_000)

    @lru_cache(maxsize=25)
    def ask(name: int) -> int:
        return name

    for name in trace:
        ask(name)
    assert hit_rate("lru", trace, 25) == pytest.approx(ask.cache_info().hits / len(trace))


def test_worths_stay_finite_and_in_order_over_millions_of_uses() -> None:
    worths = Worths("lfu")
    worths.holding(1)
    often = seldom = NEVER_USED
    for round_number in range(200_000):
        often = worths.after_use(often)
        if round_number % 50 == 0:
            seldom = worths.after_use(seldom)
    assert np.isfinite([often, seldom]).all()
    assert often > seldom


@pytest.fixture
def things() -> tuple[Candidates[Thing], list[Thing], Callable[[Thing], bool]]:
    candidates: Candidates[Thing] = Candidates(lambda thing: thing.held)
    made = [Thing(str(number)) for number in range(6)]
    for number, thing in enumerate(made):
        thing.worth = float(number)
        candidates.add(thing)
    return candidates, made, lambda thing: thing.name != "1"


def test_candidates_follow_worths_that_rose(
    things: tuple[Candidates[Thing], list[Thing], Callable[[Thing], bool]],
) -> None:
    candidates, made, wanted = things
    made[0].worth = 99.0
    made[2].held = False
    taken: list[Thing] = []

    def three(thing: Thing) -> bool:
        taken.append(thing)
        return len(taken) == 3

    chosen = candidates.choose(wanted, three)
    assert chosen is not None
    assert [thing.name for thing in chosen] == ["3", "4", "5"]
    # Choosing takes nothing away.
    again = candidates.choose(lambda _: True, lambda _: True)
    assert again is not None
    assert [thing.name for thing in again] == ["1"]


def test_candidates_that_are_not_enough_are_not_given_up(
    things: tuple[Candidates[Thing], list[Thing], Callable[[Thing], bool]],
) -> None:
    candidates, _, wanted = things
    assert candidates.choose(wanted, lambda _: False) is None
    assert len(candidates) == 6


def test_entries_of_things_gone_do_not_pile_up() -> None:
    candidates: Candidates[Thing] = Candidates(lambda thing: thing.held)
    for number in range(10_000):
        thing = Thing(str(number))
        candidates.add(thing)
        thing.held = False
        candidates.tidy(held=0)
    assert len(candidates) <= 65
