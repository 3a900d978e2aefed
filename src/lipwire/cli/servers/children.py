"""Servers as child processes: started, waited for until they are ready, stopped together.

A child says on a pipe when it is ready, and drains when its stdin ends, so that none outlives a
parent that was killed. Children are out of reach of the terminal's Ctrl-C: the parent hears it and
tells them.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from lipwire.cli.servers.lifecycle import Stopping
from lipwire.domain import Unavailable
from lipwire.domain.closing import Closing
from lipwire.domain.pythonprocess import python_command

START_TIMEOUT_S: Final = 120.0
"""Preloading may compile avatars first."""

_POLL_S: Final = 0.1
_STEADY_S: Final = 10.0
"""A worker that lived this long is started again at once when it dies, others with a delay."""
_MAX_DELAY_S: Final = 30.0

_logger = logging.getLogger("lipwire.cli")


class Child(Closing):
    """``lipwire ARGUMENTS`` as a child process, started when the object is made. A context manager:
    at its end the process is asked to finish, and killed where it does not."""

    def __init__(
        self, name: str, arguments: Sequence[str], environ: Mapping[str, str] | None = None
    ) -> None:
        """``name`` is what messages call the process, ``arguments`` are those of the command line,
        and ``environ`` are environment variables in addition to this process's."""
        self.name = name
        self._ready, telling = os.pipe()
        try:
            self._process = subprocess.Popen(
                python_command("-m", "lipwire", *arguments, "--ready-fd", str(telling)),
                stdin=subprocess.PIPE,
                pass_fds=(telling,),
                start_new_session=True,
                env={**os.environ, **(environ or {})},
            )
        except OSError:
            os.close(self._ready)
            raise
        finally:
            os.close(telling)
        self._said = b""

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """The child's exit code, below 0 where a signal ended it (-15: SIGTERM); None while it
        runs."""
        return self._process.poll()

    def wait_ready(self, stopping: Stopping, timeout_s: float = START_TIMEOUT_S) -> int:
        """Wait until the child listens, and return its port. Later calls return the port at once.

        Raises Unavailable where the child ends before that or is not ready within ``timeout_s``
        seconds, or where ``stopping`` says meanwhile that this process is asked to end. The child
        is not ended then: call ``close`` for that.
        """
        until_s = time.monotonic() + timeout_s
        while not self._said.endswith(b"\n"):
            if stopping.asked:
                raise Unavailable(f"{self.name} was still starting")
            if time.monotonic() > until_s:
                raise Unavailable(f"{self.name} was not ready after {timeout_s:.0f} s")
            if select.select([self._ready], [], [], _POLL_S)[0]:
                piece = os.read(self._ready, 64)
                if not piece:
                    code = self._process.wait()
                    raise Unavailable(f"{self.name} did not start (exit code {code})")
                self._said += piece
        return int(self._said)

    def ask_to_end(self) -> None:
        """Send the child SIGTERM, so that it drains and ends, without waiting for that."""
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)

    def close(self, grace_s: float = 30.0) -> int:
        """Send the child SIGTERM, kill it where it has not ended after ``grace_s`` seconds, and
        return its exit code, below 0 where a signal ended it."""
        if self._process.poll() is None:
            self.ask_to_end()
        try:
            code = self._process.wait(grace_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        finally:
            if self._process.stdin is not None:
                self._process.stdin.close()
            if self._ready >= 0:
                os.close(self._ready)
                self._ready = -1
        return code


@dataclass(slots=True)
class _Place:
    """One worker's place: who is there, and when the next one may be started."""

    child: Child | None
    started_s: float
    delay_s: float = 0.0


def supervise(
    count: int,
    start: Callable[[int], Child],
    stopping: Stopping,
    on_ready: Callable[[], None],
    on_end: Callable[[], None] = lambda: None,
    *,
    grace_s: float,
) -> None:
    """Run ``count`` worker processes until ``stopping`` says that this process is asked to end. A
    worker that ends before that is replaced: at once where it has run for 10 s, else after a delay,
    which doubles up to 30 s.

    ``start(i)`` starts worker ``i``, from 0, and returns it. ``on_ready()`` is called once, when
    all listen, and ``on_end()`` before they are asked to end. Returns when all have ended; those
    that take longer than ``grace_s`` seconds are killed. Raises Unavailable where a worker fails,
    or this process is asked to end, before all were ready; the workers are ended then, too.
    """
    places: list[_Place] = []
    try:
        places += (_Place(start(i), time.monotonic()) for i in range(count))
        for place in places:
            assert place.child is not None  # just started
            place.child.wait_ready(stopping)
        on_ready()
        while not stopping.wait(_POLL_S):
            for index, place in enumerate(places):
                _look_after(index, place, start)
        on_end()
    finally:
        children = [place.child for place in places if place.child is not None]
        for child in children:
            child.ask_to_end()
        until_s = time.monotonic() + grace_s
        for child in children:
            child.close(max(0.0, until_s - time.monotonic()))


def _look_after(index: int, place: _Place, start: Callable[[int], Child]) -> None:
    now_s = time.monotonic()
    if place.child is not None and place.child.exit_code is not None:
        code = place.child.close()
        steady = now_s - place.started_s >= _STEADY_S
        place.delay_s = 0.0 if steady else min(_MAX_DELAY_S, max(0.2, 2 * place.delay_s))
        _logger.error(
            "worker %d (process %d) ended with %d; another starts in %.1f s",
            index,
            place.child.pid,
            code,
            place.delay_s,
            extra={"worker": index, "exit_code": code},
        )
        place.child, place.started_s = None, now_s
    if place.child is None and now_s - place.started_s >= place.delay_s:
        place.child, place.started_s = start(index), now_s
