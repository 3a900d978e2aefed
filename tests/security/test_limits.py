"""What tenants may ask for."""

import threading
import time
from typing import Any

import pytest
from tests.support.waiting import Clock, until
from tests.support.watchedlock import WatchedLock

from lipwire.domain import Access, LimitExceeded, Overloaded
from lipwire.security import AccessControl, ForwardedControl, LimitRules, TenantLimits

ACME = Access("key phone", "acme")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of the library that counts."""
    clock = Clock()
    monkeypatch.setattr(time, "time", clock)
    return clock


def taken(limits: TenantLimits, access: Access, frames: int = 0) -> float | None:
    """None where the request is let in, else when to come back."""
    try:
        limits.take(access, frames)
    except Overloaded as refused:
        return refused.retry_after_s or 0.0
    return None


def test_requests_are_counted_by_tenant(clock: Clock) -> None:
    limits = TenantLimits(LimitRules(requests_per_minute=3))
    other = Access("key tablet", "acme")
    assert [taken(limits, ACME) for _ in range(2)] == [None, None]
    assert taken(limits, other) is None
    retry_s = taken(limits, ACME)
    assert retry_s is not None
    assert 0 < retry_s <= 60
    assert taken(limits, Access("key phone", "beta")) is None
    with pytest.raises(Overloaded, match="tenant acme asks for more than 3 requests a minute"):
        limits.take(ACME, 0)
    clock.now += 120
    assert taken(limits, ACME) is None


def test_callers_without_a_tenant_are_counted_each_by_itself(clock: Clock) -> None:
    limits = TenantLimits(LimitRules(requests_per_minute=1))
    assert taken(limits, Access("key a")) is None
    assert taken(limits, Access("key b")) is None
    assert taken(limits, Access("key a")) is not None


def test_frames_are_counted_and_a_large_batch_may_take_several_seconds(clock: Clock) -> None:
    limits = TenantLimits(LimitRules(frames_per_second=10))
    assert taken(limits, ACME, 50) is None
    assert taken(limits, ACME, 50) is None
    retry_s = taken(limits, ACME, 24)
    assert retry_s == pytest.approx(2.4)
    assert taken(limits, ACME) is None  # a list has no frames
    clock.now += 20
    assert taken(limits, ACME, 50) is None


def test_who_is_refused_is_not_counted(clock: Clock) -> None:
    limits = TenantLimits(LimitRules(frames_per_second=10))
    assert taken(limits, ACME, 90) is None
    for _ in range(100):
        assert taken(limits, ACME, 50) is not None
    assert taken(limits, ACME, 10) is None


def test_the_largest_batch_is_let_in_where_few_frames_are_allowed(clock: Clock) -> None:
    limits = TenantLimits(LimitRules(frames_per_second=1))
    assert taken(limits, ACME, 50) is None
    with pytest.raises(Overloaded, match="more than 1 frames a second"):
        limits.take(ACME, 1)
    clock.now += 100
    assert taken(limits, ACME, 50) is None


def test_what_is_refused_for_its_frames_is_no_request(clock: Clock) -> None:
    limits = TenantLimits(LimitRules(requests_per_minute=2, frames_per_second=5))
    assert taken(limits, ACME, 50) is None
    assert taken(limits, ACME, 50) is not None
    assert taken(limits, ACME) is None
    assert taken(limits, ACME) is not None


def test_without_rules_nothing_is_limited() -> None:
    limits = TenantLimits(LimitRules())
    assert all(taken(limits, ACME, 50) is None for _ in range(1000))


def test_a_control_with_limits_asks() -> None:
    control = AccessControl(limits=TenantLimits(LimitRules(requests_per_minute=1)))
    assert control.asks
    control.enter(ACME, "live")
    with pytest.raises(Overloaded):
        control.enter(ACME, "live")


def test_bytes_are_counted_by_tenant_and_what_is_refused_is_not(clock: Clock) -> None:
    limits = TenantLimits(LimitRules(upload_mb_per_minute=1))
    mib = 1 << 20
    limits.upload(ACME, mib - 10)
    with pytest.raises(LimitExceeded, match="tenant acme asks for more than 1 MiB a minute") as one:
        limits.upload(ACME, 20)
    assert one.value.policy == "upload"
    assert one.value.retry_after_s == pytest.approx(60 * 10 / mib, abs=0.05)
    limits.upload(ACME, 10)
    limits.upload(Access("key a", "beta"), mib)
    limits.take(ACME, 50)
    clock.now += 120
    limits.upload(ACME, mib)


def test_what_is_left_is_told_of_each_limit(clock: Clock) -> None:
    rules = LimitRules(requests_per_minute=5, frames_per_second=10, upload_mb_per_minute=1)
    limits = TenantLimits(rules)
    limits.take(ACME, 30)
    limits.upload(ACME, 576)
    told = {one.policy: one for one in limits.standing(ACME)}
    assert list(told) == ["requests", "frames", "upload"]
    found = {name: (one.most, one.span_s, one.remaining) for name, one in told.items()}
    assert found == {
        "requests": (5, 60, 4),
        "frames": (100, 10, 70),
        "upload": (1 << 20, 60, (1 << 20) - 576),
    }
    assert all(0 <= one.renewed_in_s <= one.span_s for one in told.values())
    assert TenantLimits(LimitRules()).standing(ACME) == []


def test_processes_that_are_passed_what_clients_send_count_it() -> None:
    control = ForwardedControl(TenantLimits(LimitRules(upload_mb_per_minute=1)))
    control.upload(ACME, 1 << 20)
    with pytest.raises(LimitExceeded):
        control.upload(ACME, 1)
    ForwardedControl().upload(ACME, 1 << 40)


@pytest.mark.parametrize("kind", ["requests", "frames", "upload"])
def test_two_at_one_time_are_not_let_in_for_one(
    monkeypatch: pytest.MonkeyPatch, clock: Clock, kind: str
) -> None:
    """The second comes when the first was looked at, and is not counted yet."""
    rules = {
        "requests": LimitRules(requests_per_minute=1),
        "frames": LimitRules(requests_per_minute=9, frames_per_second=5),
        "upload": LimitRules(upload_mb_per_minute=1),
    }
    limits = TenantLimits(rules[kind])
    watched = WatchedLock()
    monkeypatch.setattr(limits, "_lock", watched, raising=False)
    count = limits._counter.hit
    refused: list[str] = []

    def ask() -> None:
        try:
            if kind == "upload":
                limits.upload(ACME, 1 << 20)
            else:
                limits.take(ACME, 50 if kind == "frames" else 0)
        except LimitExceeded as error:
            refused.append(error.policy)

    second = threading.Thread(target=ask)

    def hit(*given: Any, **more: Any) -> bool:
        if not second.ident:
            second.start()
            until(lambda: watched.waited_for.is_set() or not second.is_alive())
        return count(*given, **more)

    monkeypatch.setattr(limits._counter, "hit", hit)
    ask()
    second.join(120)
    assert refused == [kind]


def test_what_is_refused_for_one_limit_is_counted_for_none(clock: Clock) -> None:
    limits = TenantLimits(LimitRules(requests_per_minute=2, frames_per_second=5))
    assert taken(limits, ACME, 50) is None
    for _ in range(3):
        assert taken(limits, ACME, 50) is not None
    assert taken(limits, ACME) is None
    assert taken(limits, ACME) is not None
