"""Thousands of avatars behind one server: requests drawn from a Zipf law, with less memory than all
of them take.

The avatars are links to a few packages, so that the disk holds them. To the server each is an
avatar of its own, with maps and a network of its own; only the system's page cache is shared.
Memory is what the server says it holds, measured in mapped bytes, against what it was given. How
well those are served whose avatars are loaded is measured beside it.
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
from lipwire.bench.randomnetworks import MOBILE_WIDTHS, Widths
from lipwire.bench.serve import Spread, serving
from lipwire.domain import AUDIO_WINDOW_SHAPE, LipwireError
from lipwire.rpc.connection import CompositingConnection
from lipwire.rpc.generated.compositing_pb2 import CompositeBatchRequest

_TIMEOUT_S: Final = 60.0
_PACKAGES: Final = 4
_FRAMES: Final = 60
_WARM: Final = 32
"""Avatars that are used all the time; loading others must not slow them."""
_TURN_S: Final = 10.0
_WATCH_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Capacity:
    """What a run has measured. Latencies are of one frame, without its network's time.

    Two clients ask at steady rates. One asks for warm avatars (in memory) all the time. The other
    takes turns: now any avatar, by Zipf's law, now warm ones as well; so the first one's latencies
    beside cold requests and beside as many warm ones are measured in turn, on the machine as it
    then is.
    """

    avatars: int
    seconds: float
    requests: int
    errors: int
    first_error: str
    zipf_requests: int
    cold_requests: int
    """Of those, the ones whose avatar was not loaded."""
    cold: Spread
    warm: Spread
    """Of the client that asks for warm avatars, while the other one asks for any."""
    warm_alone: Spread
    """Of the same client, while the other one asks for warm avatars too."""
    budget_bytes: int
    """For avatars, frames and networks together."""
    peak_bytes: int
    """The most that avatars held."""
    peak_network_bytes: int
    """The most of that which networks held."""
    peak_resident_bytes: int
    """Of the server's process, with the pages that it shares."""
    evictions: int

    @property
    def hit_rate(self) -> float:
        """Share of the requests by Zipf's law whose avatar was in memory, 0 to 1."""
        return 1 - self.cold_requests / max(1, self.zipf_requests)

    @property
    def slowed(self) -> float:
        """How many times as long a warm request takes beside cold ones as beside warm ones, at the
        99th percentile."""
        return self.warm.p99_ms / self.warm_alone.p99_ms


@dataclass(slots=True)
class _Seen:
    """What a client saw, apart for turns in which any avatar is asked for (True) and others."""

    cold_ms: dict[bool, list[float]] = field(default_factory=lambda: {False: [], True: []})
    warm_ms: dict[bool, list[float]] = field(default_factory=lambda: {False: [], True: []})
    requests: dict[bool, int] = field(default_factory=lambda: {False: 0, True: 0})
    errors: list[str] = field(default_factory=list)


class _Client(threading.Thread):
    """Asks for a frame of a chosen avatar, ``rate`` times a second, until ``until_s``."""

    def __init__(
        self,
        connection: CompositingConnection,
        rate: float,
        until_s: float,
        mixed: Callable[[], bool],
        choose: Callable[[bool, np.random.Generator], str],
        seed: int,
    ) -> None:
        super().__init__()
        self.seen = _Seen()
        self._connection = connection
        self._rate = rate
        self._until_s = until_s
        self._mixed = mixed
        self._choose = choose
        self._random = np.random.default_rng(seed)

    def run(self) -> None:
        due_s = time.monotonic()
        while due_s < self._until_s:
            # Who is late does not hurry: a live session would have dropped those frames.
            due_s = max(time.monotonic(), due_s + float(self._random.exponential(1 / self._rate)))
            time.sleep(max(0.0, due_s - time.monotonic()))
            self._ask(self._mixed())

    def _ask(self, mixed: bool) -> None:
        name = self._choose(mixed, self._random)
        window = self._random.standard_normal(AUDIO_WINDOW_SHAPE).astype(np.float32)
        request = CompositeBatchRequest(
            model_id=name,
            audio_features=window.tobytes(),
            batch_size=1,
            start_frame_idx=int(self._random.integers(1000)),
        )
        self.seen.requests[mixed] += 1
        try:
            held = self._connection.stats(name, _TIMEOUT_S).models
            answer = self._connection.composite(request, _TIMEOUT_S)
        except LipwireError as error:
            self.seen.errors.append(f"{name}: {error}")
            return
        times = self.seen.warm_ms if held else self.seen.cold_ms
        times[mixed].append(answer.elapsed_ms - answer.inference_ms)


def run_capacity(
    seconds: float = 600.0,
    *,
    avatars: int = 11_000,
    warm_rate: float = 8.0,
    other_rate: float = 12.0,
    memory_mb: int = 1024,
    exponent: float = 1.0,
    size: tuple[int, int] = (1280, 720),
    widths: Widths = MOBILE_WIDTHS,
) -> Capacity:
    """Have a server serve ``avatars`` avatars for ``seconds`` with ``memory_mb`` of memory, and
    return what was measured.

    One client asks for warm avatars, ``warm_rate`` requests a second; another one, ``other_rate``
    requests a second, for the avatar of rank r in proportion to r ** -``exponent``. Frames are of
    ``size`` (width, height), networks of ``widths``.
    """
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

        def any_warm(random: np.random.Generator) -> str:
            return names[int(random.integers(warm))]

        def any_at_all(random: np.random.Generator) -> str:
            return names[int(random.choice(avatars, p=weights))]

        turn_s = min(_TURN_S, seconds / 4)
        begun_s = time.monotonic()
        until_s = begun_s + seconds

        def mixed() -> bool:
            return int((time.monotonic() - begun_s) / turn_s) % 2 == 1

        clients = (
            _Client(connection, warm_rate, until_s, mixed, lambda _, r: any_warm(r), 1),
            _Client(
                connection,
                other_rate,
                until_s,
                mixed,
                lambda turn, r: any_at_all(r) if turn else any_warm(r),
                2,
            ),
        )
        with _Watch(connection, server.pid) as watch:
            for client in clients:
                client.start()
            for client in clients:
                client.join()
            elapsed_s = time.monotonic() - begun_s
        stats = connection.stats(timeout_s=_TIMEOUT_S)
        first, other = (client.seen for client in clients)
        errors = first.errors + other.errors
        return Capacity(
            avatars=avatars,
            seconds=elapsed_s,
            requests=sum(first.requests.values()) + sum(other.requests.values()),
            errors=len(errors),
            first_error=next(iter(errors), ""),
            zipf_requests=other.requests[True],
            cold_requests=len(other.cold_ms[True]),
            cold=Spread.of(other.cold_ms[True] or [0.0]),
            warm=Spread.of(first.warm_ms[True] or [0.0]),
            warm_alone=Spread.of(first.warm_ms[False] or [1.0]),
            budget_bytes=memory_mb * 2**20,
            peak_bytes=watch.peak_bytes,
            peak_network_bytes=watch.peak_network_bytes,
            peak_resident_bytes=watch.peak_resident_bytes,
            evictions=stats.evictions,
        )


class _Watch:
    """Looks at the server's memory again and again; a context manager."""

    def __init__(self, connection: CompositingConnection, pid: int) -> None:
        self.peak_bytes = 0
        self.peak_network_bytes = 0
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
            stats = self._connection.stats(timeout_s=_TIMEOUT_S)
            self.peak_bytes = max(self.peak_bytes, stats.memory_bytes)
            self.peak_network_bytes = max(self.peak_network_bytes, stats.network_memory_bytes)
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
