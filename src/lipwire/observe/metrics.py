"""What a server counts and measures for Prometheus, in one process.

Durations and calls are told as they end. Numbers that others keep anyway are read when somebody
asks for them (``ServerMetrics.read``), so that they cost nothing in between. No label takes more
than a few dozen values: an avatar's own numbers are in GetModelStats.
"""

import platform
from collections.abc import Callable, Iterable
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

import lipwire
from lipwire.domain import EVERYTHING, Access
from lipwire.domain.versions import Kind

_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_FRAME_SECONDS: Final = (
    *(0.001, 0.002, 0.004, 0.008, 0.012, 0.016, 0.02, 0.03, 0.04, 0.06, 0.1, 0.2, 0.5),
)
_PART_SECONDS: Final = (0.0002, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.05)
_OFFSET_SECONDS: Final = (0.002, 0.005, 0.01, 0.02, 0.03, 0.045, 0.06, 0.1, 0.2)
_LOAD_SECONDS: Final = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)

STARTED: Final = "lipwire_start_time_seconds"
"""The number that tells a process from another that takes its place."""
_SERVERS_FAULT: Final = frozenset(
    {"INTERNAL", "UNKNOWN", "DATA_LOSS", "UNAVAILABLE", "DEADLINE_EXCEEDED"}
    | {str(status) for status in range(500, 600)}
)
"""How calls end that the server should have answered."""
_REFUSED: Final = {
    "RESOURCE_EXHAUSTED": "limit",
    "UNAUTHENTICATED": "credentials",
    "PERMISSION_DENIED": "permission",
    "401": "credentials",
    "402": "quota",
    "403": "permission",
    "429": "limit",
}


disable_created_metrics()  # type: ignore[no-untyped-call]  # a series more for each one, which nobody reads


_CLASSES: Final = ("unknown", "anybody", "operator", "tenant")
"""Whose calls there are."""


class ServerMetrics:
    """The metrics of one process of a server, counted and measured for Prometheus. Thread-safe."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._calls = Counter(
            "lipwire_requests",
            "Calls that have ended, by how: the name of a gRPC status, or an HTTP status.",
            ["protocol", "call", "code"],
            registry=self._registry,
        )
        self._call_s = Histogram(
            "lipwire_request_seconds",
            "How long calls took, without live sessions, viewers and streams of events.",
            ["protocol", "call"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._errors = Counter(
            "lipwire_errors",
            "Calls that the server should have answered and did not.",
            ["protocol", "call"],
            registry=self._registry,
        )
        self._refusals = Counter(
            "lipwire_refusals",
            "Calls refused for a limit, a quota, their credentials or for what those allow.",
            ["reason", "tenant_class"],
            registry=self._registry,
        )
        self.inference_s = self._histogram(
            "lipwire_inference_seconds",
            "How long a run of a network took, divided by its frames.",
            _FRAME_SECONDS,
        )
        self.composite_s = self._histogram(
            "lipwire_composite_seconds",
            "How long a frame took to be composed: the mouth pasted, and the frame encoded.",
            _PART_SECONDS,
        )
        self.jpeg_s = self._histogram(
            "lipwire_jpeg_seconds", "The encoding of that, for frames as JPEG.", _PART_SECONDS
        )
        self.wait_s = Histogram(
            "lipwire_queue_wait_seconds",
            "How long requests for mouths waited for a worker, by class.",
            ["service"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.missed = Counter(
            "lipwire_frame_deadline_missed",
            "Frames that live sessions left out: the mouth came late, the machine could not compose"
            " it in time (pacing), or the client does not read.",
            ["reason"],
            registry=self._registry,
        )
        self.first_frame_s = self._histogram(
            "lipwire_first_frame_seconds",
            "From asking for a live session to its first frame.",
            _LOAD_SECONDS,
        )
        self.av_offset_s = self._histogram(
            "lipwire_av_offset_seconds",
            "How long after its sound a picture of a live session left.",
            _OFFSET_SECONDS,
        )
        self.cold_start_s = self._histogram(
            "lipwire_avatar_cold_start_seconds",
            "How long an avatar took to be loaded, compiling included where it was not compiled.",
            _LOAD_SECONDS,
        )
        self._version_calls = Counter(
            "lipwire_version_requests",
            "Batches, live sessions and renders of avatars that have a canary, by version and by"
            " how they ended: OK, or the name of a gRPC status. Of a live session its beginning.",
            ["version", "service", "code"],
            registry=self._registry,
        )
        self._version_s = Histogram(
            "lipwire_version_seconds",
            "How long these batches took, and until live sessions had begun.",
            ["version", "service"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._version_missed = Counter(
            "lipwire_version_frames_missed",
            "Frames that live sessions of avatars that have a canary left out, by version.",
            ["version"],
            registry=self._registry,
        )
        build = Gauge(
            "lipwire_build_info",
            "1, with the versions of Lipwire and Python.",
            ["version", "python"],
            registry=self._registry,
        )
        started = Gauge(
            STARTED,
            "When this process began to count, in seconds since 1970.",
            registry=self._registry,
        )
        started.set_to_current_time()
        build.labels(lipwire.__version__, platform.python_version()).set(1)
        ProcessCollector(registry=self._registry)

        for reason in ("late", "pacing", "unread"):
            self.missed.labels(reason)
        for reason in set(_REFUSED.values()):
            for tenant_class in _CLASSES:
                self._refusals.labels(reason, tenant_class)

    def call(
        self, protocol: str, call: str, code: str, seconds: float | None, access: Access | None
    ) -> None:
        """Count a call that has ended.

        ``protocol`` is "grpc" or "http", ``call`` the method, or the route with its method, of
        which there may be a few dozen. ``code`` is the name of the gRPC status or the number of the
        HTTP status. ``seconds`` is how long it took; None where that says nothing, such as for a
        live session: it is not recorded then. ``access`` is what its caller may do, None where that
        was not found out: refused calls are counted by whether it is a tenant's, an operator's, or
        anybody's (callers are not told apart).
        """
        self._calls.labels(protocol, call, code).inc()
        if seconds is not None:
            self._call_s.labels(protocol, call).observe(seconds)
        # Also where there was none: a rate begins with what was there before.
        self._errors.labels(protocol, call).inc(code in _SERVERS_FAULT)
        reason = _REFUSED.get(code)
        if reason is not None:
            self._refusals.labels(reason, _class_of(access)).inc()

    def of_version(self, version: Kind, service: str, code: str, seconds: float | None) -> None:
        """Count a batch, a live session or a render (``service`` is "batch", "live" or "render") of
        an avatar that has a canary: a version that a share of those who use the avatar are shown in
        place of the published one. ``version`` says which of the two was shown, "published" or
        "canary". ``code`` is how it ended, "OK" or the name of a gRPC status, and ``seconds`` how
        long it took; None where that says nothing. Of a live session, both are about its beginning
        alone."""
        self._version_calls.labels(version, service, code).inc()
        if seconds is not None:
            self._version_s.labels(version, service).observe(seconds)

    def missed_of_version(self, version: Kind, count: int) -> None:
        """Count ``count`` frames that a live session left out. The session shows an avatar that has
        a canary, a version that only a share of users are shown in place of the published one;
        ``version`` says which of the two this session shows, "published" or "canary"."""
        self._version_missed.labels(version).inc(count)

    def add(self, read: Callable[[], Iterable[Metric]]) -> None:
        """Have ``read()`` called whenever ``ServerMetrics.read`` is called, in the same thread; the
        metrics that it returns, of prometheus_client's type, are added to the others. An error that
        it raises is raised by ``ServerMetrics.read``."""
        self._registry.register(_Reading(read))

    def read(self) -> bytes:
        """Return all metrics of this process in Prometheus' text format, UTF-8, with those of the
        functions that ``add`` was given. These are called in this thread, and an error that one of
        them raises is raised here."""
        return generate_latest(self._registry)

    def _histogram(self, name: str, meaning: str, buckets: Iterable[float]) -> Histogram:
        return Histogram(name, meaning, buckets=tuple(buckets), registry=self._registry)


class _Reading(Collector):
    """Metrics that are made when they are asked for."""

    def __init__(self, read: Callable[[], Iterable[Metric]]) -> None:
        self._read = read

    def describe(self) -> Iterable[Metric]:
        """Return nothing: else what is read would be read once more when it is registered."""
        return []

    def collect(self) -> Iterable[Metric]:
        """Return the metrics as they are now."""
        return self._read()


def _class_of(access: Access | None) -> str:
    """Whose call it was, as one of few words."""
    if access is None:
        return "unknown"
    if access == EVERYTHING:
        return "anybody"
    return "tenant" if access.tenant else "operator"
