"""How many sessions a tenant may have, in this process and at all servers."""

import pytest
from tests.session.live.sessionhouse import FakeLeases, House

from lipwire.domain import NotFound, Overloaded
from lipwire.security.shared.sessions import Place
from lipwire.session.live import SessionRules


def test_a_tenant_has_no_more_sessions_than_it_may_have() -> None:
    house = House(SessionRules(max_sessions_of_tenant=2))
    first, second = house.open(tenant="acme"), house.open(tenant="acme")
    with pytest.raises(Overloaded, match="2 live sessions of the tenant run; allowed are 2"):
        house.open(tenant="acme")
    house.open(tenant="beta")
    house.sessions.detach(second)  # its client has gone: it makes room
    third = house.open(tenant="acme")
    assert [first.closed, second.closed, third.closed] == [False, True, False]
    house.sessions.end(first)
    house.open(tenant="acme")
    assert house.sessions.stats().refused == 1


class FakeShared:
    """The places of a tenant at all servers, of which others have taken ``others``."""

    def __init__(self) -> None:
        self.places: set[Place] = set()
        self.others = 0

    def begin(self, tenant: str, most: int) -> Place:
        if len(self.places) + self.others >= most:
            raise Overloaded("all are taken")
        place = Place(tenant, "")
        self.places.add(place)
        return place

    def end(self, place: Place) -> None:
        self.places.discard(place)


def test_a_tenants_sessions_at_other_servers_count() -> None:
    shared = FakeShared()
    house = House(SessionRules(max_sessions_of_tenant=2, max_sessions=3), shared=shared)
    first = house.open(tenant="acme")
    shared.others = 1
    with pytest.raises(Overloaded, match="all are taken"):
        house.open(tenant="acme")
    house.sessions.detach(first)  # its client has gone: it makes room
    second = house.open(tenant="acme")
    assert [first.closed, second.closed, len(shared.places)] == [True, False, 1]
    house.sessions.end(second)
    house.run(0.1)
    assert shared.places == set()
    assert house.sessions.stats().refused == 1


def test_a_session_that_was_not_opened_leaves_its_place() -> None:
    shared = FakeShared()
    house = House(
        SessionRules(max_sessions_of_tenant=2, max_sessions=1),
        shared=shared,
        leases=FakeLeases(most=1),
    )
    with pytest.raises(NotFound):
        house.open("unknown", tenant="acme")
    assert shared.places == set()
    house.open(tenant="beta")
    with pytest.raises(Overloaded, match="1 live sessions run; allowed are 1"):
        house.open(tenant="acme")
    assert {place.tenant for place in shared.places} == {"beta"}


def test_sessions_of_a_tenant_that_are_being_opened_count() -> None:
    house = House(SessionRules(max_sessions_of_tenant=1))

    def another() -> None:
        house.on_open = lambda: None
        with pytest.raises(Overloaded):
            house.open(tenant="acme")
        house.open(tenant="beta")

    house.on_open = another
    house.open(tenant="acme")
    house.on_open = lambda: None
    with pytest.raises(NotFound):
        house.open("unknown", tenant="gamma")  # counts no more
    house.open(tenant="gamma")
