"""Workers as processes of this machine."""

import multiprocessing
import signal
import threading
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Final

from lipwire.domain import Unavailable
from lipwire.rendermany.jobs import RenderJob, RenderSettings
from lipwire.rendermany.workers import Happened, JobResult, JobWorker

_LOST_AT_START: Final = 3
"""So many workers in a row that end before they are ready: there is no use in starting more."""
_ENDS_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class _Process:
    name: str
    process: "multiprocessing.process.BaseProcess"
    talk: "Connection[RenderJob, JobResult | None]"


class LocalWorkers:
    """Workers as processes of this machine, each with its own network (``Workers``). For one
    thread; whoever makes it calls ``close``."""

    def __init__(self, count: int, settings: RenderSettings) -> None:
        """Start ``count`` workers, one or more, which make videos as ``settings`` say. Does not
        wait until they are ready."""
        self._settings = settings
        self._spawn = multiprocessing.get_context("spawn")
        self._all: dict[str, _Process] = {}
        self._started = self._lost_at_start = 0
        self._ready: set[str] = set()
        for _ in range(count):
            self._start()

    def happened(self, timeout_s: float) -> list[Happened]:
        """Return what has happened to workers since the last call. Waits at most ``timeout_s``
        seconds until something does; returns an empty list where nothing did. Raises Unavailable
        where workers end as soon as they are started."""
        talks = {each.talk: each for each in self._all.values()}
        found = []
        for talk in wait(list(talks), timeout_s):
            each = talks[talk]  # type: ignore[index]  # it waits for nothing else
            try:
                result = each.talk.recv()
            except (EOFError, OSError):
                found.append(self._lose(each))
                continue
            if result is None:
                self._ready.add(each.name)
                self._lost_at_start = 0
                found.append(Happened(each.name, "ready"))
            else:
                found.append(Happened(each.name, "finished", result))
        return found

    def give(self, worker: str, job: RenderJob) -> None:
        """Have the worker of the name ``worker`` render ``job``, and return at once; ``happened``
        reports the end. ``worker`` is a name that ``happened`` has reported as ready or finished;
        the worker has no job now. Raises KeyError for any other name."""
        with suppress(OSError):  # it is lost, as the next look finds
            self._all[worker].talk.send(job)

    def close(self) -> None:
        """End all workers and what they do, and wait until they have ended. Closing twice is
        allowed."""
        for each in self._all.values():
            each.talk.close()
            each.process.terminate()
        for each in self._all.values():
            each.process.join(_ENDS_S)
            if each.process.is_alive():
                each.process.kill()
                each.process.join()
        self._all.clear()

    def _start(self) -> None:
        ours, theirs = self._spawn.Pipe()
        self._started += 1
        name = f"worker {self._started}"
        process = self._spawn.Process(target=_work, args=(theirs, self._settings), name=name)
        process.daemon = True
        process.start()
        theirs.close()
        self._all[name] = _Process(name, process, ours)

    def _lose(self, each: _Process) -> Happened:
        del self._all[each.name]
        each.talk.close()
        each.process.join()
        code = each.process.exitcode or 0
        reason = f"it ended by signal {-code}" if code < 0 else f"it ended with status {code}"
        if each.name not in self._ready:
            self._lost_at_start += 1
            if self._lost_at_start >= _LOST_AT_START:
                raise Unavailable(f"workers end as soon as they are started: {reason}")
        self._ready.discard(each.name)
        self._start()
        return Happened(each.name, "lost", reason=reason)


def _work(talk: "Connection[JobResult | None, RenderJob]", settings: RenderSettings) -> None:
    """The life of a worker: jobs come by ``talk``, and their results go back."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all; the parent ends its workers
    ending = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ending.set())  # so that what is half written goes
    worker = JobWorker(settings, ending=ending)
    with suppress(EOFError, OSError):  # the parent is gone
        talk.send(None)
        while True:
            talk.send(worker.run(talk.recv()))
    worker.close()
