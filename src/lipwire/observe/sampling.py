"""What the threads of this process do: their stacks, looked at again and again, with the processor
time that each took meanwhile.

A profile is in the folded form that flamegraph.pl and speedscope read: a line for each stack,
frames from the outermost to the innermost with semicolons between them, a blank, a number
(https://github.com/brendangregg/FlameGraph).
"""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Final

SAMPLES_PER_SECOND: Final = 50
_DEEPEST: Final = 128
"""Frames of a stack that are kept, the innermost ones."""
_MOST_STACKS: Final = 20_000
"""Different stacks that are kept; further ones count as one."""
_TASKS: Final = Path("/proc/self/task")
_OTHERS: Final = "further stacks"

Times = Mapping[int, int]


def thread_times(tasks: Path = _TASKS) -> dict[int, int] | None:
    """Return the processor time that each thread of this process has had, in nanoseconds, by the
    system's number of the thread; None where the system does not tell. ``tasks`` is the folder of
    proc with the threads. Source: Documentation/scheduler/sched-stats.rst of Linux."""
    found: dict[int, int] = {}
    with suppress(OSError):
        for task in tasks.iterdir():
            with suppress(OSError, ValueError, IndexError):  # it has ended
                found[int(task.name)] = int((task / "schedstat").read_text().split()[0])
    return found or None


def thread_name(number: int, tasks: Path = _TASKS) -> str:
    """Return the system's name of the thread that has the system's ``number``: "unnamed" where that
    is empty, "ended" where the thread is not there any more. ``tasks`` is the folder of proc with
    the threads."""
    try:
        return (tasks / str(number) / "comm").read_text().strip() or "unnamed"
    except OSError:
        return "ended"


class Sampler:
    """Counts in which stacks the threads of this process are, by the processor time that each has
    had (``counts``); each ``sample`` looks at them once. Not thread-safe."""

    def __init__(
        self,
        *,
        wall: bool = False,
        frames: Callable[[], Mapping[int, FrameType]] = sys._current_frames,
        times: Callable[[], Times | None] = thread_times,
        name: Callable[[int], str] = thread_name,
    ) -> None:
        """With ``wall`` each sample counts 1 for every thread, also for one that waits, in place of
        its processor time; the same is done where the system does not tell processor time.
        ``frames()`` returns the innermost frame of each thread by Python's number of the thread,
        ``times()`` what ``thread_times`` returns, and ``name(number)`` the name of a thread without
        a Python stack, by the system's number of the thread."""
        self._frames = frames
        self._times = times
        self._name = name
        self._last = None if wall else times()
        self._names: dict[int, str] = {}
        self.counts: Counter[str] = Counter()
        """By stack: nanoseconds of processor time, or samples."""

    @property
    def wall(self) -> bool:
        """Whether ``counts`` are numbers of samples; else they are nanoseconds of processor time.
        True where that was asked for, or the system does not tell processor time."""
        return self._last is None

    def sample(self) -> None:
        """Look at all Python threads but this one, and count for the stack of each the processor
        time that its thread has had since the last look; where ``wall`` is true, 1 instead. Threads
        without a Python stack count under their system's names."""
        own = threading.get_ident()
        threads = {thread.ident: thread for thread in threading.enumerate()}
        stacks = {
            ident: self._stack(threads.get(ident), frame)
            for ident, frame in self._frames().items()
            if ident != own
        }
        if self._last is None:
            for stack in stacks.values():
                self._count(stack, 1)
            return
        now = self._times() or {}
        idents = {thread.native_id: ident for ident, thread in threads.items()}
        for number, time_ns in now.items():
            # A thread that began after the last look has had all its time since.
            spent_ns = time_ns - self._last.get(number, 0)
            ident = idents.get(number)
            if spent_ns <= 0 or ident == own:
                continue
            found = None if ident is None else stacks.get(ident)
            self._count(found or f"native thread {self._native(number)}", spent_ns)
        self._last = now

    def folded(self) -> str:
        """Return the profile as text in the folded form of flamegraph.pl, a line for each stack,
        the largest numbers first: microseconds of processor time, or numbers of samples where
        ``wall`` is true."""
        unit = 1 if self.wall else 1000
        lines = [
            f"{stack} {number // unit}\n"
            for stack, number in self.counts.most_common()
            if number >= unit
        ]
        return "".join(lines)

    def _count(self, stack: str, number: int) -> None:
        if stack not in self.counts and len(self.counts) >= _MOST_STACKS:
            stack = _OTHERS
        self.counts[stack] += number

    def _native(self, number: int) -> str:
        if number not in self._names:
            self._names[number] = _plain(self._name(number))
        return self._names[number]

    def _stack(self, thread: threading.Thread | None, frame: FrameType | None) -> str:
        parts: list[str] = []
        while frame is not None and len(parts) < _DEEPEST:
            code = frame.f_code
            module = frame.f_globals.get("__name__", Path(code.co_filename).name)
            parts.append(_plain(f"{module}.{code.co_qualname}:{frame.f_lineno}"))
            frame = frame.f_back
        parts.append(_plain(thread.name if thread is not None else "thread of a library"))
        return ";".join(reversed(parts))


def profile(
    seconds: float,
    *,
    wall: bool = False,
    ended: threading.Event,
    clock: Callable[[], float] = time.monotonic,
) -> Sampler:
    """Look at the stacks of all threads but this one for ``seconds`` seconds, 50 times a second
    (``SAMPLES_PER_SECOND``), and return the ``Sampler`` that has counted them. Runs in the calling
    thread, and returns early where ``ended`` is set.

    With ``wall`` each thread counts 1 at each look, also one that waits; without it, the processor
    time that the thread had since the last look. ``clock`` gives seconds.
    """
    sampler = Sampler(wall=wall)
    until_s = clock() + seconds
    while clock() < until_s and not ended.wait(1 / SAMPLES_PER_SECOND):
        sampler.sample()
    return sampler


def stacks() -> str:
    """Return where each thread of this process is, as text: its name and its stack."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    parts = []
    for ident, frame in sys._current_frames().items():
        stack = "".join(traceback.format_stack(frame))
        parts.append(f"{names.get(ident, 'thread of a library')} ({ident}):\n{stack}")
    return "\n".join(sorted(parts))


def _plain(text: str) -> str:
    """``text`` as one frame of a folded stack."""
    return "".join(
        "?" if letter in ";\n\r" or not letter.isprintable() else letter for letter in text
    )
