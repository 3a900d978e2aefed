"""Workers as processes of this machine."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.support.waiting import WAIT_S

from lipwire.api import open_avatar
from lipwire.domain import Unavailable
from lipwire.rendermany import Happened, LocalWorkers, RenderJob, RenderSettings, local

SETTINGS = RenderSettings(preset="ultrafast", precision="float32")


@contextmanager
def workers(count: int) -> Iterator[LocalWorkers]:
    opened = LocalWorkers(count, SETTINGS)
    try:
        yield opened
    finally:
        opened.close()


def next_one(opened: LocalWorkers) -> Happened:
    (found,) = opened.happened(WAIT_S)
    return found


@pytest.mark.slow
def test_videos_are_those_of_a_render(folder: Path, two_avatars: Path) -> None:
    with workers(1) as opened:
        ready = next_one(opened)
        assert ready.what == "ready"
        for number, name in enumerate(("anna", "bert", "anna")):
            job = RenderJob(
                number, str(two_avatars / name), folder / "a.wav", folder / f"{number}.mp4", 2
            )
            opened.give(ready.worker, job)
            found = next_one(opened)
            assert (found.what, found.result.error) == ("finished", "")
            assert found.result.size_bytes == job.out.stat().st_size
            with open_avatar(two_avatars / name, outputs=("i420",), precision="float32") as avatar:
                avatar.render(job.audio, folder / "own.mp4", start_frame=2, preset="ultrafast")
            assert job.out.read_bytes() == (folder / "own.mp4").read_bytes()
        opened.give(ready.worker, RenderJob(9, "nobody", folder / "a.wav", folder / "9.mp4"))
        found = next_one(opened)
        assert found.what == "finished"
        assert "nobody" in found.result.error
        assert not (folder / "9.mp4").exists()


@pytest.mark.slow
def test_a_worker_that_dies_is_lost_and_another_comes() -> None:
    with workers(1) as opened:
        ready = next_one(opened)
        pid = opened._all[ready.worker].process.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        lost = next_one(opened)
        assert (lost.worker, lost.what, lost.reason) == (
            ready.worker,
            "lost",
            "it ended by signal 9",
        )
        again = next_one(opened)
        assert again.what == "ready"
        assert again.worker != ready.worker


def _ends(*_: object) -> None:
    os._exit(3)


@pytest.mark.slow
def test_workers_that_cannot_start_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "_work", _ends)

    def all_of_it(opened: LocalWorkers) -> None:
        while True:
            assert all(each.what == "lost" for each in opened.happened(WAIT_S))

    with workers(1) as opened, pytest.raises(Unavailable, match=r"are started: .* with status 3"):
        all_of_it(opened)
