"""Webhooks, received by a real server."""

import base64
import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tests.support.renderparts import Maker, Opened, ended, opened_renders, order
from tests.support.waiting import Clock, until

from lipwire.domain import InvalidInput
from lipwire.renders import RenderRules, WebhookRules
from lipwire.renders.webhooks import key_of, pause_s, signature

SECRET = "a secret of tests alone"


@dataclass
class Receiver:
    """Answers with ``statuses``, one after the other, then with 204."""

    port: int = 0
    statuses: list[int] = field(default_factory=list)
    received: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    def types(self) -> list[str]:
        return [json.loads(body)["type"] for _, body in self.received]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    known = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            known.received.append((headers, body))
            self.send_response(known.statuses.pop(0) if known.statuses else 204)
            self.send_header("Location", "http://127.0.0.1:1/")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        known.port = server.server_port
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield known
        server.shutdown()
        thread.join()


def test_each_end_is_told_with_a_signature(
    opened: Opened, receiver: Receiver, maker: Maker
) -> None:
    maker.fails = [InvalidInput("it is no speech")]
    renders = opened(webhooks=WebhookRules(SECRET, receiver.url))
    failed = ended(renders, renders.submit(order(), None, 0))
    until(lambda: len(receiver.received) == 1)
    done = ended(renders, renders.submit(order(), None, 0))
    until(lambda: len(receiver.received) == 2)
    maker.held.set()
    cancelled = renders.submit(order(), None, 0)
    renders.cancel(cancelled.id)
    until(lambda: len(receiver.received) == 3)
    assert receiver.types() == ["render.failed", "render.done", "render.cancelled"]
    told = [json.loads(body)["data"] for _, body in receiver.received]
    assert [one["id"] for one in told] == [failed.id, done.id, cancelled.id]
    assert told[0]["error"]["detail"] == "it is no speech"
    assert told[1]["video"]["url"] == f"/v1/renders/{done.id}/video.mp4"
    for headers, body in receiver.received:
        assert headers["content-type"] == "application/json"
        signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        digest = hmac.new(SECRET.encode(), signed, hashlib.sha256).digest()
        assert headers["webhook-signature"] == "v1," + base64.b64encode(digest).decode()


def test_the_signature_is_that_of_standard_webhooks() -> None:
    """The example of https://github.com/standard-webhooks/standard-webhooks."""
    key = key_of("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    told = signature(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert told == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.slow
@pytest.mark.parametrize("status", [500, 429, 404, 302])
def test_what_was_not_taken_is_sent_again_after_a_restart(
    folder: Path, maker: Maker, receiver: Receiver, status: int
) -> None:
    clock, rules = Clock(), WebhookRules(SECRET, receiver.url)
    receiver.statuses = [status]
    with opened_renders(folder, maker, webhooks=rules, now=clock) as renders:
        ended(renders, renders.submit(order(), None, 0))
        until(lambda: len(receiver.received) == 1)
    with opened_renders(folder, maker, webhooks=rules, now=clock) as renders:
        renders.sweep()
        assert len(receiver.received) == 1, "its pause is not over"
        clock.now += 40  # longer than the pause, and than anybody would keep a message
        until(lambda: len(receiver.received) == 2)
    (first, body), (second, again) = receiver.received
    assert (first["webhook-id"], body) == (second["webhook-id"], again)
    assert first["webhook-timestamp"] != second["webhook-timestamp"]
    assert first["webhook-signature"] != second["webhook-signature"]
    with opened_renders(folder, maker, webhooks=rules, now=clock) as renders:
        assert waiting(renders) == 0


def waiting(renders: Any) -> int:
    """How many messages are to be sent."""
    with renders._jobs._database.reading() as connection:
        (count,) = connection.execute("SELECT COUNT(*) FROM webhooks").fetchone()
    return int(count)


@pytest.mark.parametrize(("status", "tries"), [(410, 12), (500, 1)])
def test_who_wants_none_or_never_answers_is_not_asked_again(
    opened: Opened, receiver: Receiver, status: int, tries: int
) -> None:
    receiver.statuses = [status]
    renders = opened(webhooks=WebhookRules(SECRET, receiver.url, max_tries=tries))
    ended(renders, renders.submit(order(), None, 0))
    until(lambda: receiver.received and waiting(renders) == 0)


def test_a_url_of_an_order_leads_to_public_addresses_alone(
    opened: Opened, receiver: Receiver
) -> None:
    renders = opened(webhooks=WebhookRules(SECRET, None, of_orders=True))
    assert renders.takes_webhooks
    ended(renders, renders.submit(order(webhook=receiver.url), None, 0))
    until(lambda: waiting(renders) == 0)
    assert receiver.received == []


def test_nobody_is_told_by_urls_that_the_rules_do_not_take(
    opened: Opened, receiver: Receiver
) -> None:
    renders = opened(webhooks=WebhookRules(SECRET, receiver.url))
    assert not renders.takes_webhooks
    ended(renders, renders.submit(order(webhook="https://example.org/"), None, 0))
    until(lambda: receiver.received and waiting(renders) == 0)
    assert len(receiver.received) == 1


def test_pauses_grow_up_to_an_hour() -> None:
    pauses = [pause_s(tries) for tries in (1, 2, 3, 9, 10, 11, 12, 5000)]
    assert pauses == [5, 10, 20, 1280, 2560, 3600, 3600, 3600]


def test_secrets_in_base64_have_to_be_some() -> None:
    assert key_of("whsec_YWJj") == b"abc"
    assert key_of("plain") == b"plain"
    with pytest.raises(ValueError, match="Base64"):
        key_of("whsec_?")


def test_an_end_is_told_also_where_the_process_was_killed_right_after(
    folder: Path, maker: Maker, receiver: Receiver
) -> None:
    """The message is written down in one step with the end itself."""
    rules = WebhookRules(SECRET, receiver.url)
    unreachable = WebhookRules(SECRET, "http://127.0.0.1:1/", max_tries=5)
    with opened_renders(folder, maker, webhooks=unreachable) as renders:
        ended(renders, renders.submit(order(), None, 0))
        assert waiting(renders) == 1
    with opened_renders(folder, maker, RenderRules(workers=0), webhooks=rules) as renders:
        assert waiting(renders) == 1
