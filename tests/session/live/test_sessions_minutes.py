"""How long a tenant's sessions last, in virtual time."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.session.live.sessionhouse import House

from lipwire.domain import MinutesUsedUp
from lipwire.security import LiveMinutes
from lipwire.session.live import SessionRules

BEGAN_S = datetime(2030, 1, 15, tzinfo=UTC).timestamp()


@pytest.fixture
def house(tmp_path: Path) -> House:
    def minutes(clock: Callable[[], float]) -> LiveMinutes:
        return LiveMinutes(tmp_path / "minutes.json", 1, now=lambda: BEGAN_S + clock())

    return House(SessionRules(max_idle_s=None), minutes=minutes)


def test_sessions_end_when_their_tenants_minutes_are_used_up(house: House) -> None:
    first, other = house.open(tenant="acme"), house.open(tenant="beta")
    house.run(20.0)
    second = house.open(tenant="acme")
    house.run(18.0)
    assert not first.closed
    assert not second.closed
    house.run(4.0)
    assert (first.ended_because, second.ended_because) == ("minutes_used_up", "minutes_used_up")
    assert not other.closed
    with pytest.raises(MinutesUsedUp, match="tenant acme has used 1 minutes"):
        house.open(tenant="acme")
    assert house.sessions.stats().active == 1
    assert house.sessions.running == 1


def test_short_sessions_count_by_what_they_lasted(house: House) -> None:
    for _ in range(100):
        session = house.open(tenant="acme")
        house.run(0.59)
        house.sessions.end(session)
    last = house.open(tenant="acme")
    house.run(3.0)
    assert last.ended_because == "minutes_used_up"
