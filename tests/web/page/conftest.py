"""A server with two avatars, and a browser to see its page with."""

import io
import shutil
import wave
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    FilePayload,
    Page,
    sync_playwright,
)
from tests.conftest import make_package_at
from tests.web.page.visits import ARGUMENTS, CHROMIUM, SIZE, Open, Visit, serving

from lipwire.audio import decode_audio
from lipwire.domain import SAMPLE_RATE_HZ


class Elsewhere(BaseHTTPRequestHandler):
    """An empty page."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two avatars whose frames stand still: what moves in them is the mouth."""
    root = tmp_path_factory.mktemp("avatars")
    first = make_package_at(root / "anna", frames=1, size=SIZE)
    shutil.copytree(first, root / "bert")
    return root


@pytest.fixture(scope="module")
def address(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(root, tmp_path_factory.mktemp("server") / "compositing.yaml") as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*ARGUMENTS])
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: Browser) -> Iterator[Open]:
    """``visit(address, prepare=lambda page: ..., **options)``: a page in a browser of its own, or
    in another tab of the one that ``context`` is."""
    contexts: list[BrowserContext] = []

    def opened(
        address: str,
        prepare: Callable[[Page], object] = id,
        context: BrowserContext | None = None,
        **options: Any,
    ) -> Visit:
        if context is None:
            context = browser.new_context(viewport={"width": 900, "height": 700}, **options)
            contexts.append(context)
        page = context.new_page()
        visit = Visit(page)
        page.on("request", lambda request: visit.hosts.add(urlsplit(request.url).netloc))
        page.on("pageerror", lambda error: visit.errors.append(str(error)))
        page.on(
            "console",
            lambda said: visit.errors.append(said.text) if said.type == "error" else None,
        )
        prepare(page)
        page.goto(address)
        return visit

    yield opened
    for context in contexts:
        context.close()


@pytest.fixture(scope="module")
def speech() -> FilePayload:
    """4 s of speech, a WAV file."""
    pcm = decode_audio(Path(str(files("lipwire") / "assets" / "speech" / "sample.flac")))
    samples = np.rint(pcm[: 4 * SAMPLE_RATE_HZ] * 32767).astype("<i2")
    data = io.BytesIO()
    with wave.open(data, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE_HZ)
        file.writeframes(samples.tobytes())
    return {"name": "speech.wav", "mimeType": "audio/wav", "buffer": data.getvalue()}


@pytest.fixture
def elsewhere() -> Iterator[str]:
    """The origin of another server."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()
