"""Live sessions of a server are admitted by what its networks carry."""

import pytest
from tests.support.waiting import WAIT_S, until
from tests.wiring.servers.asking import Serve

from lipwire.domain import Call, Overloaded
from lipwire.rpc.conversing import AvatarConnection
from lipwire.rpc.received import Refused
from lipwire.serving import SpeedLeases
from lipwire.wiring import servers


@pytest.mark.slow
def test_sessions_are_refused_where_no_more_fit(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers, "SHARE", 1e-6)  # only the one that is always admitted fits
    connection = serve()
    assert connection.health(WAIT_S).live_capacity == 0  # not known yet
    with AvatarConnection(connection.address) as server:
        with server.converse("a"):
            with pytest.raises(Overloaded, match="1 live session runs here; 1 fit, as a frame of"):
                server.converse("b")
            health = connection.health(WAIT_S)
            assert (health.live_sessions, health.live_capacity) == (1, 1)
        until(lambda: connection.health(WAIT_S).live_sessions == 0)
        with server.converse("b"):
            assert connection.health(WAIT_S).live_sessions == 1


def test_the_configuration_limits_what_the_speed_allows(serve: Serve) -> None:
    connection = serve("live: {max_sessions: 1}")
    with AvatarConnection(connection.address) as server, server.converse("a"):
        assert connection.health(WAIT_S).live_capacity == 1


def test_another_avatar_is_admitted_by_its_own_speed(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str]] = []

    def acquire(self: SpeedLeases, holder: str, model_id: str, call: Call) -> None:
        asked.append((holder, model_id))
        if model_id == "c":
            raise Overloaded("no room for c")

    monkeypatch.setattr(SpeedLeases, "acquire", acquire)
    with AvatarConnection(serve().address) as server, server.converse("a") as session:
        session.change_avatar("b")
        session.change_avatar("c")
        refused = next(got for got in session if isinstance(got, Refused))
        assert (refused.error_code, refused.error) == ("RESOURCE_EXHAUSTED", "no room for c")
        assert asked == [(session.id, name) for name in "abc"]
