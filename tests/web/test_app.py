"""The routes of the HTTP API, and what they answer when something is wrong."""

import http.client
import json
import socket
from collections.abc import Iterator
from typing import Any, get_args

import numpy as np
import pytest
from tests.support.waiting import until
from tests.support.webfront import house_asked
from tests.support.webparts import TOKEN, Answer, WebHouse

from lipwire.domain import Overloaded
from lipwire.domain.errors import StatusCode
from lipwire.session.live import LiveSession, SessionRules

PCM = {"Content-Type": "audio/pcm"}


@pytest.fixture(params=["here", pytest.param("passed on", marks=pytest.mark.slow)])
def house(request: pytest.FixtureRequest) -> Iterator[WebHouse]:
    """Asked itself, and through another process of the same server."""
    with house_asked(request.param) as house:
        yield house


def fails(answer: Answer, status: int, *words: str) -> dict[str, Any]:
    """Check that it is a problem of that status, and return its members."""
    assert answer.status == status, answer
    assert answer.media_type == "application/problem+json"
    body: dict[str, Any] = answer.json
    assert body["status"] == status
    assert body["type"] == "about:blank"
    assert body["title"]
    assert body["code"] in ("INTERNAL", "UNIMPLEMENTED", *get_args(StatusCode))
    for word in words:
        assert word in body["detail"], body
    for inside in ("Traceback", ".py", "site-packages", "/work", "/home"):
        assert inside not in answer.body.decode()
    return body


def samples(seconds: float, rate_hz: int = 16_000) -> bytes:
    return np.full(round(seconds * rate_hz), 9000, "<i2").tobytes()


def test_a_session_begins_is_found_and_ends(house: WebHouse) -> None:
    begun = house.ask("POST", "/v1/sessions", {"avatar": "bert"})
    assert begun.status == 201
    found = house.ask("GET", begun.headers["location"])
    assert found.json == begun.json
    assert found.json["avatar"] == "bert"
    assert found.json["state"] == "idle"
    assert (found.json["width"], found.json["height"], found.json["viewers"]) == (64, 64, 0)
    assert house.ask("DELETE", begun.headers["location"]).status == 204
    fails(house.ask("GET", begun.headers["location"]), 404, "no such session")
    assert house.avatars[0].closed == 1


def test_small_answers_are_sent_at_once(house: WebHouse) -> None:
    assert house.ask("GET", "/healthz").status == 200
    connection = http.client.HTTPConnection("127.0.0.1", house.server.port, timeout=60)
    connection.request("GET", "/healthz")
    connection.getresponse().read()
    server = house.server._server
    assert server is not None
    until(lambda: len(server.server_state.connections) == 1)
    (kept,) = server.server_state.connections
    accepted = kept.transport.get_extra_info("socket")
    assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    connection.close()


def test_avatars_and_health_are_told(house: WebHouse) -> None:
    assert house.ask("GET", "/v1/avatars").json == {"avatars": [{"id": "anna"}, {"id": "bert"}]}
    assert house.ask("GET", "/healthz").json == {"status": "ok"}
    assert house.ask("GET", "/readyz").json["status"] == "ready"
    house.healthy = lambda: False
    answer = house.ask("GET", "/readyz")
    fails(answer, 503)
    assert answer.headers["retry-after"] == "1"


def test_the_page_and_its_files_are_served(house: WebHouse) -> None:
    page = house.ask("GET", "/")
    assert (page.status, page.media_type) == (200, "text/html")
    assert house.ask("GET", "/lipwire.js").media_type == "text/javascript"
    fails(house.ask("GET", "/no/such/file"), 404)
    fails(house.ask("GET", "/../app.py"), 404)
    fails(house.ask("GET", "/%2e%2e/app.py"), 404)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/v1/sessions", {"GET", "HEAD", "POST"}),
        ("POST", "/v1/avatars", {"GET", "HEAD"}),
        ("GET", "/whep/anna", {"POST", "OPTIONS"}),
    ],
)
def test_other_methods_are_refused(
    house: WebHouse, method: str, path: str, allowed: set[str]
) -> None:
    answer = house.ask(method, path)
    fails(answer, 405)
    assert set(answer.headers["allow"].split(", ")) == allowed


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{", "no JSON"),
        (b"\xff", "no JSON"),
        (b"[" * 200_000, "no JSON"),
        (b"[]", "no JSON object"),
        (b"{}", "avatar"),
        (b'{"avatar": 3}', "avatar"),
    ],
)
def test_a_session_needs_the_name_of_an_avatar(house: WebHouse, body: bytes, words: str) -> None:
    fails(house.ask("POST", "/v1/sessions", body), 400, words)
    assert house.sessions.stats().active == 0


def test_errors_of_avatars_have_their_statuses(house: WebHouse) -> None:
    body = fails(house.ask("POST", "/v1/sessions", {"avatar": "carl"}), 404, "carl")
    assert body["code"] == "NOT_FOUND"
    fails(house.ask("POST", "/v1/sessions", {"avatar": "broken"}), 409, "no frames")
    fails(house.ask("POST", "/v1/sessions", b'{"avatar": "\\ud800"}'), 404)


def test_one_session_too_many_is_told_when_to_come_back_and_how_many_run() -> None:
    with WebHouse(SessionRules(max_sessions=1)) as house:
        house.open()
        answer = house.ask("POST", "/v1/sessions", {"avatar": "anna"})
        body = fails(answer, 429, "1 live sessions run")
        assert body["active"] == 1
        assert int(answer.headers["retry-after"]) >= 1


def test_a_server_that_stops_begins_no_sessions(house: WebHouse) -> None:
    house.sessions.drain(1.0)
    answer = house.ask("POST", "/v1/sessions", {"avatar": "anna"})
    fails(answer, 503, "shutting down")
    assert "retry-after" in answer.headers


def test_what_nobody_foresaw_is_told_without_its_inside(house: WebHouse) -> None:
    def healthy() -> bool:
        raise RuntimeError("a secret")

    house.healthy = healthy
    body = fails(house.ask("GET", "/readyz"), 500)
    assert "secret" not in str(body)
    assert len(body["incident"]) == 8


def test_bodies_have_a_largest_size(house: WebHouse) -> None:
    session = house.open()
    connection = http.client.HTTPConnection("127.0.0.1", house.server.port, timeout=60)
    headers = {
        "Authorization": f"Bearer {TOKEN}",
        "Content-Type": "audio/pcm",
        "Content-Length": str(1 << 40),
    }
    connection.request("POST", f"/v1/sessions/{session}/speak", None, headers)
    answer = connection.getresponse()
    assert answer.status == 413
    assert b"larger than" in answer.read()
    connection.close()
    much = b" " * (1024 * 1024 + 1)
    fails(house.ask("POST", "/v1/sessions", much), 413)


# -- who may ask -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 403),
        ({"Authorization": "Bearer wrong"}, 403),
        ({"Authorization": "Bearer \xe4"}, 403),
        ({"Authorization": f"Bearer {TOKEN}"}, 201),
        ({"Authorization": f"Bearer {TOKEN}", "Origin": "https://evil.example"}, 201),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Host": "localhost:81", "Origin": "http://localhost:81"}, 201),
        ({"Host": "localhost:81", "Origin": "http://localhost:82"}, 403),
        ({"Host": "evil.example", "Origin": "http://evil.example"}, 403),
        ({"Host": "x", "Origin": "http://x"}, 201),
    ],
)
def test_only_the_own_page_or_the_token_changes_something(
    house: WebHouse, headers: dict[str, str], status: int
) -> None:
    answer = house.ask("POST", "/v1/sessions", {"avatar": "anna"}, headers, token=None)
    assert answer.status == status, answer
    if status == 403:
        fails(answer, 403)
    assert house.sessions.stats().active == (status == 201)


def test_nothing_is_read_under_a_foreign_name(house: WebHouse) -> None:
    fails(house.ask("GET", "/v1/avatars", headers={"Host": "evil.example"}), 403, "evil.example")
    assert house.ask("GET", "/v1/avatars", token=None).status == 200


def test_ids_of_sessions_are_listed_for_who_has_the_token(house: WebHouse) -> None:
    ids = {house.open(), house.open("bert")}
    told = house.ask("GET", "/v1/sessions", token=None).json
    assert told == {"active": 2, "most": None, "opened": 2}
    told = house.ask("GET", "/v1/sessions").json
    assert {one["id"] for one in told["sessions"]} == ids
    assert {one["avatar"] for one in told["sessions"]} == {"anna", "bert"}


# -- speech ----------------------------------------------------------------------------------------


def test_audio_is_spoken(house: WebHouse) -> None:
    session = house.open()
    answer = house.ask("POST", f"/v1/sessions/{session}/speak?rate=16000", samples(2), PCM)
    assert (answer.status, answer.json) == (202, {"seconds": 2.0})
    house.time.run(0.5)
    assert house.session(session).state.value == "speaking"
    assert house.session(session).counts.spoken_ms > 0
    house.time.run(3)
    assert house.session(session).state.value == "idle"


def test_parts_of_audio_are_one_piece_of_speech(house: WebHouse) -> None:
    session = house.open()
    for end in (0, 0, 1):
        path = f"/v1/sessions/{session}/speak?rate=16000&end={end}"
        assert house.ask("POST", path, samples(0.2), PCM).status == 202
    house.time.run(3)
    assert house.session(session).counts.spoken_ms == 600


@pytest.mark.parametrize(
    ("query", "body", "words"),
    [
        ("rate=x", b"", "rate is x"),
        ("rate=3", b"\0\0", "3"),
        ("rate=16000&channels=0", b"", "channels is 0"),
        ("channels=2", b"\0\0", "2 bytes"),
        ("end=maybe", b"", "end is maybe"),
    ],
)
def test_audio_that_is_none_is_refused(
    house: WebHouse, query: str, body: bytes, words: str
) -> None:
    session = house.open()
    fails(house.ask("POST", f"/v1/sessions/{session}/speak?{query}", body, PCM), 400, words)


def test_speech_needs_a_known_type_and_a_session(house: WebHouse) -> None:
    session = house.open()
    path = f"/v1/sessions/{session}/speak"
    fails(house.ask("POST", path, b"", {"Content-Type": "audio/mpeg"}), 415, "audio/mpeg")
    fails(house.ask("POST", "/v1/sessions/none/speak", b"", PCM), 404)
    fails(house.ask("POST", "/v1/sessions/none/interrupt"), 404)
    fails(house.ask("GET", "/v1/sessions/none/events"), 404)
    fails(house.ask("POST", path, {"text": "Hello"}), 501, "no voice")
    fails(house.ask("POST", path, {"text": " "}), 400, "text")


def test_texts_are_given_to_the_voice() -> None:
    said: list[str] = []

    def speak(session: LiveSession, text: str) -> None:
        if said:
            raise Overloaded("8 texts wait", retry_after_s=2.0)
        said.append(text)

    with WebHouse(speak=speak) as house:
        path = f"/v1/sessions/{house.open()}/speak"
        answer = house.ask("POST", path, {"text": "Guten Tag \u2603"})
        assert (answer.status, answer.json) == (202, {"said": "Guten Tag \u2603"})
        answer = house.ask("POST", path, {"text": "More"})
        assert fails(answer, 429)["active"] == 1
        assert answer.headers["retry-after"] == "2"
        fails(
            house.ask("POST", path, b'{"text": "\\ud800"}', {"Content-Type": "application/json"}),
            400,
        )
        assert said == ["Guten Tag \u2603"]


def test_an_interrupt_gets_through_while_audio_waits_for_room(house: WebHouse) -> None:
    """Requests that wait hold no thread: there are more of them than threads."""
    session = house.open()
    path = f"/v1/sessions/{session}/speak?rate=16000"
    waiting = [
        http.client.HTTPConnection("127.0.0.1", house.server.port, timeout=60) for _ in range(4)
    ]
    for connection in waiting:
        connection.request("POST", path, samples(62), {**PCM, "Authorization": f"Bearer {TOKEN}"})
    until(lambda: not house.session(session).silent)
    until(lambda: house.hub.audio(house.session(session)).waiting == 4)
    fails(house.ask("POST", path, samples(1), PCM), 429, "wait")
    assert house.ask("POST", f"/v1/sessions/{session}/interrupt").status == 204
    for connection in waiting:
        assert connection.getresponse().status == 202
        connection.close()
    assert house.session(session).silent
    house.time.run(1)
    assert house.session(session).silent


# -- events ----------------------------------------------------------------------------------------


def events(answer: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
    while line := answer.readline():
        if line.startswith(b"data: "):
            yield json.loads(line[6:])


def test_events_are_told_to_the_end(house: WebHouse) -> None:
    session = house.open()
    connection = http.client.HTTPConnection("127.0.0.1", house.server.port, timeout=60)
    connection.request("GET", f"/v1/sessions/{session}/events")
    answer = connection.getresponse()
    assert answer.headers.get_content_type() == "text/event-stream"
    told = events(answer)
    assert next(told)["id"] == session
    house.ask("POST", f"/v1/sessions/{session}/speak?rate=16000", samples(0.2), PCM)
    house.time.run(3)
    house.ask("DELETE", f"/v1/sessions/{session}")
    kinds = [event["type"] for event in told]
    assert "speech_began" in kinds
    assert "speech_ended" in kinds
    assert kinds[-1] == "ended"
    connection.close()


def test_who_stops_reading_events_leaves_no_output(house: WebHouse) -> None:
    session = house.session(house.open())
    connection = http.client.HTTPConnection("127.0.0.1", house.server.port, timeout=60)
    connection.request("GET", f"/v1/sessions/{session.id}/events")
    answer = connection.getresponse()
    answer.readline()
    assert len(session._outputs) == 1
    answer.close()
    connection.close()
    until(lambda: not session._outputs)
