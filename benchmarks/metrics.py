"""What watching over a server costs: `python benchmarks/metrics.py [ROUNDS]`.

First one scrape of a server with 11,000 loaded avatars and 200 live sessions at rest: its time and
its size. Then processor time of requests with and without metrics, the record of calls, a JSON log
and spans of every request, in turns: two servers in this process, the same requests to each. How
long a network takes differs more from round to round than what is measured; its own processor time
is taken off, and what is left is compared with that of a whole request.
"""

import io
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any, Final, NamedTuple
from urllib.request import urlopen

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from tests.support.flashing import real_threads
from tests.support.liveparts import SETTINGS, FakeAvatar

from lipwire.avatars import find_avatar
from lipwire.config import load_compositing_config, load_inference_config
from lipwire.config.metrics import MetricsSettings
from lipwire.config.securitysettings import SecuritySettings
from lipwire.domain import Call, Float32Array, UInt8Array
from lipwire.domain.tracing import record_spans
from lipwire.engine import Engine, Model
from lipwire.observe import configure_logging
from lipwire.observe.metrics import ServerMetrics
from lipwire.observe.tracing import SpanRecorder
from lipwire.registry import Loaded, Registry
from lipwire.rpc.connection import CompositingConnection
from lipwire.rpc.generated.compositing_pb2 import CompositeBatchRequest
from lipwire.session.live import LiveSessions
from lipwire.wiring.measuring import MeasuredSessions, measure_registry, measure_sessions
from lipwire.wiring.metricsport import metrics_port
from lipwire.wiring.servers import open_serve

REQUESTS: Final = 3
FRAMES: Final = 24
AVATARS: Final = 11_000
SESSIONS: Final = 200
TIMEOUT_S: Final = 60.0


class TimedEngine(Engine):
    """Knows the processor time that networks have taken."""

    def __init__(self) -> None:
        super().__init__(threads=1)
        self.spent_ns = 0

    def infer(self, model: Model, crops: UInt8Array, windows: Float32Array) -> UInt8Array:
        """See ``Engine.infer``."""
        began = time.thread_time_ns()
        try:
            return super().infer(model, crops, windows)
        finally:
            self.spent_ns += time.thread_time_ns() - began


class Side(NamedTuple):
    """A server: a connection to it, and the engine that it has."""

    connection: CompositingConnection
    engine: TimedEngine


class Unmeasured(ServerMetrics):
    """Metrics that do nothing with what they are told."""

    def __init__(self) -> None:
        super().__init__()
        nothing: Any = _Nothing()
        self.inference_s = self.composite_s = self.jpeg_s = nothing
        self.wait_s = self.missed = self.cold_start_s = nothing
        self.first_frame_s = self.av_offset_s = nothing

    def call(self, *_: object) -> None:
        """Do nothing."""


class Encoding(SpanExporter):
    """Makes of spans what a collector is sent, and sends it to nobody."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """See ``SpanExporter.export``."""
        encode_spans(spans).SerializeToString()
        return SpanExportResult.SUCCESS


class _Nothing:
    def labels(self, *_: object) -> "_Nothing":
        return self

    def observe(self, _: float) -> None: ...

    def inc(self, _: float = 1) -> None: ...

    @contextmanager
    def time(self) -> Iterator[None]:
        yield


def overhead(rounds: int) -> None:
    """Print what a request of 24 frames takes with and without being watched over."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        log = io.StringIO()
        configure_logging("info", as_json=True, stream=log)
        recorder = stack.enter_context(SpanRecorder("benchmark", endpoint="", exporter=Encoding()))

        def server(metrics: ServerMetrics, **environ: str) -> Side:
            engine = TimedEngine()
            config = load_compositing_config(
                None,
                {
                    "LIPWIRE_MODELS_ROOT": str(find_avatar("demo").parent),
                    "LIPWIRE_SERVER__PORT": "0",
                    "LIPWIRE_WEB__ENABLED": "false",
                    "LIPWIRE_SPEECH__VOICE": "none",
                    **environ,
                },
            )
            opened = stack.enter_context(
                open_serve(
                    config,
                    load_inference_config(None, {}),
                    tell=lambda *_: None,
                    make_engine=lambda _: engine,
                    metrics=metrics,
                )
            )
            connection = CompositingConnection(f"127.0.0.1:{opened.port}")
            return Side(stack.enter_context(connection), engine)

        sides = {
            "watched": server(
                ServerMetrics(),
                LIPWIRE_SECURITY__AUDIT_FILE=f"{folder}/audit",
                LIPWIRE_LOGGING__LOG_COMPOSITING_TIMES="true",
            ),
            "not watched": server(Unmeasured(), LIPWIRE_LOGGING__LOG_COMPOSITING_TIMES="false"),
        }
        windows = np.random.default_rng(0).standard_normal((FRAMES, 32, 16, 16), np.float32)
        request = CompositeBatchRequest(
            model_id="demo", audio_features=windows.tobytes(), batch_size=FRAMES
        )
        spent: dict[str, list[float]] = {side: [] for side in sides}
        whole: list[float] = []
        for number in range(rounds + 2):
            order = list(sides.items())[:: 1 if number % 2 else -1]
            for side, (connection, engine) in order:
                engine.spent_ns = 0
                record_spans(recorder if side == "watched" else None)
                began = time.process_time_ns()
                for _ in range(REQUESTS):
                    connection.composite(request, TIMEOUT_S)
                if side == "watched":
                    recorder.flush()
                taken = time.process_time_ns() - began
                spent[side].append((taken - engine.spent_ns) / 1e6 / REQUESTS)
                whole.append(taken / 1e6 / REQUESTS)
        both = list(zip(spent["watched"][2:], spent["not watched"][2:], strict=True))
        more = sorted(one - other for one, other in both)
        watched, not_watched = (median(side) for side in zip(*both, strict=True))
        print(
            f"a request of {FRAMES} frames: {median(whole):.1f} ms of processor time; besides the"
            f" network {watched:.2f} ms watched, {not_watched:.2f} not: {median(more):.2f} ms more"
            f" ({more[0]:.2f} to {more[-1]:.2f}, {rounds} rounds),"
            f" {median(more) / median(whole):.2%} of the request"
        )
    print(f"the calls themselves: {per_request_us():.0f} us a request")


def per_request_us() -> float:
    """Return how many microseconds of processor time the metrics of a request of 24 frames take."""
    metrics = ServerMetrics()
    times = []
    for _ in range(200):
        began = time.process_time_ns()
        for _ in range(FRAMES):
            metrics.composite_s.observe(0.001)
            metrics.jpeg_s.observe(0.001)
        for _ in range(3):
            metrics.inference_s.observe(0.02)
        metrics.wait_s.labels("batch").observe(0.01)
        metrics.call("grpc", "compositing.CompositingService/InferBatchComposite", "OK", 0.5, None)
        times.append((time.process_time_ns() - began) / 1e3)
    return median(times)


def scrape() -> None:
    """Print the time and the size of scrapes of a large server."""
    metrics = ServerMetrics()

    def load(name: str) -> Loaded[str]:
        return Loaded(name, 1000, lambda: None)

    with (
        Registry(load, max_items=AVATARS) as avatars,
        real_threads() as threads,
        LiveSessions(
            lambda model_id, call: FakeAvatar().live(),
            threads,
            observer=MeasuredSessions(metrics),
        ) as sessions,
    ):
        for number in range(AVATARS):
            with avatars.use(str(number)):
                pass
        for number in range(SESSIONS):
            sessions.open(str(number), SETTINGS, call=Call(TIMEOUT_S))
        measure_registry(metrics, "avatars", avatars)
        measure_sessions(metrics, sessions, lambda: SESSIONS)
        for call in range(30):  # routes and methods there are, each with some outcomes
            for code in ("OK", "NOT_FOUND", "UNAVAILABLE", "RESOURCE_EXHAUSTED"):
                metrics.call("grpc", f"lipwire.v1.SomeService/Method{call}", code, 0.1, None)
        config = load_compositing_config(None, {})
        with metrics_port(
            MetricsSettings(port=0),
            config.server,
            SecuritySettings(),
            read=metrics.read,
            ready=lambda: True,
            tell=lambda *_: None,
        ) as port:
            times, size = [], 0
            for _ in range(20):
                began = time.perf_counter()
                with urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
                    size = len(answer.read())
                times.append((time.perf_counter() - began) * 1000)
        print(
            f"a scrape of {avatars.totals().items} avatars and {sessions.stats().active} sessions:"
            f" {median(times):.1f} ms (at most {max(times):.1f}), {size / 1000:.1f} kB"
        )


if __name__ == "__main__":
    scrape()
    overhead(int(sys.argv[1]) if sys.argv[1:] else 9)
