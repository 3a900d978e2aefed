"""How the commands talk to a person: figures with units, progress on a terminal and in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lipwire.cli.stopping import end_if_asked

if TYPE_CHECKING:
    from lipwire.domain import CompileProgress, Progress

LOG_INTERVAL_S = 5.0


def file_size(size_bytes: float) -> str:
    """Return ``size_bytes`` as text for people, such as "1.4 MB" (units of 1000)."""
    for unit in ("bytes", "kB", "MB"):
        if size_bytes < 1000:
            return f"{size_bytes:.0f} {unit}" if unit == "bytes" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.2f} GB"


def duration(seconds: float) -> str:
    """Return ``seconds`` as text for people, such as "8.2 s", "3:05" or "1:02:09"."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


@contextmanager
def progress_bar(title: str, unit: str, *, quiet: bool = False) -> Iterator[Progress]:
    """Show progress during the ``with`` block: a bar with speed and time left on a terminal, a line
    every five seconds elsewhere. A context manager. Gives the block a function ``progress(done,
    total)``, to call with how much is done and how much there is in all. The function raises
    KeyboardInterrupt or Terminated where this process was asked to end (``end_if_asked``).

    ``title`` is shown before the bar, and ``unit`` names what is counted ("frames"). Everything is
    printed to stderr, so that output can be piped. Nothing is shown before the first call, nor when
    ``quiet``. The bar disappears at the end of the block.
    """
    if quiet:
        yield lambda _done, _total: end_if_asked()
    elif sys.stderr.isatty():
        with _bar(title, unit) as show:
            yield _ending(show)
    else:
        yield _ending(_Log(title, unit))


def _ending(show: Progress) -> Progress:
    """``show``, and the end of the work when a signal asked for it."""

    def report(done: int, total: int) -> None:
        end_if_asked()
        show(done, total)

    return report


@contextmanager
def compile_progress(title: str = "compiling") -> Iterator[CompileProgress]:
    """Show progress during the ``with`` block, in which an avatar may be compiled; where nothing is
    compiled, nothing is shown. A context manager. Gives the block a function ``progress(done,
    total, what)``, to call with how many frames are done, how many there are in all (1 where they
    are not counted), and a text that says what is being made. ``title`` is shown before the bar."""
    with progress_bar(title, "frames") as report:
        said = ""

        def tell(done: int, total: int, what: str) -> None:
            nonlocal said
            if total > 1:
                report(done, total)
            elif what != said:
                print(f"{what} ...", file=sys.stderr, flush=True)
            said = what

        yield tell


@contextmanager
def _bar(title: str, unit: str) -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f} {task.fields[unit]}"),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(compact=True),
        console=Console(stderr=True),
        transient=True,
    ) as bars:
        task = None
        rate = _Rate()

        def report(done: int, total: int) -> None:
            nonlocal task
            if task is None:
                task = bars.add_task(title, total=total, unit=unit, rate="")
            bars.update(task, completed=done, total=total, rate=rate.text(done, unit))

        yield report


class _Log:
    """Progress as plain lines, few enough for a log file."""

    def __init__(self, title: str, unit: str) -> None:
        self._title = title
        self._unit = unit
        self._rate = _Rate()
        self._next_s = time.monotonic() + LOG_INTERVAL_S

    def __call__(self, done: int, total: int) -> None:
        rate = self._rate.text(done, self._unit)
        now_s = time.monotonic()
        if now_s >= self._next_s:
            self._next_s = now_s + LOG_INTERVAL_S
            line = f"{self._title} {done}/{total} {self._unit} {rate}"
            print(line.rstrip(), file=sys.stderr, flush=True)


class _Rate:
    """Speed since the first report, so that setting up does not count."""

    def __init__(self) -> None:
        self._first: tuple[float, int] | None = None

    def text(self, done: int, unit: str) -> str:
        now_s = time.monotonic()
        if self._first is None:
            self._first = (now_s, done)
            return ""
        elapsed_s = now_s - self._first[0]
        if elapsed_s <= 0:
            return ""
        return f"{(done - self._first[1]) / elapsed_s:.1f} {_PER_SECOND.get(unit, unit + '/s')}"


_PER_SECOND = {"frames": "fps"}
