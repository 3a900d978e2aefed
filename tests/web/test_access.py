"""The HTTP API of a server that tells callers apart: every call, with every credential."""

import datetime
import json
import shutil
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import quote

import pytest
from tests.support.waiting import until
from tests.support.webparts import TOKEN, Answer, WebHouse
from tests.support.webviewer import SDP, WebViewer
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from lipwire.domain import InvalidInput
from lipwire.security import AccessControl, AllowedAddresses, AuditLog, KeyFile
from lipwire.security.devcerts import make_certificates

PCM: Final = {"Content-Type": "audio/pcm"}
CALLS: Final[list[tuple[str, str]]] = [
    ("GET", "/v1/avatars"),
    ("GET", "/v1/sessions"),
    ("POST", "/v1/sessions"),
    ("GET", "/v1/sessions/{id}"),
    ("POST", "/v1/sessions/{id}/speak"),
    ("POST", "/v1/sessions/{id}/interrupt"),
    ("POST", "/whep/anna"),
    ("POST", "/whep/anna?session={id}"),
    ("DELETE", "/whep/anna/viewer/{id}"),
    ("PATCH", "/whep/anna/viewer/{id}"),
    ("socket", "/v1/sessions/{id}/socket"),
    ("DELETE", "/v1/sessions/{id}"),
]


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, str]:
    file = KeyFile(tmp_path / "keys.json")
    return {
        "none": "",
        "unknown": "lipwire_a_b",
        "wrong token": "a.b.c",
        "expired": file.create("expired", lifetime_s=-1),
        "other operations": file.create("idle", operations=["manage"]),
        "other avatar": file.create("other", tenant="acme", avatars=["bert"]),
        "other tenant": file.create("rival", tenant="rival"),
        "right": file.create("right", tenant="acme", operations=["live", "read"]),
        "server's": TOKEN,
    }


@pytest.fixture
def control(tmp_path: Path, keys: dict[str, str]) -> Iterator[AccessControl]:
    audit = AuditLog(tmp_path / "audit.jsonl")
    with AccessControl(keys=KeyFile(tmp_path / "keys.json"), audit=audit) as control:
        yield control


@pytest.fixture
def house(control: AccessControl) -> Iterator[WebHouse]:
    with WebHouse(control=control) as house:
        yield house


@pytest.fixture(scope="module")
def offer() -> Iterator[str]:
    """What a viewer offers."""
    with WebHouse() as nobody, WebViewer(nobody) as viewer:
        yield viewer.offer()


def status(house: WebHouse, method: str, path: str, key: str, offer: str = "") -> int:
    token = key or None
    if method == "socket":
        query = f"?token={quote(key)}" if key else ""
        try:
            with connect(f"ws://127.0.0.1:{house.port}{path}{query}"):
                return 101
        except InvalidStatus as refused:
            return refused.response.status_code
    if path.endswith("/speak"):
        return house.ask(method, path, bytes(320), PCM, token=token).status
    if "/whep/" in path and method == "POST":
        return house.ask(method, path, offer, SDP, token=token).status
    body = {"avatar": "anna"} if path == "/v1/sessions" and method == "POST" else None
    return house.ask(method, path, body, token=token).status


def expected(method: str, path: str, who: str) -> int:
    if who in ("none", "unknown", "wrong token", "expired"):
        return 401
    if who == "other operations":
        return 403
    if method == "GET" and path in ("/v1/avatars", "/v1/sessions"):
        return 200
    if "/whep/" in path and method == "POST":
        of_a_session = "?" in path
        seen = who == "right" or (who in ("server's", "other tenant") and not of_a_session)
        return 201 if seen else 404
    if path.startswith("/whep/"):
        return 404  # there is no such viewer
    if path == "/v1/sessions":
        return 404 if who == "other avatar" else 201
    if who != "right":
        return 404
    return {"GET": 200, "socket": 101, "DELETE": 204}.get(
        method, 202 if path.endswith("/speak") else 204
    )


@pytest.mark.slow
@pytest.mark.parametrize(("method", "path"), CALLS, ids=[" ".join(call) for call in CALLS])
def test_every_call_with_every_credential(
    house: WebHouse, keys: dict[str, str], offer: str, method: str, path: str
) -> None:
    made = house.ask("POST", "/v1/sessions", {"avatar": "anna"}, token=keys["right"]).json
    found, wanted = {}, {}
    for who, key in keys.items():
        found[who] = status(house, method, path.replace("{id}", made["id"]), key, offer)
        wanted[who] = expected(method, path, who)
    assert found == wanted


def test_a_page_of_the_servers_own_needs_a_key_as_well(
    house: WebHouse, keys: dict[str, str]
) -> None:
    own = {"Origin": f"http://127.0.0.1:{house.port}"}
    body = {"avatar": "anna"}
    refused = house.ask("POST", "/v1/sessions", body, own, token=None)
    assert refused.status == 401
    assert refused.headers["www-authenticate"] == "Bearer"
    assert refused.json["code"] == "UNAUTHENTICATED"
    assert house.ask("POST", "/v1/sessions", body, own, token=keys["right"]).status == 201
    given = {"X-Api-Key": keys["right"]}
    assert house.ask("POST", "/v1/sessions", body, given, token=None).status == 201


@pytest.mark.parametrize("path", ["/", "/lipwire.js", "/healthz", "/readyz", "/openapi.json"])
def test_what_shows_nothing_of_anybody_needs_no_key(house: WebHouse, path: str) -> None:
    assert house.ask("GET", path, token=None).status == 200


def test_one_tenant_sees_nothing_of_another(house: WebHouse, keys: dict[str, str]) -> None:
    def names(who: str) -> list[str]:
        told = house.ask("GET", "/v1/avatars", token=keys[who]).json
        return [one["id"] for one in told["avatars"]]

    def sessions(who: str) -> list[str]:
        told = house.ask("GET", "/v1/sessions", token=keys[who]).json
        return [one["id"] for one in told["sessions"]]

    assert names("right") == ["anna", "bert"]
    assert names("other avatar") == ["bert"]
    made = house.ask("POST", "/v1/sessions", {"avatar": "anna"}, token=keys["right"]).json["id"]
    assert sessions("right") == [made]
    assert sessions("other avatar") == sessions("other tenant") == []
    hidden = house.ask("POST", "/v1/sessions", {"avatar": "anna"}, token=keys["other avatar"])
    missing = house.ask("POST", "/v1/sessions", {"avatar": "zoe"}, token=keys["other avatar"])
    assert (hidden.status, missing.status) == (404, 404)


def test_what_is_asked_for_is_recorded_without_ids(
    house: WebHouse, keys: dict[str, str], tmp_path: Path
) -> None:
    made = house.ask("POST", "/v1/sessions", {"avatar": "anna"}, token=keys["right"]).json["id"]
    path = f"/v1/sessions/{made}/speak"
    house.ask("POST", path, {"text": "hush"}, token=keys["right"])
    status(house, "socket", f"/v1/sessions/{made}/socket", keys["right"])
    house.ask("POST", "/v1/sessions", {"avatar": "anna"}, token=keys["unknown"])
    house.ask("GET", "/healthz")
    text = tmp_path / "audit.jsonl"
    until(lambda: len(text.read_text().splitlines()) == 4)
    rows = [json.loads(line) for line in text.read_text().splitlines()]
    found = sorted((row["call"], row["outcome"], row["subject"], row["tenant"]) for row in rows)
    assert found == [
        ("POST /v1/sessions", "OK", "key right", "acme"),
        ("POST /v1/sessions", "UNAUTHENTICATED", "", ""),
        ("POST /v1/sessions/{id}/speak", "UNIMPLEMENTED", "key right", "acme"),
        ("WebSocket /v1/sessions/{id}/socket", "OK", "key right", "acme"),
    ]
    assert {row["address"] for row in rows} == {"127.0.0.1"}
    assert made not in text.read_text()
    assert "hush" not in text.read_text()


def test_requests_from_elsewhere_are_refused() -> None:
    control = AccessControl(allow_from=AllowedAddresses(["192.0.2.0/24"]))
    with WebHouse(control=control) as house:
        assert house.ask("GET", "/v1/avatars", token=None).status == 403
        assert house.ask("GET", "/v1/avatars").status == 403  # with the server's own token, too
        assert house.ask("GET", "/healthz", token=None).status == 200


# -- TLS -----------------------------------------------------------------------------------------


def fetched(port: int, ca: Path) -> int:
    context = ssl.create_default_context(cafile=str(ca))
    with urllib.request.urlopen(
        f"https://localhost:{port}/healthz", timeout=60, context=context
    ) as answer:
        return int(answer.status)


@pytest.mark.slow
def test_the_page_is_encrypted_and_its_certificate_renewed(tmp_path: Path) -> None:
    now = datetime.datetime.now(datetime.UTC)
    for name in ("old", "new"):
        make_certificates(tmp_path / name, ["localhost"], now=now)
    used = shutil.copytree(tmp_path / "old", tmp_path / "used")
    with WebHouse(certificate=(used / "server.crt", used / "server.key")) as house:
        assert fetched(house.port, tmp_path / "old" / "ca.crt") == 200
        with pytest.raises(urllib.error.URLError):
            fetched(house.port, tmp_path / "new" / "ca.crt")
        for name in ("server.key", "server.crt"):  # half of it is wrong for a moment
            shutil.copy(tmp_path / "new" / name, used / name)

        def renewed() -> bool:
            try:
                return fetched(house.port, tmp_path / "new" / "ca.crt") == 200
            except urllib.error.URLError:
                return False

        until(renewed)


def test_what_is_no_certificate_is_told(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    with pytest.raises(InvalidInput, match=r"server\.tls\.cert .* no certificate"):
        WebHouse(certificate=(tmp_path / "a", tmp_path / "a"))


def test_answers_are_problems(house: WebHouse, keys: dict[str, str]) -> None:
    answer: Answer = house.ask("GET", "/v1/avatars", token=keys["other operations"])
    assert answer.media_type == "application/problem+json"
    assert answer.json["code"] == "PERMISSION_DENIED"
    assert "key idle may do manage" in answer.json["detail"]
