"""All sessions of a process, in virtual time."""

import gc
import weakref

import pytest
from tests.session.live.sessionhouse import FakeLeases, House
from tests.support.liveparts import RATE_HZ, buzz, frames, sounds, taken

from lipwire.domain import AvatarInvalid, Call, NotFound, Overloaded, Unavailable
from lipwire.session.live import (
    LEASE_S,
    GoingAway,
    LiveSession,
    SessionRules,
    SessionUsage,
    State,
)


def test_a_session_is_opened_found_and_ended() -> None:
    house = House()
    session = house.open(tenant="a")
    assert house.sessions.find(session.id, "a") is session
    for wrong in ((session.id, ""), (session.id, "b"), ("other", "a")):
        with pytest.raises(NotFound):
            house.sessions.find(*wrong)
    assert house.leases.held == {session.id: "anna"}
    stats = house.sessions.stats()
    assert (stats.active, stats.most, stats.opened, stats.refused) == (1, None, 1, 0)
    house.sessions.end(session)
    house.sessions.end(session)
    assert session.closed
    with pytest.raises(NotFound):
        house.sessions.find(session.id, "a")
    assert house.closed == [1]
    assert house.leases.held == {}
    assert house.ended() == {"closed": 1}


def test_more_than_the_most_are_refused_with_when_to_try_again() -> None:
    house = House(SessionRules(max_sessions=2))
    first, _ = house.open(), house.open()
    with pytest.raises(Overloaded, match="2 live sessions run; allowed are 2") as refused:
        house.open()
    assert refused.value.retry_after_s
    assert len(house.avatars) == 2  # none was opened for it
    house.sessions.end(first)
    house.open()
    assert house.sessions.stats().refused == 1


def test_a_session_that_is_being_opened_counts() -> None:
    house = House(SessionRules(max_sessions=1))
    refused: list[Overloaded] = []

    def open_another() -> None:
        if not refused:
            with pytest.raises(Overloaded) as error:
                house.open()
            refused.append(error.value)

    house.on_open = open_another
    house.open()
    assert len(refused) == 1


def test_a_thousand_attempts_leave_nothing_behind() -> None:
    house = House(SessionRules(max_sessions=5), leases=FakeLeases(3))
    opened: list[LiveSession] = []
    for attempt in range(1000):
        try:
            opened.append(house.open(("anna", "unknown", "broken")[attempt % 3]))
        except (Overloaded, NotFound, AvatarInvalid):
            continue
    assert len(opened) == len(house.leases.held) == 3
    stats = house.sessions.stats()
    assert (stats.active, stats.opened) == (3, 3)
    assert stats.refused >= 331
    assert sum(house.closed) == len(house.closed) - 3
    assert max(house.closed) == 1
    assert len(house.pacer) == 4
    for session in opened:
        house.sessions.end(session)
    assert set(house.closed) == {1}
    assert not house.leases.held
    house.run(2.0)
    assert len(house.pacer) == 1


@pytest.mark.parametrize("model_id", ["unknown", "broken"])
def test_what_opening_raises_is_raised(model_id: str) -> None:
    house = House()
    with pytest.raises((NotFound, AvatarInvalid)):
        house.open(model_id)
    assert house.sessions.stats().active == 0
    assert not house.leases.held
    assert all(count == 1 for count in house.closed)


def test_where_the_machine_carries_no_more_the_avatar_is_closed() -> None:
    house = House(leases=FakeLeases(0))
    with pytest.raises(Overloaded, match="0 fit"):
        house.open()
    assert house.closed == [1]
    assert house.sessions.stats().refused == 1
    assert len(house.pacer) == 1


def test_a_session_ends_after_its_longest_time() -> None:
    house = House(SessionRules(max_duration_s=60))
    session = house.open()
    for _ in range(58):
        house.sessions.keep_alive(session)
        house.run(1.0)
    assert not house.ended()
    house.run(3.0)
    assert session.ended_because == "max_duration"
    assert house.ended() == {"max_duration": 1}


@pytest.mark.slow
def test_a_session_in_which_nothing_is_said_ends_after_a_while() -> None:
    assert SessionRules().max_idle_s == 15 * 60
    house = House(SessionRules(max_idle_s=90))
    idle, kept, speaking = house.open(), house.open(), house.open()
    for _ in range(8):
        house.run(10.0)
        house.sessions.keep_alive(kept)
        speaking.push(buzz(0.1), 16_000)
    assert not house.ended()
    house.run(12.0)
    assert [session.closed for session in (idle, kept, speaking)] == [True, False, False]
    assert idle.ended_because == "max_idle"
    house.run(70.0)
    assert house.ended() == {"max_idle": 1}
    house.run(30.0)
    assert kept.closed
    assert speaking.closed


def test_a_session_that_nobody_joins_ends() -> None:
    house = House()
    session, joined = house.open(attach=False), house.open()
    house.run(28.0)
    assert not session.closed
    house.run(3.0)
    assert session.ended_because == "nobody_joined_timeout"
    assert not joined.closed
    house.sessions.attach(session)
    house.sessions.detach(session)
    house.sessions.keep_alive(session)
    assert house.ended() == {"nobody_joined_timeout": 1}


def test_a_client_that_comes_back_in_time_finds_the_session_as_it_is() -> None:
    house = House()
    session = house.open()
    house.run(1.0)
    house.sessions.detach(session)
    session.listen(True)
    house.run(28.0)
    assert house.sessions.find(session.id) is session
    house.sessions.attach(session)
    assert not taken(session)  # what nobody took
    house.run(60.0)
    assert session.state is State.LISTENING
    house.sessions.detach(session)
    taken(session)
    house.run(0.1)
    assert frames(taken(session))
    house.run(32.0)
    with pytest.raises(NotFound):
        house.sessions.find(session.id)
    assert session.ended_because == "reconnect_grace"
    assert house.closed == [1]


def test_a_session_with_two_clients_outlives_one_of_them() -> None:
    house = House()
    session = house.open()
    house.sessions.attach(session)
    house.sessions.detach(session)
    house.run(60.0)
    assert not session.closed


def test_without_grace_a_session_ends_with_its_client() -> None:
    house = House(SessionRules(reconnect_grace_s=0))
    session = house.open()
    house.sessions.detach(session)
    assert session.ended_because == "reconnect_grace"


@pytest.mark.parametrize("limit", ["max_sessions", "leases"])
def test_a_session_whose_client_has_gone_makes_room_for_another(limit: str) -> None:
    by_leases = limit == "leases"
    house = House(
        SessionRules(max_sessions=None if by_leases else 3),
        leases=FakeLeases(3 if by_leases else 1000),
    )
    first, second, other = (house.open(tenant=tenant) for tenant in ("", "", "other"))
    for session in (other, second, first):
        house.sessions.detach(session)
        house.run(1.0)
    third = house.open()
    assert [first.closed, second.closed, other.closed] == [False, True, False]
    assert second.ended_because == "made_room"
    house.sessions.attach(first)  # its client has come back
    with pytest.raises(Overloaded):
        house.open()
    assert not any(session.closed for session in (first, third, other))
    assert house.leases.held.keys() == {first.id, third.id, other.id}


class CrossingLeases(FakeLeases):
    """Of a server to which the end of a lease and the next one are on their way at one time: the
    next one is refused, and when that is known, the end is over too."""

    def __init__(self) -> None:
        super().__init__(1)
        self.ending = ""

    def acquire(self, holder: str, model_id: str, call: Call) -> None:
        try:
            super().acquire(holder, model_id, call)
        finally:
            self.held.pop(self.ending, None)

    def release(self, holder: str) -> None:
        self.ending = holder


def test_the_room_of_a_session_that_has_just_ended_is_found() -> None:
    house = House(leases=CrossingLeases())
    first = house.open()
    house.sessions.end(first)
    second = house.open()
    assert house.leases.held.keys() == {second.id}


def test_what_a_session_was_is_told_once_it_has_ended() -> None:
    told: list[SessionUsage] = []
    house = House(on_end=told.append)
    session = house.open(tenant="acme")
    session.push(buzz(0.4), 16_000)
    session.end_of_speech()
    house.run(2.0)
    house.sessions.end(session)
    house.sessions.end(session)
    (usage,) = told
    assert (usage.tenant, usage.avatar, usage.reason) == ("acme", "anna", "closed")
    assert usage.lasted_s == pytest.approx(2.0)
    assert usage.spoken_s == pytest.approx(0.4)
    assert usage.mouths == 10
    assert 0 < usage.frames <= 50


def test_leases_are_renewed_while_a_session_lives() -> None:
    house = House()
    session = house.open()
    house.run(61.0)
    renewed = house.leases.acquired[session.id] - 1
    assert 60 / LEASE_S < renewed <= 61 / LEASE_S * 3
    house.leases.fails = True
    house.run(20.0)
    assert not session.closed
    house.sessions.end(session)
    house.run(20.0)
    assert house.leases.held == {}


def test_a_lease_that_takes_long_to_renew_is_asked_for_once() -> None:
    house = House()
    session = house.open()

    def looked_at_again() -> None:
        for passed_s in range(3, 12, 3):
            house.sessions.on_due(house.clock.now + passed_s)

    house.leases.meanwhile = looked_at_again
    house.run(LEASE_S - 1)
    assert house.leases.acquired[session.id] == 2, "the first one, and one renewal"


def test_a_session_that_shows_an_avatar_until_nobody_speaks_ends_with_it() -> None:
    house = House()
    session = house.open("anna")
    session.push(buzz(5), RATE_HZ)
    house.run(1.0)
    for other in ("berta", "clara"):  # in place of each other
        house.sessions.change_avatar(session, other, Call(1.0, service="live"))
    assert house.sessions.shown() == {"anna", "clara"}
    house.sessions.end_all_of("berta")
    assert not session.closed
    house.sessions.end_all_of("anna")
    assert session.ended_because == "avatar_removed"


def test_the_lease_is_for_the_avatar_that_is_shown() -> None:
    house = House()
    session = house.open()
    house.sessions.change_avatar(session, "berta", Call(1.0, service="live"))
    house.run(12.0)
    assert house.leases.held == {session.id: "berta"}
    assert house.closed == [1, 0]
    with pytest.raises(NotFound):
        house.sessions.change_avatar(session, "unknown", Call(1.0, service="live"))
    house.sessions.end(session)
    assert house.closed == [1, 1]
    house.sessions.change_avatar(session, "clara", Call(1.0, service="live"))
    assert house.closed == [1, 1, 1]
    assert not house.leases.held


def test_draining_refuses_and_tells() -> None:
    house = House()
    session = house.open()
    taken(session)
    house.sessions.drain(30.0)
    with pytest.raises(Unavailable, match="shutting down"):
        house.open()
    (told,) = (item for item in taken(session) if isinstance(item, GoingAway))
    assert told.reason == "the server is shutting down"
    assert told.left_s == 30
    assert not session.closed


def test_a_session_whose_opening_outlasts_the_others_is_not_begun() -> None:
    house = House()
    house.on_open = house.sessions.close
    with pytest.raises(Unavailable):
        house.open()
    assert house.closed == [1]
    assert house.sessions.stats().active == 0
    assert not house.leases.held
    house.run(1.0)
    assert len(house.pacer) == 0


def test_closing_ends_all_and_frees_everything() -> None:
    house = House()
    opened = [house.open() for _ in range(10)]
    opened[0].push(buzz(1), 16_000)
    house.run(0.5)
    known = [weakref.ref(session) for session in opened]
    house.sessions.close()
    house.sessions.close()
    assert {session.ended_because for session in opened} == {"the server is shutting down"}
    assert all(isinstance(session.error, Unavailable) for session in opened)
    assert house.closed == [1] * 10
    assert not house.leases.held
    opened.clear()
    house.run(2.0)
    assert len(house.pacer) == 0
    gc.collect()
    assert [session() for session in known] == [None] * 10


def test_a_session_that_failed_is_counted_and_freed() -> None:
    house = House()
    session = house.open()
    session.close("error", Unavailable("gone"))
    with pytest.raises(NotFound):
        house.sessions.find(session.id)
    house.run(1.5)
    assert house.ended() == {"error": 1}
    assert not house.leases.held


def test_each_session_has_its_own_id_and_outbox() -> None:
    house = House()
    sessions = [house.open() for _ in range(5)]
    assert len({session.id for session in sessions}) == 5
    sessions[2].push(buzz(0.4), 16_000)
    house.run(1.0)
    for index, session in enumerate(sessions):
        assert any(sound.speech for sound in sounds(taken(session))) == (index == 2)
