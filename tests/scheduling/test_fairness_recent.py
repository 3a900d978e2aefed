"""How many of the latest frames were run for each tenant."""

import random
from itertools import pairwise

import pytest

from lipwire.scheduling import fairness
from lipwire.scheduling.fairness import RecentFrames


def counted(*frames: tuple[str, int], times: int = 1) -> RecentFrames:
    recent = RecentFrames()
    for _ in range(times):
        for tenant, count in frames:
            recent.add(tenant, count)
    return recent


def test_there_are_none_at_first() -> None:
    recent = RecentFrames()
    assert (recent.all, recent.of("anybody"), recent.tenants) == (0, 0, 0)


@pytest.mark.parametrize("tenants", [1, 2, 7, 40])
def test_equal_ones_have_equally_many(tenants: int) -> None:
    each = [(f"t{number}", 1) for number in range(tenants)]
    recent = counted(*each, times=6000 // tenants)
    assert recent.all == pytest.approx(800, rel=0.01)
    assert recent.tenants == pytest.approx(tenants, rel=0.06)
    for tenant, _ in each:
        assert recent.of(tenant) == pytest.approx(800 / tenants, rel=0.06)


def test_few_frames_count_as_what_they_are() -> None:
    recent = counted(("one", 12), ("two", 4))
    assert recent.all == pytest.approx(16, rel=0.02)
    assert recent.of("one") == pytest.approx(12, rel=0.02)
    assert recent.tenants == 2


def test_many_tenants_with_few_frames_count_as_some() -> None:
    chance = random.Random(1)
    recent = RecentFrames()
    for _ in range(4000):
        recent.add(f"small-{chance.randrange(400)}", 1)
        recent.add("much", 1)
    assert recent.of("much") == pytest.approx(400, rel=0.02)
    assert recent.tenants == pytest.approx(26, rel=0.1)


def test_what_was_long_ago_is_forgotten_by_and_by() -> None:
    recent = counted(("before", 400))
    seen = [recent.of("before")]
    for _ in range(4):
        recent.add("now", 400)
        seen.append(recent.of("before"))
    for earlier, later in pairwise(seen):
        assert later / earlier == pytest.approx(0.607, abs=0.001)
    recent.add("now", 10**9)
    assert recent.of("before") < 1e-3
    assert recent.of("now") == pytest.approx(recent.all)
    assert recent.tenants == pytest.approx(1)


def test_of_many_tenants_the_latest_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fairness, "_REMEMBERED", 2)
    recent = counted(("s", 8), ("t", 8), ("u", 8))
    assert recent.of("s") == 0
    assert recent.of("t") > 0


def test_counts_stay_right_however_many_frames_there_were(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = counted(("one", 30), ("two", 10), times=500)
    monkeypatch.setattr(fairness, "_LARGEST_UNIT", 4.0)
    small = counted(("one", 30), ("two", 10), times=500)
    for tenant in ("one", "two"):
        assert small.of(tenant) == pytest.approx(kept.of(tenant), rel=1e-3)
