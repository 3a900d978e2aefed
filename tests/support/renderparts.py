"""Renders without networks: what makes the videos writes texts, when the test wants it to."""

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.waiting import WAIT_S, until

from lipwire.domain import Call, Cancelled
from lipwire.renders import Job, Order, RenderRules, Renders, Video, WebhookRules
from lipwire.renders.files import RenderFiles
from lipwire.renders.rendering import Made, Progressed
from lipwire.renders.told import Telling


@dataclass
class Maker:
    """Makes a "video" of each job: its text, many times. While ``held`` is set, it waits in the
    middle; the errors of ``fails`` are raised first, each once."""

    folder: Path
    held: threading.Event = field(default_factory=threading.Event)
    fails: list[Exception] = field(default_factory=list)
    made: list[str] = field(default_factory=list)
    """The texts of jobs that were begun."""
    calls: list[Call] = field(default_factory=list)
    version: str = ""
    """That of the avatar that videos are said to show."""

    def make(self, job: Job, call: Call, progress: Progressed, max_duration_s: float) -> Made:
        self.made.append(job.order.text or "")
        self.calls.append(call)
        progress(1, 4)
        gone = threading.Event()
        call.on_end(gone.set)
        until(lambda: gone.is_set() or not self.held.is_set())
        if gone.is_set():
            raise Cancelled("the caller has gone")
        if self.fails:
            raise self.fails.pop(0)
        content = (job.order.text or "sound").encode() * 1000
        path = self.folder / f"{job.id}.made"
        path.write_bytes(content)
        return Made(path, Video(hashlib.sha256(content).hexdigest(), len(content)), 4, self.version)


def order(text: str | None = "Hello", tenant: str = "", **more: Any) -> Order:
    return Order(tenant, "tests", more.pop("avatar", "anna"), text=text, **more)


Opened = Callable[..., Renders]


@contextmanager
def opened_renders(
    folder: Path,
    maker: Maker,
    rules: RenderRules | None = None,
    *,
    telling: Telling | None = None,
    webhooks: WebhookRules | None = None,
    **more: Any,
) -> Iterator[Renders]:
    """Renders in ``folder``, which ``maker`` makes."""
    files = RenderFiles(folder)
    with Renders(
        files, rules or RenderRules(), maker, telling=telling, webhooks=webhooks, **more
    ) as renders:
        yield renders


def ended(renders: Renders, job: Job) -> Job:
    """``job`` when it has ended."""
    until(lambda: renders.find(job.id).has_ended, timeout_s=WAIT_S)
    return renders.find(job.id)


def running(renders: Renders, job: Job) -> None:
    """Return when ``job`` is being made."""
    until(lambda: renders.find(job.id).state == "running")
