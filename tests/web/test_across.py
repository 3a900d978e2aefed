"""Two web servers in this process, each at its place, as processes of one would be."""

import http.client
import json
import socket
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import pytest
from tests.support.waiting import until
from tests.support.webfront import FrontedHouse
from tests.support.webparts import TOKEN, WebHouse
from tests.support.webviewer import FRAGMENT, SDP, WebViewer
from tests.web.test_app import PCM, fails, samples
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from lipwire.rpc.workers import WorkerPlace, socket_folder
from lipwire.session.live import SessionRules
from lipwire.web import across
from lipwire.web.across import AcrossWorkers, WebWorkers


@pytest.fixture
def folder() -> Iterator[Path]:
    with socket_folder() as path:
        yield path


@pytest.fixture
def pair(folder: Path) -> Iterator[list[WebHouse]]:
    rules = SessionRules(max_sessions=4, reconnect_grace_s=30)
    with (
        WebHouse(rules, place=WorkerPlace(folder, 0, 2)) as first,
        WebHouse(rules, place=WorkerPlace(folder, 1, 2)) as second,
    ):
        yield [first, second]


def socket_of(house: WebHouse, session_id: str) -> Any:
    url = f"ws://127.0.0.1:{house.server.port}/v1/sessions/{session_id}/socket"
    return connect(f"{url}?token={quote_plus(TOKEN)}", proxy=None)


def test_sessions_begin_where_there_are_the_fewest(pair: list[WebHouse]) -> None:
    ids = [pair[0].open() for _ in range(4)]
    assert sorted(one.partition(".")[0] for one in ids) == ["0", "0", "1", "1"]
    for house in pair:
        assert house.sessions.stats().active == 2
    for house in pair:
        refused = fails(house.ask("POST", "/v1/sessions", {"avatar": "anna"}), 429, "4 live")
        assert refused["active"] == 4
    for index in (0, 1):  # whoever has one less gets the next
        gone = next(one for one in ids if one.startswith(f"{index}."))
        assert pair[0].ask("DELETE", f"/v1/sessions/{gone}").status == 204
        ids.remove(gone)
        ids.append(pair[1].open())
        assert ids[-1].startswith(f"{index}.")


def test_sessions_that_are_being_opened_count() -> None:
    async def app(*_: object) -> None:
        raise AssertionError("not asked")

    counts = {0: 1, 1: 1, 2: 3}
    workers = WebWorkers(1, {0: Path("0"), 2: Path("2")}, lambda session_id: None, lambda: counts)
    spread = AcrossWorkers(app, workers)
    chosen = []
    for _ in range(7):
        chosen.append(spread._fewest())
        spread._beginning[chosen[-1]] = spread._beginning.get(chosen[-1], 0) + 1
    assert chosen == [1, 0, 1, 0, 1, 0, 2]


def test_every_call_about_a_session_reaches_it(pair: list[WebHouse]) -> None:
    for session_id in (pair[0].open("bert"), pair[0].open("bert")):
        own = pair[int(session_id[0])]
        path = f"/v1/sessions/{session_id}"
        for house in pair:
            told = house.ask("GET", path).json
            assert (told["id"], told["avatar"]) == (session_id, "bert")
            said = house.ask("POST", f"{path}/speak?end=0", samples(0.5), PCM)
            assert (said.status, said.json) == (202, {"seconds": 0.5})
            assert house.ask("POST", f"{path}/interrupt").status == 204
            with socket_of(house, session_id) as connection:
                assert json.loads(connection.recv(60))["id"] == session_id
                connection.send(json.dumps({"type": "listening", "listening": True}))
                own.time.run(0.04)
                until(lambda: own.session(session_id).state.value == "listening")  # noqa: B023
                connection.send(json.dumps({"type": "listening", "listening": False}))
            fails(house.ask("GET", f"{path}/nothing"), 404)
            fails(house.ask("POST", path), 405)
        assert own.session(session_id)
        assert pair[1].ask("DELETE", path).status == 204
        for house in pair:
            fails(house.ask("GET", path), 404, "no such session")


def test_who_may_ask_is_looked_at_first(pair: list[WebHouse]) -> None:
    session_id = next(one for one in (pair[0].open(), pair[0].open()) if one.startswith("1."))
    path = f"/v1/sessions/{session_id}"
    fails(pair[0].ask("DELETE", path, token=None), 403, "token")
    fails(pair[0].ask("GET", path, headers={"Host": "elsewhere"}), 403, "elsewhere")
    fails(pair[0].ask("POST", "/v1/sessions", {"avatar": "anna"}, token="no"), 403)
    assert pair[1].session(session_id)


def test_lists_are_about_all(pair: list[WebHouse]) -> None:
    ids = {pair[0].open() for _ in range(3)}
    for house in pair:
        told = house.ask("GET", "/v1/sessions").json
        assert {one["id"] for one in told.pop("sessions")} == ids
        assert told == {"active": 3, "most": 4, "opened": 3}
        unknown = house.ask("GET", "/v1/sessions", token=None).json
        assert unknown == {"active": 3, "most": 4, "opened": 3}


def test_a_list_says_who_is_missing(
    pair: list[WebHouse], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair[0].open()
    own = pair[0].open()
    assert own.startswith("1.")
    pair[0].close()
    told = pair[1].ask("GET", "/v1/sessions").json
    assert [one["id"] for one in told.pop("sessions")] == [own]
    assert told == {"active": 1, "most": 4, "opened": 1, "detail": "worker 0 is not there"}
    monkeypatch.setattr(across, "_LIST_WITHIN_S", 0.2)
    with socket.socket(socket.AF_UNIX) as silent:
        path = WorkerPlace(folder, 0, 2).web_socket()
        path.unlink(missing_ok=True)
        silent.bind(str(path))
        silent.listen()
        told = pair[1].ask("GET", "/v1/sessions").json
        assert told["detail"] == "worker 0 has not answered within 0.2 s"


def test_sessions_of_one_that_has_ended_are_not_found_and_the_others_live_on(
    pair: list[WebHouse],
) -> None:
    first, own = pair[0].open(), pair[0].open()
    assert (first[0], own[0]) == ("0", "1")
    pair[0].close()
    path = f"/v1/sessions/{first}"
    for method, end in (("GET", ""), ("DELETE", ""), ("POST", "/interrupt"), ("GET", "/events")):
        problem = fails(pair[1].ask(method, path + end), 404, "no such session")
        assert problem["code"] == "NOT_FOUND"
    fails(pair[1].ask("POST", f"/whep/anna?session={first}", "v=0", SDP), 404)
    fails(pair[1].ask("DELETE", f"/whep/anna/x/{first}"), 404)
    with pytest.raises(InvalidStatus) as refused:
        socket_of(pair[1], first)
    assert refused.value.response.status_code == 404
    assert pair[1].ask("GET", f"/v1/sessions/{own}").status == 200
    assert [pair[1].open()[0] for _ in range(3)] == ["1"] * 3  # its places are free


def test_a_session_begins_here_where_the_chosen_one_is_not_there(folder: Path) -> None:
    with FrontedHouse(folder) as house:
        house.behind.close()
        answer = house.ask("POST", "/v1/sessions", {"avatar": "anna"})
        assert answer.status == 201
        assert house._empty.find(answer.json["id"])


def test_what_was_open_ends_with_the_process(folder: Path) -> None:
    with FrontedHouse(folder) as house:
        session_id = house.open()
        asking = http.client.HTTPConnection("127.0.0.1", house.server.port, timeout=60)
        asking.request("GET", f"/v1/sessions/{session_id}/events")
        events = asking.getresponse()
        assert events.readline() == b"event: session\n"
        with socket_of(house, session_id) as connection:
            connection.recv(60)
            house.behind.close()
            with pytest.raises(ConnectionClosed):
                deque((connection.recv(60) for _ in range(1000)), maxlen=0)
            with pytest.raises(http.client.IncompleteRead):
                events.read()
        asking.close()


def test_an_id_that_names_nobody_is_looked_for_here(pair: list[WebHouse]) -> None:
    for session_id in ("7.x", "x", "-1.x", "1"):
        fails(pair[0].ask("GET", f"/v1/sessions/{session_id}"), 404, "no such session")


@pytest.mark.slow
@pytest.mark.parametrize("asked", [0, 1])
def test_viewers_get_media_from_the_one_that_has_the_session(
    pair: list[WebHouse], asked: int
) -> None:
    pair[1 - asked].open()  # so that the next begins at the other
    with WebViewer(pair[1 - asked]) as first, WebViewer(pair[asked]) as second:
        first.view()
        session_id = first.location.rpartition("/")[2]
        own = pair[int(session_id[0])]
        assert own is pair[asked]
        second.view(f"/whep/anna?session={session_id}")

        def both() -> bool:
            own.time.run(0.04)
            return len(first.pictures) >= 3 and len(second.pictures) >= 3

        until(both)
        for house in pair:
            assert house.ask("GET", f"/v1/sessions/{session_id}").json["viewers"] == 2
        assert pair[1 - asked].ask("OPTIONS", first.location).status == 204
        fails(pair[1 - asked].ask("PATCH", first.location), 415)
        restart = "a=ice-ufrag:other\r\na=ice-pwd:restarted"
        fails(pair[1 - asked].ask("PATCH", first.location, restart, FRAGMENT), 422)
        assert pair[1 - asked].ask("DELETE", first.location).status == 200
        until(lambda: own.ask("GET", f"/v1/sessions/{session_id}").json["viewers"] == 1)
