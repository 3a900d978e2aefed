"""Tickets of web pages: every call with every ticket, over HTTP, WebSocket and WHEP."""

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import pytest
from tests.support.waiting import Clock, until
from tests.support.webparts import TOKEN, Answer, Asked, WebHouse
from tests.support.webviewer import SDP, WebViewer
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin

from lipwire.domain import Access, NotFound
from lipwire.rpc.workers import WorkerPlace, socket_folder
from lipwire.security import AccessControl, AuditLog, KeyFile, LimitRules, TenantLimits, Tickets
from lipwire.session.live import SessionRules
from lipwire.web.ticketed import SECRET_HEADER

ORIGIN: Final = "https://app.example"
PCM: Final = {"Content-Type": "audio/pcm"}
CALLS: Final[list[tuple[str, str]]] = [
    ("GET", "/v1/avatars"),
    ("GET", "/v1/sessions"),
    ("POST", "/v1/tickets"),
    ("POST", "/v1/sessions"),
    ("POST", "/v1/sessions of bert"),
    ("GET", "/v1/sessions/{id}"),
    ("POST", "/v1/sessions/{id}/speak"),
    ("POST", "/v1/sessions/{id}/interrupt"),
    ("GET", "/v1/sessions/{id}/nothing"),
    ("OPTIONS", "/whep/anna"),
    ("OPTIONS", "/whep/anna?session={id}"),
    ("POST", "/whep/anna"),
    ("POST", "/whep/bert"),
    ("POST", "/whep/anna?session={id}"),
    ("POST", "/whep/anna?session={id}&session="),
    ("DELETE", "/whep/anna/viewer/{id}"),
    ("PATCH", "/whep/anna/viewer/{id}"),
    ("socket", "/v1/sessions/{id}/socket"),
    ("socket", "/v1/sessions"),
    ("socket", "/v1/socket?avatar=anna"),
    ("socket", "/v1/socket?avatar=bert"),
    ("GET", "/v1/socket?avatar=anna"),
    ("DELETE", "/v1/sessions/{id}"),
]
OPENING: Final = ("/v1/sessions", "/v1/sessions of bert", "/whep/anna", "/whep/bert")
"""What a ticket may ask for by POST; with bert there is none."""


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def key(tmp_path: Path) -> str:
    return KeyFile(tmp_path / "keys.json").create(
        "shop", tenant="acme", operations=["live"], avatars=["anna"]
    )


@pytest.fixture
def control(tmp_path: Path, key: str) -> Iterator[AccessControl]:
    audit = AuditLog(tmp_path / "audit.jsonl")
    with AccessControl(keys=KeyFile(tmp_path / "keys.json"), audit=audit) as control:
        yield control


@pytest.fixture
def house(control: AccessControl, clock: Clock) -> Iterator[WebHouse]:
    with WebHouse(control=control, origins=[ORIGIN], tickets=Tickets(now=clock)) as house:
        yield house


@pytest.fixture(scope="module")
def offer() -> Iterator[str]:
    """What a viewer offers."""
    with WebHouse() as nobody, WebViewer(nobody) as viewer:
        yield viewer.offer()


def issued(house: Asked, key: str, **more: object) -> str:
    """A ticket for a page of ``ORIGIN``."""
    answer = house.ask(
        "POST", "/v1/tickets", {"avatar": "anna", "origin": ORIGIN, **more}, token=key
    )
    assert answer.status == 201, answer
    assert answer.headers["cache-control"] == "no-store"
    return str(answer.json["ticket"])


def opened(house: Asked, ticket: str) -> tuple[str, str]:
    """Id and secret of a session."""
    answer = house.ask("POST", "/v1/sessions", {"avatar": "anna"}, {"Origin": ORIGIN}, token=ticket)
    assert answer.status == 201, answer
    return answer.json["id"], answer.headers[SECRET_HEADER.lower()]


def socket_of(port: int, path: str, token: str, origin: str | None) -> int:
    sent = None if origin is None else Origin(origin)
    try:
        join = "&" if "?" in path else "?"
        with connect(f"ws://127.0.0.1:{port}{path}{join}token={quote(token)}", origin=sent):
            return 101
    except InvalidStatus as refused:
        return refused.response.status_code


def asked(
    house: Asked, method: str, path: str, token: str, offer: str, origin: str | None = ORIGIN
) -> Answer:
    headers: Mapping[str, str] = {} if origin is None else {"Origin": origin}
    if method == "socket":
        return Answer(socket_of(house.port, path, token, origin), {}, b"")
    body: Any = None
    if path.endswith("/speak"):
        body, headers = bytes(320), {**headers, **PCM}
    elif method == "POST" and path.startswith("/whep/"):
        body, headers = offer, {**headers, **SDP}
    elif path == "/v1/tickets":
        body = {"avatar": "anna", "origin": ORIGIN}
    elif method == "POST" and path.startswith("/v1/sessions"):
        path, _, avatar = path.partition(" of ")
        body = {"avatar": avatar or "anna"}
    return house.ask(method, path, body, headers, token=token)


def expected(method: str, path: str, who: str) -> int:
    if who in ("used", "expired", "forged", "secret of a session that ended"):
        return 401
    if who in ("ticket elsewhere", "ticket without origin", "secret elsewhere"):
        return 403
    about_one = "{id}" in path and not path.endswith(("nothing", "session="))
    if who == "ticket":
        if method == "socket" and "avatar" in path:
            return 404 if "bert" in path else 101
        if method in ("POST", "OPTIONS") and path in OPENING:
            return 204 if method == "OPTIONS" else 404 if "bert" in path else 201
        return 201 if path.endswith("&session=") else 403
    if not about_one:
        return 403
    if who == "secret of another session":
        return 404
    if path.startswith("/whep/"):
        if "?" in path:
            return {"POST": 201, "OPTIONS": 204}[method]
        return 404  # there is no such viewer
    return {"GET": 200, "socket": 101, "DELETE": 204}.get(
        method, 202 if path.endswith("/speak") else 204
    )


@pytest.mark.slow
@pytest.mark.parametrize(("method", "path"), CALLS, ids=[" ".join(call) for call in CALLS])
def test_every_call_with_every_ticket(
    house: WebHouse, clock: Clock, key: str, offer: str, method: str, path: str
) -> None:
    used = issued(house, key)
    session, secret = opened(house, used)
    _, other = opened(house, issued(house, key))
    gone, ended = opened(house, issued(house, key))
    house.ask("DELETE", f"/v1/sessions/{gone}", token=key)
    expired = issued(house, key, seconds=5)
    clock.now += 5

    def refused_by_now() -> bool:
        return asked(house, "GET", f"/v1/sessions/{gone}", ended, "").status == 401

    until(refused_by_now)
    given: dict[str, tuple[str, str | None]] = {
        "used": (used, ORIGIN),
        "expired": (expired, ORIGIN),
        "forged": (f"lipwire_ticket_{'A' * 43}", ORIGIN),
        "secret of a session that ended": (ended, ORIGIN),
        "ticket elsewhere": (issued(house, key), "https://evil.example"),
        "ticket without origin": (issued(house, key), None),
        "ticket": (issued(house, key), ORIGIN),
        "secret elsewhere": (secret, "https://evil.example"),
        "secret of another session": (other, ORIGIN),
        "secret": (secret, ORIGIN),
    }
    if method == "GET":
        # Of reading browsers do not always say an origin; a ticket allows none.
        del given["ticket without origin"]
    found, wanted = {}, {}
    for who, (token, origin) in given.items():
        place = path.replace("{id}", session)
        found[who] = asked(house, method, place, token, offer, origin).status
        wanted[who] = expected(method, path, who)
    assert found == wanted


def test_a_ticket_opens_one_session_and_is_not_used_by_what_opens_none(
    house: WebHouse, key: str, offer: str
) -> None:
    ticket = issued(house, key)
    headers = {"Origin": ORIGIN}
    for attempt, status in (
        (("POST", "/v1/sessions", {"avatar": "bert"}, headers), 404),
        (("POST", "/v1/sessions", {}, headers), 400),
        (("POST", "/whep/anna", "v=0 nonsense", {**headers, **SDP}), 400),
        (("POST", "/v1/sessions", {"avatar": "anna"}, {"Origin": "https://x.example"}), 403),
        (("POST", "/whep/anna", offer, {**headers, **SDP}), 201),
        (("POST", "/whep/anna", offer, {**headers, **SDP}), 401),
        (("POST", "/v1/sessions", {"avatar": "anna"}, headers), 401),
    ):
        assert house.ask(*attempt, token=ticket).status == status, attempt


def test_a_ticket_opens_a_socket_of_a_new_session_which_is_told_the_secret(
    house: WebHouse, key: str
) -> None:
    ticket = issued(house, key)
    address = f"ws://127.0.0.1:{house.port}/v1/socket"
    for wrong, status in (("", 400), ("&avatar=anna&rate=x", 400), ("&avatar=zoe", 404)):
        with pytest.raises(InvalidStatus) as refused:
            connect(f"{address}?token={ticket}{wrong}", origin=Origin(ORIGIN))
        assert refused.value.response.status_code == status
    assert house.sessions.running == 0
    with connect(f"{address}?avatar=anna&token={ticket}", origin=Origin(ORIGIN)) as socket:
        told = json.loads(socket.recv(60))
        assert (told["type"], told["avatar"]) == ("session", "anna")
        path = f"/v1/sessions/{told['id']}"
        assert asked(house, "POST", f"{path}/speak", told["token"], "").status == 202
        assert socket_of(house.port, "/v1/socket?avatar=anna", ticket, ORIGIN) == 401
    plain = f"{address}?avatar=anna&token={quote(key)}"
    with connect(plain) as socket:
        assert "token" not in json.loads(socket.recv(60))


def test_a_viewer_is_reached_by_the_secret_of_its_session_alone(
    house: WebHouse, key: str, offer: str
) -> None:
    made = [asked(house, "POST", "/whep/anna", issued(house, key), offer) for _ in range(2)]
    first, second = (one.headers["location"].split("/") for one in made)
    secrets = [one.headers[SECRET_HEADER.lower()] for one in made]
    tried = {
        "by its own address": ("/".join(first), secrets[1], 404),
        "through another session": ("/".join([*second[:3], first[3], second[4]]), secrets[1], 404),
        "with both mixed": ("/".join([*second[:3], second[3], first[4]]), secrets[0], 404),
    }
    for path, secret, status in tried.values():
        for method in ("PATCH", "DELETE"):
            assert asked(house, method, path, secret, "").status == status, path
    other = Access("key shop", "acme", session=second[4])  # as the hub itself sees it
    for found in (partial(house.hub.peer, first[3]), house.hub.find):
        found(first[4], replace(other, session=first[4]))
        with pytest.raises(NotFound):
            found(first[4], other)
    for one, secret in zip((first, second), secrets, strict=True):
        assert asked(house, "DELETE", "/".join(one), secret, "").status == 200


def test_the_secret_reads_from_where_headers_cannot_be_sent(house: WebHouse, key: str) -> None:
    session, secret = opened(house, issued(house, key))
    path = f"/v1/sessions/{session}?token={quote(secret)}"
    assert house.ask("GET", path, token=None).status == 200
    assert house.ask("GET", path, None, {"Origin": ORIGIN}, token=None).status == 200
    assert house.ask("GET", path, None, {"Origin": "https://x.example"}, token=None).status == 403
    assert house.ask("DELETE", path, None, {"Origin": ORIGIN}, token=None).status == 401
    in_a_link = house.ask("GET", f"/v1/sessions/{session}?token={quote(key)}", token=None)
    assert in_a_link.status == 401  # a key does not belong into an address


def test_a_session_ends_when_the_minutes_of_its_ticket_are_over(
    house: WebHouse, clock: Clock, key: str
) -> None:
    session, secret = opened(house, issued(house, key, minutes=1))
    with connect(
        f"ws://127.0.0.1:{house.port}/v1/sessions/{session}/socket?token={secret}",
        origin=Origin(ORIGIN),
    ) as socket:
        assert json.loads(socket.recv(60))["id"] == session
        house.time.run(61)
        told = {"type": ""}
        while told["type"] != "ended":
            told = json.loads(socket.recv(60))
        assert told == {"type": "ended", "reason": "ticket_over"}
    clock.now += 60
    assert asked(house, "GET", f"/v1/sessions/{session}", secret, "").status == 401


def test_what_a_page_does_counts_and_is_recorded_for_whoever_asked_for_its_ticket(
    tmp_path: Path, key: str
) -> None:
    file = tmp_path / "audit.jsonl"
    with (
        AccessControl(
            keys=KeyFile(tmp_path / "keys.json"),
            limits=TenantLimits(LimitRules(requests_per_minute=3)),
            audit=AuditLog(file),
        ) as control,
        WebHouse(control=control, origins=[ORIGIN]) as house,
    ):
        ticket, second = issued(house, key), issued(house, key)
        session, secret = opened(house, ticket)
        assert [one.id for one in house.sessions.every("acme")] == [session]
        refused = asked(house, "POST", f"/v1/sessions/{session}/interrupt", secret, "")
        assert (refused.status, refused.json["code"]) == (429, "RESOURCE_EXHAUSTED")
        assert asked(house, "POST", "/v1/sessions", second, "").status == 429
        until(lambda: len(file.read_text().splitlines()) == 5)
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert {row["tenant"] for row in rows} == {"acme"}
    assert {row["subject"] for row in rows} == {"key shop"}
    assert [row["call"] for row in rows[2:]] == [
        "POST /v1/sessions",
        "POST /v1/sessions/{id}/interrupt",
        "POST /v1/sessions",
    ]
    assert not any(text in file.read_text() for text in (ticket, second, secret, session))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "status", "detail"),
    [
        ({"origin": ORIGIN}, 400, 'no "avatar"'),
        ({"avatar": "anna"}, 400, "origin is 'None'; allowed is one as https://app.example.org"),
        ({"avatar": "anna", "origin": f"{ORIGIN}/page"}, 400, "allowed is one as"),
        ({"avatar": "anna", "origin": "*"}, 400, "allowed are pages of"),
        ({"avatar": "anna", "origin": "null"}, 400, "allowed is one as"),
        ({"avatar": "anna", "origin": "https://x.example"}, 400, "web.allowed_origins"),
        ({"avatar": "anna", "origin": ORIGIN, "seconds": 900}, 400, "allowed are 1 to 300"),
        ({"avatar": "anna", "origin": ORIGIN, "minutes": "3"}, 400, "allowed are numbers"),
        ({"avatar": "anna", "origin": ORIGIN, "seconds": 10**400}, 400, "no such number"),
        ({"avatar": "anna", "origin": ORIGIN, "minutes": -(10**400)}, 400, "no such number"),
        ({"avatar": "bert", "origin": ORIGIN}, 404, "no avatar named bert"),
        ({"avatar": "zoe", "origin": ORIGIN}, 404, "no avatar named zoe"),
        ({"avatar": "anna", "origin": "HTTPS://APP.example:443"}, 201, ""),
        ({"avatar": "anna", "origin": "http://localhost:9"}, 201, ""),
    ],
)
def test_what_is_asked_for_is_checked(
    house: WebHouse, key: str, body: dict[str, Any], status: int, detail: str
) -> None:
    answer = house.ask("POST", "/v1/tickets", body, token=key)
    assert answer.status == status, answer
    assert detail in answer.json.get("detail", "")


def test_without_keys_the_servers_token_asks_for_tickets_and_pages_do_not() -> None:
    with WebHouse(origins=["*"]) as house:
        body = {"avatar": "anna", "origin": ORIGIN}
        own = {"Origin": f"http://127.0.0.1:{house.port}"}
        assert house.ask("POST", "/v1/tickets", body, own, token=None).status == 403
        ticket = issued(house, TOKEN)
        begin = ("POST", "/v1/sessions", {"avatar": "anna"}, {"Origin": ORIGIN})
        assert house.ask(*begin, token=None).status == 403
        session, secret = opened(house, ticket)
        assert asked(house, "POST", f"/v1/sessions/{session}/interrupt", secret, "").status == 204
        assert house.ask(*begin, token=ticket).status == 401


@pytest.fixture
def pair(control: AccessControl) -> Iterator[list[WebHouse]]:
    rules = SessionRules(max_sessions=8)
    with (
        socket_folder() as folder,
        WebHouse(rules, control=control, place=WorkerPlace(folder, 0, 2)) as first,
        WebHouse(rules, control=control, place=WorkerPlace(folder, 1, 2)) as second,
    ):
        yield [first, second]


LOCAL: Final = "http://localhost:3000"


def test_sockets_of_new_sessions_begin_where_there_are_the_fewest(
    pair: list[WebHouse], key: str
) -> None:
    with ExitStack() as stack:
        found = []
        for _ in range(4):
            body = {"avatar": "anna", "origin": LOCAL}
            ticket = pair[1].ask("POST", "/v1/tickets", body, token=key).json["ticket"]
            address = f"ws://127.0.0.1:{pair[0].port}/v1/socket?avatar=anna&token={ticket}"
            socket = stack.enter_context(connect(address, origin=Origin(LOCAL)))
            found.append(json.loads(socket.recv(60))["id"].partition(".")[0])
    assert found == ["0", "1", "0", "1"]


def test_of_several_processes_a_ticket_is_used_in_one(
    pair: list[WebHouse], key: str, offer: str
) -> None:
    for first, second in (pair, pair[::-1]):
        for _ in range(2):  # one session begins in each
            body = {"avatar": "anna", "origin": LOCAL}
            ticket = first.ask("POST", "/v1/tickets", body, token=key).json["ticket"]
            made = asked(second, "POST", "/whep/anna", ticket, offer, LOCAL)
            assert made.status == 201
            for house in pair:
                assert asked(house, "POST", "/whep/anna", ticket, offer, LOCAL).status == 401
                assert asked(house, "POST", "/v1/sessions", ticket, "", LOCAL).status == 401
            session = made.headers["location"].rpartition("/")[2]
            secret = made.headers[SECRET_HEADER.lower()]
            for house in pair:
                path = f"/v1/sessions/{session}"
                assert asked(house, "POST", f"{path}/speak", secret, "", LOCAL).status == 202
                assert socket_of(house.port, f"{path}/socket", secret, LOCAL) == 101
            assert asked(first, "DELETE", path, secret, "", LOCAL).status == 204
            for house in pair:
                until(lambda: asked(house, "GET", path, secret, "", LOCAL).status == 401)  # noqa: B023
