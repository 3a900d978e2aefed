"""Tickets: used once, for a while, by one of however many processes."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.support.waiting import Clock

from lipwire.domain import EVERYTHING, Access, InvalidInput, NotFound, Overloaded, Unauthenticated
from lipwire.domain.errors import StorageFailed
from lipwire.security import FolderStore, Tickets
from lipwire.security.tickets import (
    MOST,
    MOST_OF_TENANT,
    is_ticket,
    ticket_of,
    ticket_text,
)
from lipwire.security.ticketstores import OwnStore, TicketStore

ACME = Access("key phone", "acme", frozenset({"live", "read"}), ("acme-*",))
ORIGIN = "https://app.example"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["own", "folder"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> TicketStore:
    return OwnStore() if request.param == "own" else FolderStore(tmp_path / "tickets")


@pytest.fixture
def tickets(store: TicketStore, clock: Clock) -> Tickets:
    return Tickets(store, now=clock)


def test_a_ticket_is_for_live_sessions_with_its_avatar_as_whoever_asked(tickets: Tickets) -> None:
    text = tickets.issue(ACME, "acme-anna", ORIGIN, minutes=5)
    assert is_ticket(text)
    found = tickets.find(text)
    assert found.access == Access("key phone", "acme", frozenset({"live"}), ("acme-anna",))
    assert (found.origin, found.lasts_s) == (ORIGIN, 300)
    assert ticket_of(ticket_text(found)) == found


def test_signs_of_patterns_in_an_avatars_name_are_letters(tickets: Tickets) -> None:
    access = tickets.find(tickets.issue(EVERYTHING, "a[b]*", ORIGIN)).access
    assert access.sees("a[b]*")
    assert not access.sees("ab")
    assert not access.sees("a[b]c")


def test_a_ticket_is_taken_once(tickets: Tickets) -> None:
    text = tickets.issue(ACME, "acme-anna", ORIGIN)
    taken = tickets.take(text)
    for _ in range(2):
        with pytest.raises(Unauthenticated, match="it was used, or has expired"):
            tickets.take(text)
        with pytest.raises(Unauthenticated):
            tickets.find(text)
    tickets.give_back(text, taken)
    assert tickets.take(text) == taken


def test_of_many_at_one_time_one_takes_it(store: TicketStore) -> None:
    processes = [Tickets(store) for _ in range(8)]
    text = processes[0].issue(ACME, "acme-anna", ORIGIN)
    together = threading.Barrier(len(processes))

    def taken(one: Tickets) -> bool:
        together.wait(60)
        try:
            one.take(text)
        except Unauthenticated:
            return False
        return True

    with ThreadPoolExecutor(len(processes)) as pool:
        assert sum(pool.map(taken, processes)) == 1


def test_a_ticket_expires_and_is_not_given_back_then(tickets: Tickets, clock: Clock) -> None:
    text = tickets.issue(ACME, "acme-anna", ORIGIN, seconds=10)
    clock.now += 9.9
    taken = tickets.take(text)
    clock.now += 0.1
    tickets.give_back(text, taken)
    with pytest.raises(Unauthenticated):
        tickets.find(text)


def test_what_has_expired_is_not_kept(tmp_path: Path, clock: Clock) -> None:
    tickets = Tickets(FolderStore(tmp_path / "tickets"), now=clock)
    for _ in range(3):
        tickets.issue(ACME, "acme-anna", ORIGIN, seconds=10)
    clock.now += 10
    last = tickets.issue(ACME, "acme-anna", ORIGIN, seconds=10)
    assert len(list((tmp_path / "tickets").iterdir())) == 1
    files = [path.read_text() + path.name for path in (tmp_path / "tickets").iterdir()]
    assert last not in files[0]


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text[:-1],
        lambda text: text + "A",
        lambda text: text[:-1] + ("A" if text[-1] != "A" else "B"),
        lambda text: text.replace("ticket", "session"),
        lambda text: "lipwire_ticket_",
        lambda text: "lipwire_ticket_" + "A" * 43,
        lambda text: "lipwire_ticket_../../etc/passwd",
        lambda text: "lipwire_ticket_" + "\ud800",
        lambda text: "lipwire_ticket_" + "A" * 1_000_000,
        lambda text: "",
    ],
)
def test_what_was_never_issued_is_not_known(tickets: Tickets, change: object) -> None:
    text = tickets.issue(ACME, "acme-anna", ORIGIN)
    assert callable(change)
    with pytest.raises(Unauthenticated, match="not known here"):
        tickets.take(change(text))
    tickets.take(text)


def test_a_secret_is_for_one_session_as_long_as_it_may_last(tickets: Tickets, clock: Clock) -> None:
    taken = tickets.take(tickets.issue(ACME, "acme-anna", ORIGIN, minutes=2))
    secret = tickets.secret(taken, "0.abc")
    other = tickets.secret(taken, "0.def")
    assert is_ticket(secret)
    assert tickets.find(secret).access.session == "0.abc"
    assert tickets.find(secret).access.tenant == "acme"
    tickets.forget(other)
    with pytest.raises(Unauthenticated):
        tickets.find(other)
    clock.now += 119
    tickets.find(secret)
    clock.now += 1
    with pytest.raises(Unauthenticated):
        tickets.find(secret)


@pytest.mark.slow
def test_one_tenant_cannot_take_the_places_of_all(tickets: Tickets, clock: Clock) -> None:
    for _ in range(MOST_OF_TENANT):
        tickets.issue(ACME, "acme-anna", ORIGIN, seconds=300)
    with pytest.raises(Overloaded, match=f"{MOST_OF_TENANT} tickets .*; allowed are"):
        tickets.issue(ACME, "acme-anna", ORIGIN)
    tickets.issue(Access("key b", "beta"), "anna", ORIGIN)
    tickets.issue(Access("acme"), "anna", ORIGIN)  # of no tenant, whatever it is called
    clock.now += 300
    tickets.issue(ACME, "acme-anna", ORIGIN)


def test_there_is_a_limit_for_all(clock: Clock) -> None:
    tickets = Tickets(now=clock)
    for number in range(MOST):
        tickets.issue(Access("key", f"tenant {number}"), "anna", ORIGIN)
    with pytest.raises(Overloaded, match=f"allowed are {MOST}"):
        tickets.issue(Access("key", "another"), "anna", ORIGIN)


@pytest.mark.parametrize("times", [{"seconds": 0.5}, {"seconds": 301}, {"minutes": 0}])
def test_times_out_of_range_are_told(tickets: Tickets, times: dict[str, float]) -> None:
    name, value = next(iter(times.items()))
    with pytest.raises(InvalidInput, match=rf"{name} is {value:g}; allowed are 1 to"):
        tickets.issue(ACME, "acme-anna", ORIGIN, **times)
    with pytest.raises(InvalidInput, match=r"minutes is nan; allowed are 1 to 240"):
        tickets.issue(ACME, "acme-anna", ORIGIN, minutes=float("nan"))


def test_an_avatar_that_the_caller_does_not_see_does_not_exist(tickets: Tickets) -> None:
    with pytest.raises(NotFound, match="no avatar named bert"):
        tickets.issue(ACME, "bert", ORIGIN)


def test_tickets_that_cannot_be_kept_are_told(tmp_path: Path) -> None:
    with pytest.raises(StorageFailed, match="tickets cannot be kept"):
        FolderStore(tmp_path / "missing" / "tickets")
    tickets = Tickets(FolderStore(tmp_path / "tickets"))
    (tmp_path / "tickets").rmdir()
    for _ in range(MOST_OF_TENANT + 1):  # which do not count
        with pytest.raises(StorageFailed, match=r"^tickets cannot be kept now$"):
            tickets.issue(ACME, "acme-anna", ORIGIN)
    (tmp_path / "tickets").mkdir()
    assert tickets.find(tickets.issue(ACME, "acme-anna", ORIGIN)).access.tenant == "acme"


@pytest.mark.parametrize("text", ["[" * 100_000, "[[], 1, 2, 3]", "1e999", "{}", ""])
def test_another_text_is_no_ticket(text: str) -> None:
    with pytest.raises(InvalidInput, match="in a way not known here"):
        ticket_of(text)
