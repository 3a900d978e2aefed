from collections.abc import Callable

import numpy as np
import pytest

from lipwire.registry.eviction import NEVER_USED, Candidates, Policy, Worths


class Thing:
    def __init__(self, name: str) -> None:
        self.name = name
        self.worth = NEVER_USED
        self.count = 0


def hit_rate(policy: Policy, trace: list[int], capacity: int) -> float:
    """Of a cache run with the parts a registry uses."""
    worths = Worths(policy)
    candidates: Candidates[Thing] = Candidates()
    held: dict[int, Thing] = {}
    hits = 0
    for name in trace:
        thing = held.get(name)
        if thing is None:
            if len(held) == capacity:
                chosen = candidates.choose(lambda _: True, lambda _: True)
                assert chosen is not None
                victim = chosen[0]
                candidates.discard(victim)
                del held[int(victim.name)]
                worths.remember(victim.name, victim.worth, len(held))
            thing = held[name] = Thing(str(name))
            worths.set_item_count(len(held))
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


@pytest.mark.slow
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
    worths.set_item_count(1)
    often = seldom = NEVER_USED
    for round_number in range(200_000):
        often = worths.after_use(often)
        if round_number % 50 == 0:
            seldom = worths.after_use(seldom)
    assert np.isfinite([often, seldom]).all()
    assert often > seldom


@pytest.fixture
def things() -> tuple[Candidates[Thing], list[Thing], Callable[[Thing], bool]]:
    candidates: Candidates[Thing] = Candidates()
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
    candidates.discard(made[2])
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
    candidates: Candidates[Thing] = Candidates()
    for number in range(10_000):
        thing = Thing(str(number))
        candidates.add(thing)
        candidates.discard(thing)
    assert len(candidates) == 0
    assert len(candidates._heap) <= 65


def test_a_thing_that_comes_back_is_there_once(
    things: tuple[Candidates[Thing], list[Thing], Callable[[Thing], bool]],
) -> None:
    candidates, made, _ = things
    for _ in range(3):
        candidates.discard(made[0])
        candidates.add(made[0])
        candidates.add(made[0])
    assert len(candidates) == len(list(candidates)) == 6
    chosen = candidates.choose(lambda _: True, lambda thing: thing.name == "5")
    assert chosen is not None
    assert [thing.name for thing in chosen] == ["0", "1", "2", "3", "4", "5"]


def counted(ages: list[float]) -> float:
    """The worth of uses ``ages`` half-lives ago, at half-life 0: the formula, written out."""
    return float(np.log2(sum(2.0**-age for age in ages)))


def test_a_use_weighs_half_as_much_after_sixteen_uses_for_each_item() -> None:
    for items in (1, 3):
        worths = Worths("lfu")
        worths.set_item_count(items)
        worth, uses = NEVER_USED, [1, 2, 9, 40, 41]
        for use in range(1, 50):
            if use in uses:
                worth = worths.after_use(worth)
            else:
                worths.after_use(NEVER_USED)
        ages = [-use / (16 * items) for use in uses]
        assert worth == pytest.approx(counted(ages))


def test_what_is_worth_more_than_now_grows_by_a_use_of_now() -> None:
    worths = Worths("lfu")
    worths.set_item_count(0)  # as if it were one
    assert worths.after_use(NEVER_USED) == 1 / 16
    assert worths.after_use(3.0) == pytest.approx(np.log2(2.0**3.0 + 2.0 ** (2 / 16)))


def test_least_recently_used_is_the_number_of_the_use_whatever_there_was_before() -> None:
    worths = Worths("lru")
    worths.set_item_count(5)
    assert [worths.after_use(worth) for worth in (NEVER_USED, 7.0, NEVER_USED)] == [1, 2, 3]
    worths.remember("a", 2.0, items=5)
    assert worths.remembered("a") == NEVER_USED


def test_before_anything_is_held_a_use_is_one_step() -> None:
    assert Worths("lfu").after_use(NEVER_USED) == 1.0


@pytest.mark.parametrize(("items", "most"), [(0, 1024), (128, 1024), (200, 1600)])
def test_the_worths_of_the_last_evicted_are_remembered_once(items: int, most: int) -> None:
    worths = Worths("lfu")
    for number in range(most):
        worths.remember(str(number), float(number), items)
    worths.remember("0", 0.5, items)  # given up again: now it is the newest
    worths.remember("one more", 1.5, items)
    assert worths.remembered("1") == NEVER_USED
    assert worths.remembered("2") == 2.0
    assert worths.remembered("2") == NEVER_USED
    assert worths.remembered("0") == 0.5
    assert worths.remembered("one more") == 1.5


def test_of_equal_worth_the_one_that_came_first_is_chosen_first() -> None:
    candidates: Candidates[Thing] = Candidates()
    for name in "abc":
        candidates.add(Thing(name))
    chosen = candidates.choose(lambda _: True, lambda thing: thing.name == "b")
    assert chosen is not None
    assert [thing.name for thing in chosen] == ["a", "b"]


def test_nothing_is_enough_where_there_is_nothing() -> None:
    candidates: Candidates[Thing] = Candidates()
    assert candidates.choose(lambda _: True, lambda _: True) is None


@pytest.mark.parametrize("held", [0, 10])
def test_entries_are_tidied_when_most_are_of_things_gone(held: int) -> None:
    candidates: Candidates[Thing] = Candidates()
    for number in range(held):
        thing = Thing(str(number))
        thing.worth = float(-number)
        candidates.add(thing)

    def come_and_go() -> int:
        """How many entries there are then."""
        thing = Thing("gone")
        candidates.add(thing)
        candidates.discard(thing)
        return len(candidates._heap)

    entries = [come_and_go() for _ in range(held + 65)]
    assert entries == [*range(held + 1, 2 * held + 65), held]
    chosen = candidates.choose(lambda _: True, lambda thing: thing.name == "0")
    assert [thing.worth for thing in chosen or ()] == [float(-n) for n in range(held - 1, -1, -1)]
