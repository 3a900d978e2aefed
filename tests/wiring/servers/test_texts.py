"""Texts go from HTTP and from gRPC to the voice of a server."""

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Generator, Mapping
from typing import Any, cast

import numpy as np
import pytest
from tests.support.waiting import WAIT_S
from tests.wiring.servers.asking import Serve

from lipwire.rpc.conversing import AvatarConnection
from lipwire.rpc.received import Received, Refused
from lipwire.session.live import Caption, SessionSettings
from lipwire.speech import SpokenPiece, sentences
from lipwire.wiring import speaking

TOKEN = "a-token-for-the-tests"


class FakeVoice:
    """Says each sentence for 0.2 s."""

    name = "fake"

    def __init__(self) -> None:
        self.prepared = 0
        self.loaded = threading.Event()
        self.loaded.set()

    def prepare(self) -> None:
        self.loaded.wait(WAIT_S)
        self.prepared += 1

    def say(self, text: str) -> Generator[SpokenPiece, None, None]:
        said = sentences(text)
        return (SpokenPiece(np.full(4800, 0.25, np.float32), 24_000, one) for one in said)


@pytest.fixture
def voice(monkeypatch: pytest.MonkeyPatch) -> FakeVoice:
    """That of every server."""
    voice = FakeVoice()
    monkeypatch.setattr(speaking, "open_voice", lambda settings: voice)
    return voice


def asked(page: str, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    request = urllib.request.Request(
        page.rstrip("/") + path,
        json.dumps(body).encode(),
        {"Content-Type": "application/json", "Authorization": f"Bearer {TOKEN}"},
    )
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def captions(stream: Any, count: int) -> list[str]:
    """So many, which have to come."""
    seen: list[str] = []
    received: Received
    for received in stream:
        assert not isinstance(received, Refused)
        seen += [received.text] if isinstance(received, Caption) else []
        if len(seen) == count:
            return seen
    raise AssertionError(f"it ended after {seen}")


@pytest.mark.slow
def test_a_text_of_a_grpc_client_is_said(serve: Serve, voice: FakeVoice) -> None:
    with (
        AvatarConnection(serve().address) as server,
        server.converse("a", SessionSettings(gate=False)) as session,
    ):
        session.say("One. Two.")
        session.say("Three.")
        assert captions(session, 3) == ["One.", "Two.", "Three."]


@pytest.mark.slow
def test_a_text_is_posted_and_said(
    serve: Serve, voice: FakeVoice, told: dict[str, Mapping[str, object]]
) -> None:
    serve(f"web: {{token: {TOKEN}}}")
    page = cast(str, told["Web"]["Page"])
    assert told["Voice"] == {"Texts are said by": "fake"}
    assert voice.prepared == 1  # before anybody asked
    status, session = asked(page, "/v1/sessions", {"avatar": "a"})
    assert status == 201
    speak = f"/v1/sessions/{session['id']}/speak"
    assert asked(page, speak, {"text": "One. Two."}) == (202, {"said": "One. Two."})
    status, problem = asked(page, speak, {"text": "..."})
    assert (status, problem["code"]) == (400, "INVALID_ARGUMENT")
    assert problem["detail"].startswith("nothing to say")


@pytest.mark.slow
def test_a_server_with_a_page_is_ready_when_its_voice_is(serve: Serve, voice: FakeVoice) -> None:
    voice.loaded.clear()
    threading.Timer(1.0, voice.loaded.set).start()  # long after the rest
    serve(f"web: {{token: {TOKEN}}}")
    assert voice.prepared == 1


def test_without_a_voice_it_is_said(serve: Serve, told: dict[str, Mapping[str, object]]) -> None:
    serve(f"web: {{token: {TOKEN}}}")
    page = cast(str, told["Web"]["Page"])
    _, session = asked(page, "/v1/sessions", {"avatar": "a"})
    status, problem = asked(page, f"/v1/sessions/{session['id']}/speak", {"text": "One."})
    assert status == 501
    assert "lipwire[speech]" in problem["detail"]
    assert "Voice" not in told
