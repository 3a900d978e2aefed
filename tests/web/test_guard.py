"""What becomes of a request that is refused, seen from between the server and the app."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from starlette.types import Message, Receive, Scope, Send
from tests.support.webparts import TOKEN, WebHouse

from lipwire.domain import EVERYTHING, Access, Unauthenticated
from lipwire.security import (
    OPEN,
    AccessControl,
    AllowedAddresses,
    AuditLog,
    FolderStore,
    LimitRules,
    TenantLimits,
    Tickets,
)
from lipwire.web.guard import Guard, access_of
from lipwire.web.problems import Told, refuse

ORIGIN: Final = "https://app.example"
App = Callable[[Scope, Receive, Send], Awaitable[None]]


@pytest.fixture
def tickets(tmp_path: Path) -> Tickets:
    """Those of a server of several processes."""
    return Tickets(FolderStore(tmp_path / "tickets"))


@pytest.fixture
def audited(tmp_path: Path) -> Iterator[AccessControl]:
    with AccessControl(audit=AuditLog(tmp_path / "audit.jsonl")) as control:
        yield control


def scope_of(kind: str, token: str, *, denial: bool = True) -> Scope:
    """Of a request that opens a session."""
    headers = [(b"host", b"localhost"), (b"origin", ORIGIN.encode())]
    made: dict[str, Any] = {
        "type": kind,
        "path": "/v1/sessions" if kind == "http" else "/v1/socket",
        "headers": [*headers, (b"authorization", f"Bearer {token}".encode())],
        "query_string": b"avatar=anna",
        "client": ("192.0.2.7", 50_000),
    }
    if kind == "http":
        made["method"] = "POST"
    elif denial:
        made["extensions"] = {"websocket.http.response": {}}
    return made


def passed(
    app: App,
    scope: Scope,
    tickets: Tickets | None = None,
    control: AccessControl = OPEN,
    on_send: Callable[[Message], object] = lambda message: None,
) -> list[Message]:
    """What a request is answered that ``app`` answers behind a guard."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        on_send(message)
        sent.append(message)

    async def receive() -> Message:
        raise AssertionError("nothing is read")

    guard = Guard(app, hosts=["x"], token=TOKEN, control=control, tickets=tickets)
    asyncio.run(guard(scope, receive, send))
    return sent


async def refuses(scope: Scope, receive: Receive, send: Send) -> None:
    await refuse(scope, receive, send, Told(404, "no such avatar"))


async def opens(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 201, "headers": []})
    else:
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close"})


async def fails(scope: Scope, receive: Receive, send: Send) -> None:
    raise RuntimeError("nobody foresaw this")


def rows(tmp_path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("kind", "denial"), [("http", True), ("websocket", True), ("websocket", False)]
)
def test_a_ticket_can_be_used_again_when_the_refusal_is_sent(
    tickets: Tickets, kind: str, denial: bool
) -> None:
    ticket = tickets.issue(EVERYTHING, "anna", ORIGIN)
    found: list[Access] = []

    def look(message: Message) -> None:
        found.append(tickets.find(ticket).access)

    scope = scope_of(kind, ticket, denial=denial)
    sent = passed(refuses, scope, tickets, on_send=look)
    assert sent
    assert len(found) == len(sent)


@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_a_ticket_that_opened_a_session_is_used_up_before_that_is_told(
    tickets: Tickets, kind: str
) -> None:
    ticket = tickets.issue(EVERYTHING, "anna", ORIGIN)

    def look(message: Message) -> None:
        with pytest.raises(Unauthenticated):
            tickets.find(ticket)

    assert passed(opens, scope_of(kind, ticket), tickets, on_send=look)


def test_a_ticket_is_given_back_where_nobody_foresaw_the_error(tickets: Tickets) -> None:
    ticket = tickets.issue(EVERYTHING, "anna", ORIGIN)
    with pytest.raises(RuntimeError):
        passed(fails, scope_of("http", ticket), tickets)
    assert tickets.find(ticket)


# -- the record ------------------------------------------------------------------------------------


async def breaks_off(scope: Scope, receive: Receive, send: Send) -> None:
    await opens(scope, receive, send)
    raise RuntimeError("nobody foresaw this")


@pytest.mark.parametrize("app", [fails, breaks_off])
@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_an_error_that_nobody_foresaw_is_recorded_as_internal(
    audited: AccessControl, tmp_path: Path, app: App, kind: str
) -> None:
    with pytest.raises(RuntimeError):
        passed(app, scope_of(kind, TOKEN), control=audited)
    assert [row["outcome"] for row in rows(tmp_path)] == ["INTERNAL"]


@pytest.mark.parametrize("denial", [True, False])
def test_a_refused_socket_is_recorded_as_refused(
    audited: AccessControl, tmp_path: Path, denial: bool
) -> None:
    passed(refuses, scope_of("websocket", TOKEN, denial=denial), control=audited)
    (row,) = rows(tmp_path)
    assert row["outcome"] == ("NOT_FOUND" if denial else "PERMISSION_DENIED")


def test_a_client_that_has_gone_is_recorded_as_such(audited: AccessControl, tmp_path: Path) -> None:
    def gone(message: Message) -> None:
        raise OSError

    with pytest.raises(OSError):  # noqa: PT011  # as servers raise it
        passed(opens, scope_of("websocket", TOKEN), control=audited, on_send=gone)
    assert [row["outcome"] for row in rows(tmp_path)] == ["CANCELLED"]


def test_a_server_that_answers_says_what_nobody_foresaw(
    audited: AccessControl, tmp_path: Path
) -> None:
    with WebHouse(control=audited) as house:
        house.hub.sessions.stats = None  # type: ignore[assignment]
        assert house.ask("GET", "/v1/sessions").status == 500
    assert [row["outcome"] for row in rows(tmp_path)] == ["INTERNAL"]


# -- the server's own token ------------------------------------------------------------------------


def test_who_has_the_servers_token_is_recorded(audited: AccessControl, tmp_path: Path) -> None:
    passed(opens, scope_of("http", TOKEN), control=audited)
    (row,) = rows(tmp_path)
    assert (row["subject"], row["tenant"], row["address"]) == ("web.token", "", "192.0.2.7")


def test_the_servers_token_may_do_everything() -> None:
    seen: list[Access] = []

    async def look(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(access_of(scope))

    passed(look, scope_of("http", TOKEN), control=AccessControl(limits=TenantLimits(LimitRules(9))))
    (access,) = seen
    assert (access.tenant, access.session, access.sees_all) == ("", "", True)
    assert access.operations == EVERYTHING.operations


def test_the_servers_token_counts_from_allowed_addresses_alone() -> None:
    for allowed, status in (("192.0.2.0/24", 201), ("198.51.100.0/24", 403)):
        control = AccessControl(allow_from=AllowedAddresses([allowed]))
        first = passed(opens, scope_of("http", TOKEN), control=control)[0]
        assert first["status"] == status


def test_the_servers_token_is_refused_where_calls_have_to_be_recorded_and_cannot_be(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    now = [0.0]
    audit = AuditLog(folder / "audit", required=True, now=lambda: now[0])
    (folder / "audit").unlink()
    folder.rmdir()
    now[0] += 5
    audit.write({"number": 1})
    with AccessControl(audit=audit) as control:
        first = passed(opens, scope_of("http", TOKEN), control=control)[0]
    assert first["status"] == 429


def test_the_servers_token_has_limits_of_its_own() -> None:
    control = AccessControl(limits=TenantLimits(LimitRules(requests_per_minute=1)))
    control.enter(EVERYTHING, "live")  # a page of the server's own
    found = [passed(opens, scope_of("http", TOKEN), control=control)[0] for _ in range(2)]
    assert [one["status"] for one in found] == [201, 429]
