"""Renders of a server that is killed: a real process, started anew."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from signal import SIGKILL
from typing import Any

import numpy as np
import pytest
from tests.cli.conftest import Served, Serving, serving_in
from tests.cli.test_servers_ending import HELD
from tests.support.waiting import until
from tests.support.webparts import Answer, Asked

TOKEN = "a-token-for-the-tests"
PCM = np.random.default_rng(5).integers(-9000, 9000, 8000).astype("<i2").tobytes()


class Site(Asked):
    def __init__(self, served: Served) -> None:
        self.port = int(served.wait_for(r"Page: http://localhost:(\d+)/"))
        served.wait_for("Ready to accept")

    def send(self, method: str, path: str, body: bytes | None = None, key: str = "") -> Answer:
        headers = {"Content-Type": "audio/pcm"} | ({"Idempotency-Key": key} if key else {})
        return self.ask(method, path, body, headers, token=TOKEN)

    def order(self, key: str) -> str:
        answer = self.send("POST", "/v1/render?avatar=sanders", PCM, key)
        assert answer.status == 202, answer
        return str(answer.json["id"])

    def told(self, render: str) -> Any:
        return self.send("GET", f"/v1/renders/{render}").json

    def wait(self, render: str, state: str) -> Any:
        until(lambda: self.told(render)["state"] == state, seen=lambda: self.told(render))
        return self.told(render)


@pytest.fixture
def held_back(tmp_path: Path) -> Iterator[Serving]:
    """Servers whose networks wait while there is a file ``held`` in the test's folder."""
    with ExitStack() as stack:
        yield serving_in(stack, tmp_path, ("-c", HELD))


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_after_sigkill_what_was_not_done_is_made_and_what_was_is_not_made_again(
    held_back: Serving, models_root: Path, tmp_path: Path, workers: int
) -> None:
    arguments = ("serve", "--models-root", models_root, "--port", 0, "--web-port", 0)
    environ = {
        "LIPWIRE_RENDERS__FOLDER": str(tmp_path / "renders"),
        "LIPWIRE_WEB__TOKEN": TOKEN,
        "LIPWIRE_SPEECH__VOICE": "none",
        "LIPWIRE_SERVER__WORKERS": str(workers),
    }
    served = held_back(*arguments, **environ)
    site = Site(served)
    done = site.order("done")
    before = site.wait(done, "done")
    file = next((tmp_path / "renders" / "videos").glob("*/*.mp4"))
    written = file.stat()
    (tmp_path / "held").touch()
    begun = [site.order(f"begun-{number}") for number in range(workers)]
    for render in begun:
        site.wait(render, "running")
    waiting = site.order("waiting")
    served.end(SIGKILL)
    (tmp_path / "held").unlink()

    site = Site(held_back(*arguments, **environ))
    for render in (*begun, waiting):
        assert site.wait(render, "done")["video"]["sha256"] == before["video"]["sha256"]
    assert site.told(done) == before
    assert (file.stat().st_mtime_ns, file.stat().st_ino) == (written.st_mtime_ns, written.st_ino)
    assert site.order("waiting") == waiting
    video = site.send("GET", f"/v1/renders/{waiting}/video.mp4")
    assert video.body == file.read_bytes()
