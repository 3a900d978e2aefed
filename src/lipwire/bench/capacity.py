"""Thousands of avatars behind one server: requests drawn from a Zipf law, with less memory than all
of them take.

The avatars are links to a few packages, so that the disk holds them. To the server each is an
avatar of its own, with maps and a network of its own; only the system's page cache is shared.
Memory is what the server says it holds, measured in mapped bytes, against what it was given.
"""

import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from lipwire.avatars import Avatar
from lipwire.bench.coldstart import write_package
from lipwire.bench.models import MOBILE_WIDTHS, Widths
from lipwire.bench.serve import Spread, serving
from lipwire.domain import AUDIO_WINDOW_SHAPE, LipwireError
from lipwire.rpc.connection import CompositingConnection
from lipwire.rpc.generated.compositing_pb2 import CompositeBatchRequest

_TIMEOUT_S: Final = 60.0
_PACKAGES: Final = 4
_FRAMES: Final = 60
_WARM: Final = 32
"""Avatars that are asked for alone at first: what a request takes while nothing is loaded."""
_WATCH_S: Final = 0.25


@dataclass(frozen=True, slots=True)
class Capacity:
    """What was measured. Latencies are of one frame, less its network's time."""

    avatars: int
    seconds: float
    requests: int
    errors: int
    first_error: str
    cold_requests: int
    cold: Spread
    warm: Spread
    warm_alone: Spread
    """Before any avatar but the warm ones was asked for."""
    budget_bytes: int
    """For opened avatars, and as much again for networks."""
    peak_bytes: int
    """The most that opened avatars held."""
    peak_resident_bytes: int
    """Of the server's process, with the pages that it shares."""
    evictions: int

    @property
    def hit_rate(self) -> float:
        return 1 - self.cold_requests / max(1, self.requests)

    @property
    def slowed(self) -> float:
        """How much longer a warm request takes beside cold ones, at the 99th percentile."""
        return self.warm.p99_ms / self.warm_alone.p99_ms


@dataclass(slots=True)
class _Seen:
    cold_ms: list[float] = field(default_factory=list)
    warm_ms: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def both(self, other: "_Seen") -> "_Seen":
        return _Seen(
            self.cold_ms + other.cold_ms,
            self.warm_ms + other.warm_ms,
            self.errors + other.errors,
        )


def run_capacity(
    seconds: float = 60.0,
    *,
    avatars: int = 11_000,
    clients: int = 2,
    memory_mb: int = 1024,
    exponent: float = 1.0,
    size: tuple[int, int] = (1280, 720),
    widths: Widths = MOBILE_WIDTHS,
) -> Capacity:
    """Ask for one frame after another for ``seconds``, and a quarter of it before for warm avatars
    alone. The avatar of rank r is asked for in proportion to r ** -``exponent``."""
    with tempfile.TemporaryDirectory(prefix="lipwire-capacity-") as folder, ExitStack() as stack:
        names = _write_avatars(Path(folder), avatars, size, widths)
        server = stack.enter_context(
            serving(
                Path(folder) / "avatars",
                LIPWIRE_CAPACITY__MAX_MEMORY_MB=str(memory_mb),
                LIPWIRE_INFERENCE__CAPACITY__MAX_MODELS_PER_GPU=str(avatars),
            )
        )
        connection = stack.enter_context(CompositingConnection(f"127.0.0.1:{server.port}"))
        weights = 1 / np.arange(1, avatars + 1) ** exponent
        weights /= weights.sum()
        warm = min(_WARM, avatars)
        for name in names[:warm]:
            connection.load(name, _TIMEOUT_S)
        alone = _ask(
            connection, clients, seconds / 4, lambda random: names[int(random.integers(warm))]
        )
        with _Watch(connection, server.pid) as watch:
            begun_s = time.monotonic()
            mixed = _ask(
                connection,
                clients,
                seconds,
                lambda random: names[int(random.choice(avatars, p=weights))],
            )
            elapsed_s = time.monotonic() - begun_s
        stats = connection.stats(timeout_s=_TIMEOUT_S)
        return Capacity(
            avatars=avatars,
            seconds=elapsed_s,
            requests=len(mixed.cold_ms) + len(mixed.warm_ms) + len(mixed.errors),
            errors=len(mixed.errors) + len(alone.errors),
            first_error=next(iter(alone.errors + mixed.errors), ""),
            cold_requests=len(mixed.cold_ms),
            cold=Spread.of(mixed.cold_ms or [0.0]),
            warm=Spread.of(mixed.warm_ms or [0.0]),
            warm_alone=Spread.of(alone.warm_ms or [1.0]),
            budget_bytes=memory_mb * 2**20,
            peak_bytes=watch.peak_bytes,
            peak_resident_bytes=watch.peak_resident_bytes,
            evictions=stats.evictions,
        )


def _ask(
    connection: CompositingConnection,
    clients: int,
    seconds: float,
    choose: Callable[[np.random.Generator], str],
) -> _Seen:
    """What ``clients`` threads see that ask for one frame after another of chosen avatars."""
    seen = [_Seen() for _ in range(clients)]
    until_s = time.monotonic() + seconds
    window = np.random.default_rng(0).standard_normal(AUDIO_WINDOW_SHAPE).astype(np.float32)

    def speak(number: int) -> None:
        random = np.random.default_rng(number)
        mine = seen[number]
        while time.monotonic() < until_s:
            name = choose(random)
            request = CompositeBatchRequest(
                model_id=name,
                audio_features=window.tobytes(),
                batch_size=1,
                start_frame_idx=int(random.integers(1000)),
            )
            try:
                held = connection.stats(name, _TIMEOUT_S).models
                answer = connection.composite(request, _TIMEOUT_S)
            except LipwireError as error:
                mine.errors.append(f"{name}: {error}")
                continue
            times = mine.warm_ms if held else mine.cold_ms
            times.append(answer.elapsed_ms - answer.inference_ms)

    threads = [threading.Thread(target=speak, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    together = _Seen()
    for each in seen:
        together = together.both(each)
    return together


class _Watch:
    """Looks at the server's memory again and again; a context manager."""

    def __init__(self, connection: CompositingConnection, pid: int) -> None:
        self.peak_bytes = 0
        self.peak_resident_bytes = 0
        self._connection = connection
        self._pid = pid
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> "_Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ended.wait(_WATCH_S):
            held = self._connection.stats("-", _TIMEOUT_S).memory_bytes
            self.peak_bytes = max(self.peak_bytes, held)
            self.peak_resident_bytes = max(self.peak_resident_bytes, _resident_bytes(self._pid))


def _resident_bytes(pid: int) -> int:
    """0 where the system does not tell."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    lines = (line.split() for line in status.splitlines() if line.startswith("VmRSS:"))
    return next((int(line[1]) * 1024 for line in lines), 0)


def _write_avatars(folder: Path, count: int, size: tuple[int, int], widths: Widths) -> list[str]:
    """``count`` avatars in ``folder``/avatars, links to a few compiled packages; their names."""
    packages = [folder / f"package-{seed}" for seed in range(min(_PACKAGES, count))]
    for seed, package in enumerate(packages):
        write_package(package, _FRAMES, size, widths, seed)
        Avatar.open(package, parts=frozenset({"jpeg"})).close()
    (folder / "avatars").mkdir()
    names = [f"avatar-{number:05d}" for number in range(count)]
    for number, name in enumerate(names):
        (folder / "avatars" / name).symlink_to(packages[number % len(packages)])
    return names
