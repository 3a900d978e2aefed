"""What servers hold while they are under load, and whether it grows for good."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from lipwire.bench.chaos.servers import Process
from lipwire.bench.footprint import Footprint, Growth, footprint, growth
from lipwire.domain import NotFound

_WARM_UP: Final = 0.25
_WARM_UP_THOUSANDS: Final = 0.3
"""Share of the samples, and thousands of requests, before caches and pools have their size."""
_FEWEST: Final = 12
"""Samples after that, below which nothing is said."""
_MB: Final = 2**20

FIGURES: Final[dict[str, tuple[Callable[[Footprint], float], float]]] = {
    "own memory, MB": (lambda held: held.own_bytes / _MB, 32.0),
    "threads": (lambda held: held.threads, 6.0),
    "files": (lambda held: held.files, 12.0),
    "maps": (lambda held: held.maps, 160.0),
}
"""What is looked at, and how much more there may be at the end than after the warm-up. Connections,
gRPC's threads and opened avatars come and go; a leak of one in a hundred requests is more."""


@dataclass(frozen=True, slots=True)
class Held:
    """What the server process called ``server`` holds at the end: its resident memory in MiB
    (``resident_mb``), and the same with each shared page divided between the processes that have it
    (``proportional_mb``). ``growths`` says, for each figure by its name (a key of ``FIGURES``: its
    own memory in MiB, threads, open files, mapped regions), how it has changed after the warm-up,
    with the slope for each thousand requests. It is empty where too little was seen."""

    server: str
    resident_mb: float
    """Resident memory at the end."""
    proportional_mb: float
    growths: dict[str, Growth]
    """Empty where there was too little to see."""

    @property
    def leaks(self) -> list[str]:
        """A line for each figure of ``growths`` that has grown by more than is allowed: 32 MiB, 6
        threads, 12 files or 160 mapped regions. Empty where none has, or where there was too little
        to see."""
        return [
            f"{self.server}: {name} went from {seen.first:.0f} to {seen.last:.0f}; allowed is"
            f" {FIGURES[name][1]:.0f} more"
            for name, seen in self.growths.items()
            if seen.change > FIGURES[name][1]
        ]


class Watch:
    """Records memory, files and threads of processes at regular intervals during the ``with``
    block, in a thread. A context manager; to be used once."""

    def __init__(
        self, processes: Sequence[Process], progress: Callable[[], int], every_s: float
    ) -> None:
        """``progress()`` returns how many requests have been answered so far. Each of ``processes``
        is looked at every ``every_s`` seconds; one that does not run at that moment is passed over.
        """
        self._processes = processes
        self._progress = progress
        self._every_s = every_s
        self._seen: dict[str, list[tuple[float, Footprint]]] = {each.name: [] for each in processes}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def held(self) -> list[Held]:
        """Return what each process held when it was last looked at, and how that has grown, in the
        order of ``processes``; one that was never looked at is left out. Call it after the ``with``
        block."""
        return [self._held(name, seen) for name, seen in self._seen.items() if seen]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ended.wait(self._every_s):
            done = self._progress() / 1000
            for process in self._processes:
                pid = process.pid
                if pid is None:
                    continue
                try:
                    self._seen[process.name].append((done, footprint(pid, proportional=True)))
                except NotFound:
                    continue

    def _held(self, name: str, seen: list[tuple[float, Footprint]]) -> Held:
        last = seen[-1][1]
        judged = [
            look for look in seen[round(len(seen) * _WARM_UP) :] if look[0] >= _WARM_UP_THOUSANDS
        ]
        enough = len(judged) >= _FEWEST and judged[-1][0] > judged[0][0]
        return Held(
            server=name,
            resident_mb=last.resident_bytes / _MB,
            proportional_mb=last.proportional_bytes / _MB,
            growths={
                label: growth(judged, figure) for label, (figure, _) in FIGURES.items() if enough
            },
        )
