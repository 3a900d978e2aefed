"""Which version of an avatar a session shows, and who is told how it does."""

from collections.abc import Iterator
from contextlib import contextmanager

from tests.session.live.sessionhouse import House
from tests.support.liveparts import SETTINGS

from lipwire.domain import AvatarInvalid, Call
from lipwire.domain.versions import Chosen, who_of
from lipwire.session.live.observer import SessionObserver


class ByVersion(SessionObserver):
    """Notes of which version sessions are told, and how they fail."""

    def __init__(self) -> None:
        self.versions: list[str] = []
        self.failures: list[str] = []

    def of(self, chosen: Chosen) -> SessionObserver:
        self.versions.append(chosen.name)
        return self

    def failed(self, code: str) -> None:
        self.failures.append(code)


def test_a_version_is_chosen_by_the_sessions_id_or_its_client() -> None:
    whos: list[str] = []

    @contextmanager
    def choose(avatar: str, who: str, service: str) -> Iterator[Chosen]:
        assert service == "live"
        whos.append(who)
        yield Chosen(avatar, f"{avatar}:new", "canary")

    observer = ByVersion()
    house = House(choose=choose, observer=observer)
    session = house.open(tenant="a")
    assert house.asked == ["anna:new"]
    assert house.leases.held == {session.id: "anna:new"}
    assert house.sessions.shown() == {"anna"}
    house.sessions.change_avatar(session, "bert", Call(1.0, service="live"))
    assert house.leases.held == {session.id: "bert:new"}
    house.run(0.1)
    assert house.sessions.shown() == {"bert"}
    call = Call(1.0, service="live", client="screen 3")
    other = house.sessions.open("anna", SETTINGS, tenant="a", call=call)
    assert whos == [who_of("a", session.id)] * 2 + [who_of("a", "screen 3")]
    assert observer.versions == ["anna:new", "bert:new", "anna:new"]
    house.sessions.attach(other)
    house.run(11.0)  # leases are renewed
    assert house.leases.held[session.id] == "bert:new"


def test_of_a_session_that_fails_its_versions_observer_is_told() -> None:
    observer = ByVersion()
    house = House(observer=observer)
    session = house.open()
    session.close("error", AvatarInvalid("its network fails"))
    house.run(2.0)
    assert house.ended() == {"error": 1}
    assert observer.failures == ["FAILED_PRECONDITION"]
    house.sessions.end(house.open())
    house.open()
    house.sessions.close()
    assert len(observer.failures) == 1
