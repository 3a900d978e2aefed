"""Thousands of avatars behind one server: requests drawn from a Zipf law, with less memory than all
of them take.

The avatars are links to a few packages, so that the disk holds them. To the server each is an
avatar of its own, with maps and a network of its own; only the system's page cache is shared.
Memory is what the server says it holds, measured in mapped bytes, against what it was given. How
well those are served whose avatars are loaded is measured beside it. A few more are used so much
that their networks are specialised, with memory for all of them but one.
"""

import itertools
import re
import socket
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from lipwire.audio import AudioEncoder, extract_windows, sample_speech
from lipwire.avatars import Avatar, find_avatar
from lipwire.avatars.store.cacheindex import PACKAGES, folder_bytes
from lipwire.bench.coldstart import write_package
from lipwire.bench.randomnetworks import MOBILE_WIDTHS, Widths
from lipwire.bench.serve import Spread, serving
from lipwire.bench.stored import fill_store
from lipwire.domain import AUDIO_WINDOW_SHAPE, AudioWindows, LipwireError
from lipwire.rpc.connection import CompositingConnection
from lipwire.rpc.generated.compositing_pb2 import CompositeBatchRequest

_TIMEOUT_S: Final = 60.0
_PACKAGES: Final = 4
_FRAMES: Final = 60
_SMALL: Final = (320, 240)
_NARROW: Final[Widths] = (8, 8, 8, 8, 8)
_FEW_FRAMES: Final = 12
"""Of avatars that are put into a store: about 3 MB each, with what is compiled."""
_WARM: Final = 32
"""Avatars that are used all the time; loading others must not slow them."""
_HOT_FRAMES: Final = 8
"""Frames of each request for an avatar that is used so much that its network is specialised."""
_TURN_S: Final = 10.0
_WATCH_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Capacity:
    """What a run of ``run_capacity`` has measured. Latencies are of one frame, without its
    network's time; ``cold`` is the latency of requests whose avatar was not loaded.

    Two clients ask at steady rates. The first asks for warm avatars (those in memory) all the time.
    The second takes turns of some seconds: in one turn it asks for any avatar, drawn by Zipf's law
    (``zipf_requests`` requests in all), in the next for warm ones. ``warm`` is the first client's
    latency during turns of the former kind, ``warm_alone`` during those of the latter.
    ``budget_bytes`` is the most that avatars are allowed to hold, ``peak_bytes`` the most that they
    held, ``peak_network_bytes`` the most that their networks held, and ``peak_resident_bytes`` the
    most memory that the server's process had resident.
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
    hot: dict[str, Spread]
    """Whole answers for avatars that are used much, a frame, by the precision of their networks
    then."""
    hot_budget_bytes: int
    """For specialised networks."""
    peak_hot_bytes: int
    """The most that specialised networks took."""
    stored: int = 0
    """Avatars whose files are in the store; 0 where they are in a folder."""
    cache_bytes: int = 0
    """What the cache of a store may take on the disk."""
    peak_cache_bytes: int = 0
    """The most that it took."""

    @property
    def hit_rate(self) -> float:
        """The share of the ``zipf_requests`` whose avatar was in memory, 0 to 1; 1 where there were
        no such requests."""
        return 1 - self.cold_requests / max(1, self.zipf_requests)

    @property
    def slowed(self) -> float:
        """The 99th percentile of ``warm`` divided by that of ``warm_alone``: how many times as long
        a warm request takes while the second client asks for any avatar."""
        return self.warm.p99_ms / self.warm_alone.p99_ms


@dataclass(slots=True)
class _Seen:
    """What a client saw, apart for turns in which any avatar is asked for (True) and others."""

    cold_ms: dict[bool, list[float]] = field(default_factory=lambda: {False: [], True: []})
    warm_ms: dict[bool, list[float]] = field(default_factory=lambda: {False: [], True: []})
    requests: dict[bool, int] = field(default_factory=lambda: {False: 0, True: 0})
    errors: list[str] = field(default_factory=list)


class _HotClient(threading.Thread):
    """Asks for a second's third of speech of each of ``names`` in turn, ``rate`` times a second,
    until ``until_s``, and notes how long answers took by the precision of the network. ``windows``
    are those of the speech."""

    def __init__(
        self,
        connection: CompositingConnection,
        names: list[str],
        rate: float,
        until_s: float,
        windows: AudioWindows,
    ) -> None:
        super().__init__()
        self.took_ms: dict[str, list[float]] = {}
        self.errors: list[str] = []
        self.requests = 0
        self._connection = connection
        self._names = names
        self._rate = rate
        self._until_s = until_s
        self._windows = windows

    def run(self) -> None:
        due_s, last = time.monotonic(), len(self._windows) - _HOT_FRAMES
        while self._names and due_s < self._until_s:
            due_s = max(time.monotonic(), due_s + 1 / self._rate)
            time.sleep(max(0.0, due_s - time.monotonic()))
            first = self.requests * _HOT_FRAMES % last
            self._ask(self._names[self.requests % len(self._names)], first)
            self.requests += 1

    def _ask(self, name: str, first: int) -> None:
        request = CompositeBatchRequest(
            model_id=name,
            audio_features=self._windows[first : first + _HOT_FRAMES].tobytes(),
            batch_size=_HOT_FRAMES,
            start_frame_idx=first,
        )
        try:
            held = self._connection.stats(name, _TIMEOUT_S).models
            begun_s = time.perf_counter()
            self._connection.composite(request, _TIMEOUT_S)
        except LipwireError as error:
            self.errors.append(f"{name}: {error}")
            return
        if held:
            took_ms = (time.perf_counter() - begun_s) * 1000 / _HOT_FRAMES
            self.took_ms.setdefault(held[0].precision, []).append(took_ms)


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
    hot: int = 3,
    hot_rate: float = 3.0,
    hot_memory_mb: int = 100,
    store: str | None = None,
    endpoint_url: str | None = None,
    cached: int = 500,
) -> Capacity:
    """Have a server serve ``avatars`` avatars for ``seconds`` with ``memory_mb`` MiB of memory for
    them, and return what was measured. Making the avatars takes more time, before ``seconds``
    begin.

    One client asks for warm avatars (those in memory), ``warm_rate`` requests a second. A second
    one sends ``other_rate`` requests a second, in turns for warm avatars and for any: the avatar of
    rank r, from 1, is drawn in proportion to r ** -``exponent``. Frames are of ``size`` (width,
    height), networks have layers of ``widths`` channels. A third one asks ``hot_rate`` times a
    second for eight frames of one of ``hot`` more avatars, which are the demo avatar under several
    names; their specialised networks may take ``hot_memory_mb`` MiB.

    Where ``store`` is the URL of a store, the avatars are put there first, and the server has a
    cache with room for ``cached`` of them besides the ``hot`` ones. The avatars are small then,
    whatever ``size`` and ``widths`` are. ``endpoint_url`` is the address of a server with S3's
    protocol; None is Amazon's. Requests that fail are counted in the result. Raises RuntimeError
    where the server does not start.
    """
    with tempfile.TemporaryDirectory(prefix="lipwire-capacity-") as folder, ExitStack() as stack:
        weights = 1 / np.arange(1, avatars + 1) ** exponent
        weights /= weights.sum()
        most = int(seconds * other_rate) + 1
        drawn: list[int] = np.random.default_rng(0).choice(avatars, most, p=weights).tolist()
        warm = min(_WARM, avatars)
        names = [f"avatar-{number:05d}" for number in range(avatars)]
        hot_names = [f"hot-{number}" for number in range(hot)]
        demo = find_avatar("demo")
        asked = {names[number] for number in drawn} | set(names[:warm])
        stored = None
        if store is None:
            _write_avatars(Path(folder), names, size, widths)
            for name in hot_names:
                (Path(folder) / "avatars" / name).symlink_to(demo)
        else:
            packages = _write_packages(Path(folder), avatars, _SMALL, _NARROW, _FEW_FRAMES)
            stored = fill_store(
                store,
                endpoint_url,
                announced=names,
                packages={
                    name: packages[number % len(packages)]
                    for number, name in enumerate(sorted(asked))
                },
                others=dict.fromkeys(hot_names, demo),
                folder=Path(folder),
                cached=cached,
            )
        metrics_port = _free_port()
        server = stack.enter_context(
            serving(
                store or Path(folder) / "avatars",
                LIPWIRE_METRICS__PORT=str(metrics_port),
                LIPWIRE_INFERENCE__CAPACITY__HOT_MEMORY_MB=str(hot_memory_mb),
                LIPWIRE_CAPACITY__MAX_MEMORY_MB=str(memory_mb),
                LIPWIRE_INFERENCE__CAPACITY__MAX_MODELS_PER_GPU=str(avatars),
                **({} if stored is None else stored.environ()),
            )
        )
        connection = stack.enter_context(CompositingConnection(f"127.0.0.1:{server.port}"))
        for name in (*names[:warm], *hot_names):
            connection.load(name, _TIMEOUT_S)

        def any_warm(random: np.random.Generator) -> str:
            return names[int(random.integers(warm))]

        def any_at_all(random: np.random.Generator) -> str:
            del random  # drawn before, so that a store need not have all
            return names[next(numbers)]

        numbers = itertools.cycle(drawn)
        windows = _speech_windows()  # before time counts: it takes a while
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
        much = _HotClient(connection, hot_names, hot_rate, until_s, windows)
        cache_folder = None if stored is None else stored.cache
        with _Watch(connection, server.pid, metrics_port, cache_folder) as watch:
            for client in (*clients, much):
                client.start()
            for client in (*clients, much):
                client.join()
            elapsed_s = time.monotonic() - begun_s
        stats = connection.stats(timeout_s=_TIMEOUT_S)
        first, other = (client.seen for client in clients)
        errors = first.errors + other.errors + much.errors
        return Capacity(
            avatars=avatars,
            seconds=elapsed_s,
            requests=sum(first.requests.values()) + sum(other.requests.values()) + much.requests,
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
            hot={name: Spread.of(took) for name, took in sorted(much.took_ms.items())},
            hot_budget_bytes=hot_memory_mb * 2**20,
            peak_hot_bytes=watch.peak_hot_bytes,
            stored=0 if stored is None else len(asked),
            cache_bytes=0 if stored is None else stored.cache_bytes,
            peak_cache_bytes=watch.peak_cache_bytes,
        )


class _Watch:
    """Looks at the server's memory again and again; a context manager."""

    def __init__(
        self, connection: CompositingConnection, pid: int, metrics_port: int, cache: Path | None
    ) -> None:
        self.peak_bytes = 0
        self.peak_hot_bytes = 0
        self.peak_network_bytes = 0
        self.peak_resident_bytes = 0
        self.peak_cache_bytes = 0
        self._cache = cache
        self._connection = connection
        self._pid = pid
        self._metrics = f"http://127.0.0.1:{metrics_port}/metrics"
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> "_Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        ended = False
        while not ended:
            ended = self._ended.wait(_WATCH_S)  # and once at the end
            stats = self._connection.stats(timeout_s=_TIMEOUT_S)
            self.peak_bytes = max(self.peak_bytes, stats.memory_bytes)
            self.peak_network_bytes = max(self.peak_network_bytes, stats.network_memory_bytes)
            self.peak_resident_bytes = max(self.peak_resident_bytes, _resident_bytes(self._pid))
            self.peak_hot_bytes = max(self.peak_hot_bytes, self._hot_bytes())
            if self._cache is not None:
                taken = folder_bytes(self._cache / PACKAGES)
                self.peak_cache_bytes = max(self.peak_cache_bytes, taken)

    def _hot_bytes(self) -> int:
        with urllib.request.urlopen(self._metrics, timeout=_TIMEOUT_S) as answer:
            found = re.search(r"^lipwire_specialised_bytes (\S+)$", answer.read().decode(), re.M)
        return int(float(found[1])) if found else 0


def _speech_windows() -> AudioWindows:
    avatar = Avatar.open(find_avatar("demo"))
    assert avatar.encoder_path is not None
    windows = extract_windows(sample_speech(), AudioEncoder.open(avatar.encoder_path))
    avatar.close()
    return windows


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def _resident_bytes(pid: int) -> int:
    """0 where the system does not tell."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    lines = (line.split() for line in status.splitlines() if line.startswith("VmRSS:"))
    return next((int(line[1]) * 1024 for line in lines), 0)


def _write_avatars(folder: Path, names: list[str], size: tuple[int, int], widths: Widths) -> None:
    """Avatars called ``names`` in ``folder``/avatars, links to a few compiled packages."""
    packages = _write_packages(folder, len(names), size, widths, _FRAMES)
    for package in packages:
        Avatar.open(package, parts=frozenset({"jpeg"})).close()
    (folder / "avatars").mkdir()
    for number, name in enumerate(names):
        (folder / "avatars" / name).symlink_to(packages[number % len(packages)])


def _write_packages(
    folder: Path, count: int, size: tuple[int, int], widths: Widths, frames: int
) -> list[Path]:
    """A few packages in ``folder``, ``count`` at most."""
    packages = [folder / f"package-{seed}" for seed in range(min(_PACKAGES, count))]
    for seed, package in enumerate(packages):
        write_package(package, frames, size, widths, seed)
    return packages
