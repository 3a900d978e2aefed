"""What a server's parts tell of themselves, as metrics for Prometheus.

Nothing here is worked out before somebody asks for it.
"""

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from lipwire.avatars import FrameObserver
from lipwire.avatars.store.storedavatars import StoredAvatars
from lipwire.config import usable_cores
from lipwire.domain import Access, Call, LipwireError
from lipwire.domain.versions import Chosen, Kind
from lipwire.observe.metrics import ServerMetrics
from lipwire.registry import Registry
from lipwire.renders import Renders
from lipwire.renders.cache import RenderCache
from lipwire.scheduling import Observer, SchedulerStats
from lipwire.security import AccessControl
from lipwire.serving import Backend, BackendHealth, Devices, FrameCost
from lipwire.session.live import LiveSessions, SessionObserver
from lipwire.stores import Notices, RedisConnection

_HEALTH_TIMEOUT_S: Final = 1.0
_HEALTH_EVERY_S: Final = 1.0


class MeasuredRuns(Observer):
    """An observer of a scheduler that adds to ``metrics`` how long requests wait for workers, and
    how long runs of networks take."""

    def __init__(self, metrics: ServerMetrics) -> None:
        self._metrics = metrics

    def waited(self, service: str, seconds: float) -> None:
        """Count that the first frames of a request of class ``service`` (live, batch or render)
        were handed to a worker ``seconds`` after the request was submitted."""
        self._metrics.wait_s.labels(service).observe(seconds)

    def ran(self, frames: int, seconds: float) -> None:
        """Count a run of a network over ``frames`` frames, 1 or more, that took ``seconds``: the
        metric is the time for a frame."""
        self._metrics.inference_s.observe(seconds / frames)


class MeasuredFrames(FrameObserver):
    """An observer of frames that adds to ``metrics`` how long they take to be composed."""

    def __init__(self, metrics: ServerMetrics) -> None:
        self._metrics = metrics

    def composed(self, seconds: float, jpeg_s: float | None = None) -> None:
        """Count a frame that took ``seconds`` to be composed, of which encoding it as JPEG took
        ``jpeg_s`` seconds; None where it was not made as JPEG."""
        self._metrics.composite_s.observe(seconds)
        if jpeg_s is not None:
            self._metrics.jpeg_s.observe(jpeg_s)


class MeasuredSessions(SessionObserver):
    """An observer of live sessions that adds to ``metrics`` what happens in them, and to ``cost``
    how much processor time their frames took; the leases of sessions depend on that."""

    def __init__(self, metrics: ServerMetrics, cost: FrameCost) -> None:
        self._metrics = metrics
        self._cost = cost

    def of(self, chosen: Chosen) -> SessionObserver:
        """Return the observer of a session that shows ``chosen``: this object where the avatar has
        one version, else one that also counts for the version (published or canary)."""
        kind = chosen.kind
        return self if kind is None else _OfVersion(self._metrics, self._cost, kind)

    def first_frame(self, seconds: float) -> None:
        """Count that the first picture of a session left ``seconds`` after the session was asked
        for."""
        self._metrics.first_frame_s.observe(seconds)

    def picture_left(self, seconds: float) -> None:
        """Count that a picture of a session left ``seconds`` after the sound of the same moment."""
        self._metrics.av_offset_s.observe(seconds)

    def composed(self, processor_s: float) -> None:
        """Add to ``cost`` a picture that took ``processor_s`` seconds of a core: to work on its
        part of the speech, and to compose, encode and send it, without the network's run."""
        self._cost.took(processor_s)

    def left_out(self, reason: str, count: int) -> None:
        """Count ``count`` more frames that a session has left out for ``reason``: "late", "pacing"
        or "unread" (``FramesDropped``)."""
        self._metrics.missed.labels(reason).inc(count)


class _OfVersion(MeasuredSessions):
    """What happens in the sessions that show one version of an avatar that has a canary."""

    def __init__(self, metrics: ServerMetrics, cost: FrameCost, version: Kind) -> None:
        super().__init__(metrics, cost)
        self._version: Final[Kind] = version

    def left_out(self, reason: str, count: int) -> None:
        super().left_out(reason, count)
        self._metrics.missed_of_version(self._version, count)

    def failed(self, code: str) -> None:
        self._metrics.of_version(self._version, "live", code, None)


def measured_calls(
    metrics: ServerMetrics,
) -> Callable[[str, str, float | None, Access | None], None]:
    """Return a function that adds to ``metrics`` a gRPC call that has ended, for
    ``ServerOptions.finished``. It is called with the name of the method, the name of the status,
    the seconds that the call took (None for a stream) and what the caller may do (None where that
    is not known)."""

    def finished(method: str, status: str, seconds: float | None, access: Access | None) -> None:
        metrics.call("grpc", method, status, seconds, access)

    return finished


def measure_registry(metrics: ServerMetrics, what: str, registry: Registry[Any]) -> None:
    """Have ``metrics`` show what is loaded in ``registry``, and its hits, misses and evictions,
    which are read at each scrape from now on. ``what`` is the value of the label ``cache``, such as
    "avatars"."""

    def read() -> Iterable[Metric]:
        totals = registry.totals()
        counters = {
            "hits": ("Uses of what was loaded.", totals.hits),
            "misses": ("Uses that had to wait for a load.", totals.misses),
            "evictions": ("What was closed to make room.", totals.evictions),
            "expirations": ("What was closed as nobody used it.", totals.expirations),
        }
        for name, (meaning, value) in counters.items():
            yield _counter(f"lipwire_cache_{name}", meaning, ["cache"], [((what,), value)])
        yield _counter("lipwire_loads", "What was loaded.", ["cache"], [((what,), totals.loads)])
        yield _counter(
            "lipwire_load_failures", "Loads that failed.", ["cache"], [((what,), totals.failures)]
        )
        yield _counter(
            "lipwire_load_refusals",
            "Loads refused as all that is loaded is in use.",
            ["cache"],
            [((what,), totals.refusals)],
        )
        yield _gauge(
            "lipwire_resident_bytes", "What is loaded takes.", ["cache"], [((what,), totals.bytes)]
        )
        yield _gauge("lipwire_resident", "What is loaded.", ["cache"], [((what,), totals.items)])
        if totals.max_items is not None:
            yield _gauge(
                "lipwire_resident_limit",
                "What may be loaded at a time.",
                ["cache"],
                [((what,), totals.max_items)],
            )

    metrics.add(read)


def measure_schedulers(
    metrics: ServerMetrics, schedulers: Mapping[str, Callable[[], SchedulerStats]]
) -> None:
    """Have ``metrics`` show the queues and workers of devices, which are read at each scrape from
    now on. ``schedulers`` has, by the device's name ("cpu", "gpu0"), a function that returns the
    numbers of its scheduler."""

    def read() -> Iterable[Metric]:
        yield from _of_queues([(device, stats()) for device, stats in schedulers.items()])
        yield _gauge("lipwire_cores", "Cores that the server may use.", [], [((), usable_cores())])

    metrics.add(read)


def measure_networks(metrics: ServerMetrics, devices: Devices) -> None:
    """Have ``metrics`` show the networks that are loaded on ``devices``, which are read at each
    scrape from now on."""

    def read() -> Iterable[Metric]:
        yield _gauge(
            "lipwire_networks",
            "Networks that are loaded, by what runs them and in which precision.",
            ["device", "runner", "precision"],
            [
                ((device, *running), count)
                for device, each in devices.loaded().items()
                for running, count in each.items()
            ],
        )
        hot = devices.hot()
        yield _gauge(
            "lipwire_specialised_bytes",
            "Memory that networks in bfloat16 take on the processor.",
            [],
            [((), hot.memory_bytes)],
        )
        yield _counter(
            "lipwire_specialisations",
            "Networks that were made to run in bfloat16, and that had to make room for others.",
            ["what"],
            [(("loaded",), hot.specialised), (("evicted",), hot.evicted)],
        )

    metrics.add(read)


def _of_queues(each: Sequence[tuple[str, SchedulerStats]]) -> Iterable[Metric]:
    gauges: dict[str, tuple[str, Callable[[SchedulerStats], int]]] = {
        "lipwire_queue_depth": ("Requests that wait.", lambda stats: stats.queued),
        "lipwire_queue_limit": ("Requests that may wait.", lambda stats: stats.queue_size),
        "lipwire_workers_busy": ("Workers that run a network.", lambda stats: stats.busy),
        "lipwire_workers": ("Workers there are.", lambda stats: stats.workers),
    }
    for name, (meaning, of) in gauges.items():
        yield _gauge(name, meaning, ["device"], [((device,), of(stats)) for device, stats in each])
    yield _counter(
        "lipwire_frames",
        "Mouths that networks made.",
        ["device", "service"],
        [((d, s), row.frames) for d, stats in each for s, row in stats.classes.items()],
    )
    yield _counter(
        "lipwire_queue_refusals",
        "Requests refused or given up in the queue: it was full, or the deadline out of reach.",
        ["device", "service", "reason"],
        [
            ((d, s, reason), count)
            for d, stats in each
            for s, row in stats.classes.items()
            for reason, count in (("full", row.refused_full), ("deadline", row.refused_deadline))
        ],
    )


def recent_health(
    backend: Backend, clock: Callable[[], float] = time.monotonic
) -> Callable[[], BackendHealth]:
    """Return a function that returns the health of ``backend``, asked for at most a second before,
    so that one scrape asks inference servers only once. The function waits for their answer.
    Thread-safe. ``clock`` gives seconds."""
    lock = threading.Lock()
    known: list[tuple[float, BackendHealth]] = []

    def health() -> BackendHealth:
        with lock:
            if not known or clock() - known[0][0] >= _HEALTH_EVERY_S:
                asked = backend.health(call=Call(_HEALTH_TIMEOUT_S))
                known[:] = [(clock(), asked)]
            return known[0][1]

    return health


def measure_backend(metrics: ServerMetrics, health_now: Callable[[], BackendHealth]) -> None:
    """Have ``metrics`` show at each scrape whether a backend can make mouths, and the state of its
    GPUs. ``health_now()`` returns the backend's health (``recent_health``)."""

    def read() -> Iterable[Metric]:
        health = health_now()
        yield _gauge("lipwire_healthy", "Whether mouths can be made.", [], [((), health.healthy)])
        gpus = {
            "lipwire_gpu_utilization_ratio": ("Share of time at work.", "utilisation"),
            "lipwire_gpu_memory_used_bytes": ("Memory that all programs use.", "used_bytes"),
            "lipwire_gpu_memory_bytes": ("Memory there is.", "memory_bytes"),
            "lipwire_gpu_lost": ("1 where it does not work any more.", "lost"),
        }
        for name, (meaning, field) in gpus.items():
            rows = [
                ((gpu.server, str(gpu.index)), _number(getattr(gpu, field))) for gpu in health.gpus
            ]
            yield _gauge(name, meaning, ["server", "gpu"], rows)

    metrics.add(read)


def measure_sessions(
    metrics: ServerMetrics, sessions: LiveSessions, capacity: Callable[[], int]
) -> None:
    """Have ``metrics`` show numbers about the live ``sessions``, which are read at each scrape from
    now on; ``capacity()`` returns how many there may be, 0 where that is not known yet."""

    def read() -> Iterable[Metric]:
        stats = sessions.stats()
        yield _gauge("lipwire_sessions_active", "Live sessions.", [], [((), stats.active)])
        yield _gauge(
            "lipwire_sessions_waiting",
            "Those of them that wait for their avatar or for room.",
            [],
            [((), stats.opening)],
        )
        yield _gauge(
            "lipwire_sessions_capacity",
            "Live sessions that there may be; 0 where no network was measured yet.",
            [],
            [((), capacity())],
        )
        yield _counter("lipwire_sessions", "Sessions begun.", [], [((), stats.opened)])
        yield _counter(
            "lipwire_sessions_refused",
            "Sessions refused for want of room.",
            [],
            [((), stats.refused)],
        )
        yield _counter(
            "lipwire_sessions_ended",
            "Sessions that have ended, by the reason.",
            ["reason"],
            [((reason,), count) for reason, count in stats.ended.items()],
        )

    metrics.add(read)


def measure_web(
    metrics: ServerMetrics, *, viewers: Callable[[], int], lag_s: Callable[[], float]
) -> None:
    """Have ``metrics`` show two numbers of the web server at each scrape: ``viewers()`` returns how
    many viewers of live sessions there are, and ``lag_s()`` by how many seconds its event loop is
    late. Both are called in the thread that scrapes."""

    def read() -> Iterable[Metric]:
        yield _gauge("lipwire_viewers", "Viewers of live sessions.", [], [((), viewers())])
        yield _gauge(
            "lipwire_web_loop_lag_seconds",
            "How late the web server's event loop was when it was last looked at.",
            [],
            [((), lag_s())],
        )

    metrics.add(read)


def measure_audit(metrics: ServerMetrics, control: AccessControl) -> None:
    """Have ``metrics`` show at each scrape how many records of calls could not be written to the
    audit file of ``control``. Does nothing where there is no such file."""
    audit = control.audit
    if audit is None:
        return

    def read() -> Iterable[Metric]:
        yield _counter(
            "lipwire_audit_lost",
            "Records of calls that could not be written.",
            [],
            [((), audit.lost)],
        )

    metrics.add(read)


def measure_redis(metrics: ServerMetrics, redis: RedisConnection) -> None:
    """Have ``metrics`` show at each scrape whether the Redis server of the connection ``redis`` is
    away, how many commands it has answered, and how many not."""

    def read() -> Iterable[Metric]:
        stats = redis.stats()
        yield _gauge("lipwire_redis_away", "1 while Redis is away.", [], [((), not stats.up)])
        for name, meaning, value in (
            ("outages", "How often Redis was away.", stats.outages),
            ("commands", "Commands that Redis has answered.", stats.commands),
            ("seconds", "How long these took together.", stats.seconds),
            ("missed", "Commands not answered, or not sent while Redis was away.", stats.missed),
        ):
            yield _counter(f"lipwire_redis_{name}", meaning, [], [((), value)])

    metrics.add(read)


def measure_notices(metrics: ServerMetrics, notices: Notices) -> None:
    """Have ``metrics`` show at each scrape whether ``notices``, through which a server learns that
    something was published in a store, are connected, and how often the store was looked at because
    of them."""

    def read() -> Iterable[Metric]:
        yield _gauge(
            "lipwire_store_notices_heard",
            "1 while Redis tells when something is published.",
            [],
            [((), notices.hearing)],
        )
        yield _counter(
            "lipwire_store_noticed",
            "Looks at the store for what Redis told, or as it was reached.",
            [],
            [((), notices.looks)],
        )

    metrics.add(read)


def measure_renders(metrics: ServerMetrics, renders: Renders, *, shared: bool) -> None:
    """Have ``metrics`` show at each scrape how many of the ``renders`` that this process has made
    have ended, and how. With ``shared`` also how many wait and run in all processes of the server,
    and how many bytes they have on the disk; only one of the processes may do that."""

    def read() -> Iterable[Metric]:
        yield _counter(
            "lipwire_renders",
            "Renders that have ended, by how.",
            ["state"],
            [((state,), count) for state, count in renders.ends().items()],
        )
        if not shared:
            return
        counts = renders.counts()
        rows = [(("queued",), counts.queued), (("running",), counts.running)]
        yield _gauge("lipwire_renders_pending", "Renders that have not ended.", ["state"], rows)
        yield _gauge(
            "lipwire_renders_disk_bytes",
            "What videos and recordings of renders take of the disk.",
            [],
            [((), counts.bytes)],
        )

    metrics.add(read)


def measure_render_cache(metrics: ServerMetrics, cache: RenderCache) -> None:
    """Have ``metrics`` show at each scrape how often a finished video was looked for in ``cache``,
    by the result."""

    def read() -> Iterable[Metric]:
        yield _counter(
            "lipwire_renders_cache",
            "Orders of renders that were looked for in the cache, by what came of it.",
            ["result"],
            [((result,), count) for result, count in cache.results().items()],
        )

    metrics.add(read)


def measure_store(metrics: ServerMetrics, stored: StoredAvatars) -> None:
    """Have ``metrics`` show at each scrape whether the store of ``stored``, from which avatars are
    downloaded, is away, and numbers about the cache of its versions."""

    def read() -> Iterable[Metric]:
        done = stored.cache.done
        yield _gauge("lipwire_store_away", "1 while the store is away.", [], [((), stored.away)])
        with suppress(LipwireError):
            taken, most = stored.cache.index.total_bytes(), stored.cache.index.max_bytes
            yield _gauge("lipwire_store_cache_bytes", "Taken in the cache.", [], [((), taken)])
            yield _gauge("lipwire_store_cache_max_bytes", "Its budget.", [], [((), most)])
        yield _gauge(
            "lipwire_store_canaries",
            "Canaries that are loaded and shown to their share, and that could not be loaded.",
            ["state"],
            [((state,), count) for state, count in stored.canaries.counts().items()],
        )
        for name, meaning, value in (
            ("downloads", "Versions downloaded, whole or in part.", done.packages),
            ("downloaded_bytes", "How many bytes these were.", done.bytes),
            ("failures", "Downloads that failed.", done.failures),
            ("damaged", "Files found damaged in the cache.", done.mended),
        ):
            yield _counter(f"lipwire_store_{name}", meaning, [], [((), value)])

    metrics.add(read)


_Rows = Iterable[tuple[tuple[str, ...], float]]


def _counter(name: str, meaning: str, labels: Sequence[str], rows: _Rows) -> Metric:
    family = CounterMetricFamily(name, meaning, labels=labels)
    for values, value in rows:
        family.add_metric(values, value)
    return family


def _gauge(name: str, meaning: str, labels: Sequence[str], rows: _Rows) -> Metric:
    family = GaugeMetricFamily(name, meaning, labels=labels)
    for values, value in rows:
        family.add_metric(values, value)
    return family


def _number(value: float | str) -> float:
    return float(bool(value)) if isinstance(value, str) else value
