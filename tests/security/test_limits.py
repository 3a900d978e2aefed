"""What tenants may ask for."""

import time

import pytest
from tests.support.waiting import Clock

from lipwire.domain import Access, Overloaded
from lipwire.security import AccessControl, LimitRules, TenantLimits

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
