"""What ``lipwire embed`` prints, in a site of another origin: a page with a ticket and no key."""

import json
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from threading import Thread
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest
from tests.support.waiting import until
from tests.web.page.visits import BROWSER, SIZE, Open, Visit, serving

from lipwire.cli.app import app
from lipwire.security import KeyFile

pytestmark = BROWSER

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class Quiet(WSGIRequestHandler):
    """Logs nothing."""

    def log_message(self, format: str, *args: object) -> None:
        pass


class Site:
    """A site: a page, and the program that gives tickets."""

    page = b""
    backend: Application | None = None

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/" or self.backend is None:
            start_response("200 OK", [("Content-Type", "text/html; charset=utf-8")])
            return [self.page]
        return self.backend(environ, start_response)


@pytest.fixture
def site() -> Iterator[tuple[Site, str]]:
    """A site, and its origin."""
    site = Site()
    with make_server("127.0.0.1", 0, site, handler_class=Quiet) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield site, f"http://localhost:{server.server_port}"
        server.shutdown()
        thread.join()


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    app(["embed", "anna", *arguments], standalone_mode=False)
    return capsys.readouterr().out


def test_a_page_of_another_origin_talks_with_a_ticket_alone(
    root: Path,
    tmp_path: Path,
    site: tuple[Site, str],
    visit: Open,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here, origin = site
    keys = tmp_path / "keys.json"
    key = KeyFile(keys).create("shop", tenant="acme", operations=["live"], avatars=["anna"])
    audit = tmp_path / "audit.jsonl"
    more = f"security: {{keys_file: {keys}, audit_file: {audit}}}"
    with serving(
        root, tmp_path / "c.yaml", web={"allowed_origins": [origin]}, more=more
    ) as address:
        page = printed(capsys, "--server", address)
        made: dict[str, Any] = {"__name__": "site"}
        program = printed(capsys, "--server", address, "--backend", "--origin", origin)
        exec(compile(program, "backend.py", "exec"), made)
        monkeypatch.setenv("LIPWIRE_TOKEN", key)
        here.page = b"<!doctype html>" + page.encode()
        here.backend = made["application"]
        sent: list[str] = []
        visited = visit(origin, prepare=lambda page: page.on("request", sent_by(sent)))
        talked(visited, "Good morning.")
        # What the page has of it is of no use elsewhere.
        tickets = {text for text in sent if "lipwire_ticket_" in text}
        assert len(tickets) == 1
        assert not any(key in text for text in sent)
        refused = visited.page.evaluate(
            """async ([server, authorization]) => (await fetch(`${server}v1/sessions`, {
                method: 'POST',
                headers: { authorization, 'content-type': 'application/json' },
                body: '{"avatar": "anna"}',
            })).status""",
            [address, tickets.pop()],
        )
        assert refused == 401
    rows = [json.loads(line) for line in audit.read_text().splitlines()]
    calls = {row["call"] for row in rows}
    assert {"POST /v1/tickets", "POST /whep/anna", "POST /v1/sessions/{id}/speak"} <= calls
    assert {row["subject"] for row in rows if row["outcome"] == "OK"} == {"key shop"}


def sent_by(sent: list[str]) -> Callable[[Any], None]:
    def heard(request: Any) -> None:
        sent.extend(value for name, value in request.headers.items() if name == "authorization")
        sent.append(request.url)

    return heard


def talked(here: Visit, text: str) -> None:
    """Have the avatar say ``text``, and wait until it is seen and heard."""
    here.page.fill("input[name=text]", text)
    here.page.click("button")
    until(
        lambda: here.value("video.videoWidth") == SIZE[0],
        seen=lambda: (here.page.inner_text("body"), here.errors),
    )
    before = here.value("video.currentTime")
    until(lambda: here.value("video.currentTime") > before + 0.5)
    here.shows("output", text)


TALK = """async ([server, ticket, media]) => {
    const { LipwireSession } = await import(server + 'lipwire.js')
    const video = document.body.appendChild(document.createElement('video'))
    video.muted = true
    const connections = []
    globalThis.RTCPeerConnection = class extends RTCPeerConnection {
        constructor(...given) { super(...given); connections.push(this) }
    }
    const session = new LipwireSession(), heard = (name) => new Promise((resolve) =>
        session.addEventListener(name, ({ detail }) => resolve(detail), { once: true }))
    session.attach(video)
    const asked = []
    await session.connect({ server, avatar: 'anna', media, ticket: async () => {
        asked.push(ticket)
        return ticket
    } })
    if (media === 'webrtc') {
        const again = heard('reconnected')
        Object.defineProperty(connections[0], 'connectionState', { value: 'failed' })
        connections[0].onconnectionstatechange()
        await again
    }
    const began = heard('speech_began')
    await session.speak(new Int16Array(16_000).fill(9000))
    const { speech } = await began
    const { width } = await session.statistics()
    await session.end()
    return { speech, width, asked: asked.length }
}"""


@pytest.mark.parametrize("media", ["webrtc", "pictures"])
def test_the_module_does_all_with_the_secret_of_its_session(
    root: Path, tmp_path: Path, site: tuple[Site, str], visit: Open, media: str
) -> None:
    origin = site[1]
    keys = tmp_path / "keys.json"
    key = KeyFile(keys).create("shop", tenant="acme", operations=["live"])
    with serving(
        root,
        tmp_path / "c.yaml",
        web={"allowed_origins": [origin]},
        more=f"security: {{keys_file: {keys}}}",
    ) as address:
        asked = urllib.request.Request(
            f"{address}v1/tickets",
            json.dumps({"avatar": "anna", "origin": origin}).encode(),
            {"Authorization": f"Bearer {key}"},
        )
        with urllib.request.urlopen(asked, timeout=60) as answer:
            ticket = json.load(answer)["ticket"]
        told = visit(origin).page.evaluate(TALK, [address, ticket, media])
    assert told == {"speech": 1, "width": SIZE[0], "asked": 1}
