"""What clients are told of limits, over HTTP and the WebSocket."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import pytest
from tests.support.webparts import TOKEN, Answer, WebHouse
from websockets.sync.client import connect

from lipwire.security import (
    AccessControl,
    KeyFile,
    LimitRules,
    LiveMinutes,
    Standing,
    TenantLimits,
)
from lipwire.web.ratelimits import rate_limit_fields

MIB = 1 << 20
PCM = {"Content-Type": "audio/pcm"}
QUOTA = "https://iana.org/assignments/http-problem-types#quota-exceeded"


@pytest.fixture
def key(tmp_path: Path) -> str:
    return KeyFile(tmp_path / "keys.json").create("shop", tenant="acme")


@pytest.fixture
def limited(tmp_path: Path, key: str) -> Iterator[WebHouse]:
    limits = TenantLimits(LimitRules(requests_per_minute=6, upload_mb_per_minute=1))
    with (
        AccessControl(keys=KeyFile(tmp_path / "keys.json"), limits=limits) as control,
        WebHouse(control=control) as house,
    ):
        yield house


def left(answer: Answer) -> dict[str, int]:
    """What the answer says is left of each limit."""
    found = re.findall(r'"(\w+)";r=(\d+);t=(\d+)', answer.headers["ratelimit"])
    assert all(int(after) <= 60 for _, _, after in found)
    return {name: int(remaining) for name, remaining, _ in found}


def test_the_fields_are_as_the_draft_has_them() -> None:
    assert rate_limit_fields([]) == {}
    told = [
        Standing("requests", 600, 60, 598, 29.2),
        Standing("frames", 2500, 10, 0, 0.0),
        Standing("upload", MIB, 60, 7, 60.0),
    ]
    assert rate_limit_fields(told) == {
        "RateLimit-Policy": '"requests";q=600;w=60, "frames";q=2500;w=10;qu="frames",'
        ' "upload";q=1048576;w=60;qu="content-bytes"',
        "RateLimit": '"requests";r=598;t=30, "frames";r=0;t=0, "upload";r=7;t=60',
    }


def test_answers_say_what_is_left_and_refusals_what_was_too_much(
    limited: WebHouse, key: str
) -> None:
    for count in range(6):
        answer = limited.ask("GET", "/v1/sessions", token=key)
        assert (answer.status, left(answer)) == (200, {"requests": 5 - count, "upload": MIB})
    refused = limited.ask("GET", "/v1/sessions", token=key)
    assert (refused.status, left(refused)["requests"]) == (429, 0)
    assert int(refused.headers["retry-after"]) >= 1
    assert refused.json["type"] == QUOTA
    assert refused.json["violated-policies"] == ["requests"]
    assert refused.json["code"] == "RESOURCE_EXHAUSTED"
    for answer in (
        limited.ask("GET", "/healthz", token=key),
        limited.ask("GET", "/v1/sessions", token=None),
    ):
        assert "ratelimit" not in answer.headers


def test_bodies_and_messages_of_a_tenant_are_counted_together(limited: WebHouse, key: str) -> None:
    session = limited.ask("POST", "/v1/sessions", {"avatar": "anna"}, token=key).json["id"]
    path = f"/v1/sessions/{session}"
    large = limited.ask("POST", f"{path}/speak", bytes(MIB), PCM, token=key)
    assert (large.status, large.json["violated-policies"]) == (429, ["upload"])
    with connect(f"ws://127.0.0.1:{limited.port}{path}/socket?token={key}") as socket:
        assert json.loads(socket.recv(60))["type"] == "session"
        socket.send(bytes(MIB // 2))
        socket.send(bytes(MIB // 2))
        told = {"type": ""}
        while told["type"] != "error":
            told = json.loads(socket.recv(60))
        assert told["code"] == "RESOURCE_EXHAUSTED"
        assert "more than 1 MiB a minute" in told["message"]
        socket.send('{"type": "keep_alive"}')  # it goes on
        socket.send('{"type": "nonsense"}')
        while told.get("code") != "INVALID_ARGUMENT":
            told = json.loads(socket.recv(60))
    after = limited.ask("POST", f"{path}/speak", bytes(MIB // 4), PCM, token=key)
    assert after.status == 202
    assert MIB // 4 - 1000 < left(after)["upload"] < MIB // 4


def test_messages_of_text_count_as_the_bytes_that_they_came_as(limited: WebHouse, key: str) -> None:
    session = limited.ask("POST", "/v1/sessions", {"avatar": "anna"}, token=key).json["id"]
    before = left(limited.ask("GET", "/v1/sessions", token=key))["upload"]
    address = f"ws://127.0.0.1:{limited.port}/v1/sessions/{session}/socket?token={key}"
    text = json.dumps({"type": "\u2603" * 1000}, ensure_ascii=False)
    with connect(address) as socket:
        socket.send(text)
        while json.loads(socket.recv(60))["type"] != "error":
            pass
    after = left(limited.ask("GET", "/v1/sessions", token=key))["upload"]
    assert before - after == len(text.encode()) > 3000


def test_used_up_minutes_are_402_with_how_many(tmp_path: Path) -> None:
    began_s = datetime(2030, 1, 15, tzinfo=UTC).timestamp()
    minutes = LiveMinutes(tmp_path / "minutes.json", 1, now=lambda: began_s)
    with WebHouse(minutes=minutes) as house:
        session = house.open()
        path = f"/v1/sessions/{session}/socket?token={quote(TOKEN)}"
        with connect(f"ws://127.0.0.1:{house.port}{path}") as socket:
            assert json.loads(socket.recv(60))["type"] == "session"
            house.time.run(61)
            told = {"type": ""}
            while told["type"] != "ended":
                told = json.loads(socket.recv(60))
            assert told["reason"] == "minutes_used_up"
        refused = house.ask("POST", "/v1/sessions", {"avatar": "anna"})
    assert (refused.status, refused.media_type) == (402, "application/problem+json")
    assert int(refused.headers["retry-after"]) == 17 * 24 * 3600
    assert refused.json == {
        "type": QUOTA,
        "title": "Used up",
        "status": 402,
        "detail": "this server has used 1 minutes of live sessions this month; allowed are 1, and"
        " the next month begins on 2030-02-01 (UTC)",
        "code": "RESOURCE_EXHAUSTED",
        "request_id": refused.headers["x-request-id"],
        "violated-policies": ["live-minutes"],
        "used_minutes": pytest.approx(1, abs=0.1),
        "allowed_minutes": 1,
    }
