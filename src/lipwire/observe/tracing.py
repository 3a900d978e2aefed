"""Spans sent to an OpenTelemetry collector, to see where the time of a request went."""

import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import Any, Final

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    SpanExporter,
    SpanExportResult,
)
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

import lipwire
from lipwire.domain import tracing
from lipwire.domain.closing import Closing
from lipwire.domain.tracing import Trace

_LOG: Final = logging.getLogger(__name__)
_ENDED_WITHIN_S: Final = 2.0
"""How long the last spans may take to be sent."""
_SENT_WITHIN_S: Final = 5.0
_SENT_EVERY_S: Final = 2.0
_WAITING: Final = 4096
"""Spans that wait to be sent, at most; more are left out."""
_LONGEST: Final = 200
"""Characters of a text: what clients send is not to fill the collector."""
_KINDS: Final = {
    "server": SpanKind.SERVER,
    "client": SpanKind.CLIENT,
    "internal": SpanKind.INTERNAL,
}
_new_trace_id: ContextVar[int] = ContextVar("lipwire_new_trace_id", default=0)


class _Ids(RandomIdGenerator):
    """A trace that begins here has the id that its request was given."""

    def generate_trace_id(self) -> int:
        return _new_trace_id.get() or super().generate_trace_id()


class SpanRecorder(Closing):
    """Sends spans to an OpenTelemetry collector, in a thread of its own. Thread-safe; a context
    manager, which records the spans of this process (``domain.tracing.record_spans``) until it is
    closed. A collector that is away or slow holds nothing up: at most 4096 spans wait to be sent,
    and more are left out."""

    def __init__(
        self,
        service: str,
        *,
        endpoint: str,
        sample_ratio: float = 1.0,
        exporter: SpanExporter | None = None,
    ) -> None:
        """``service`` is what the collector calls this server. ``endpoint`` is the collector's URL
        for OTLP over HTTP, such as http://127.0.0.1:4318. ``sample_ratio`` is the share of requests
        that are recorded, 0 to 1; where a caller says in its headers whether its request is
        recorded, that decides instead. ``exporter`` gets the spans in place of a collector."""
        if exporter is None:
            url = f"{endpoint.rstrip('/')}/v1/traces"
            exporter = _Telling(OTLPSpanExporter(endpoint=url, timeout=_SENT_WITHIN_S), endpoint)
        self._exporter = exporter
        self._processor = BatchSpanProcessor(
            exporter, max_queue_size=_WAITING, schedule_delay_millis=_SENT_EVERY_S * 1000
        )
        provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(sample_ratio)),
            resource=Resource.create(
                {"service.name": service, "service.version": lipwire.__version__}
            ),
            shutdown_on_exit=False,
            id_generator=_Ids(),
            span_limits=SpanLimits(max_attribute_length=_LONGEST),
        )
        provider.add_span_processor(self._processor)
        self._tracer = provider.get_tracer("lipwire", lipwire.__version__)
        tracing.record_spans(self)

    def begins(self, trace: Trace) -> bool:
        """Return whether a span of ``trace`` is to be begun: True where the caller wants the
        request recorded, and where no caller has decided, because ``sample_ratio`` decides then,
        when the span begins. False where a caller wants it not recorded."""
        return trace.sampled or not trace.span_id

    @contextmanager
    def span(
        self, name: str, kind: tracing.SpanKind, trace: Trace, attributes: Mapping[str, Any]
    ) -> Iterator[tuple["_Recorded", Trace]]:
        """Context manager: record the ``with`` block as a span of ``trace`` called ``name``, of
        kind "server", "client" or "internal", with ``attributes``, by name. The block is given (the
        span; the trace with which spans inside it are begun); an exception that leaves the block
        marks the span as failed. See ``domain.tracing.Recorder.span``."""
        span = self._begun(name, kind, trace, attributes)
        context = span.get_span_context()
        inner = replace(
            trace, span_id=f"{context.span_id:016x}", sampled=context.trace_flags.sampled
        )
        try:
            yield _Recorded(span), inner
        except Exception as error:
            span.set_status(Status(StatusCode.ERROR, type(error).__name__))
            raise
        finally:
            span.end()

    def passed(
        self, name: str, trace: Trace, seconds: float, attributes: Mapping[str, Any]
    ) -> None:
        """Record a span of ``trace`` called ``name``, of kind "internal", with ``attributes``, by
        name, that has ended now and began ``seconds`` ago."""
        ended = time.time_ns()
        began = ended - round(seconds * 1e9)
        self._begun(name, "internal", trace, attributes, began).end(ended)

    def flush(self) -> None:
        """Send the spans that wait to the collector now, and wait until they are sent or that has
        failed."""
        self._processor.force_flush()

    def close(self) -> None:
        """Send the spans that still wait, for two seconds at most, and record nothing more; spans
        that were not sent by then are lost."""
        tracing.record_spans(None)
        ending = threading.Thread(target=self._processor.shutdown, daemon=True)
        ending.start()
        ending.join(_ENDED_WITHIN_S)
        if ending.is_alive():
            self._exporter.shutdown()

    def _begun(
        self,
        name: str,
        kind: tracing.SpanKind,
        trace: Trace,
        attributes: Mapping[str, Any],
        began: int | None = None,
    ) -> Span:
        token = _new_trace_id.set(int(trace.trace_id, 16))
        try:
            return self._tracer.start_span(
                name,
                _context_of(trace),
                _KINDS[kind],
                {"lipwire.request_id": trace.request_id, **attributes},
                start_time=began,
            )
        finally:
            _new_trace_id.reset(token)


class _Recorded:
    """See ``domain.tracing.Span``."""

    def __init__(self, span: Span) -> None:
        self._span = span

    def set(self, **attributes: Any) -> None:
        self._span.set_attributes(attributes)

    def fail(self, status: str) -> None:
        self._span.set_status(Status(StatusCode.ERROR, status))


def _context_of(trace: Trace) -> Context:
    if not trace.span_id:
        return Context()
    state = TraceState.from_header([trace.state]) if trace.state else None
    parent = SpanContext(
        int(trace.trace_id, 16),
        int(trace.span_id, 16),
        is_remote=True,
        trace_flags=TraceFlags(TraceFlags.SAMPLED if trace.sampled else TraceFlags.DEFAULT),
        trace_state=state,
    )
    return set_span_in_context(NonRecordingSpan(parent), Context())


class _Telling(SpanExporter):
    """Says once in the log that spans cannot be sent, and once that they can be again."""

    def __init__(self, exporter: SpanExporter, where: str) -> None:
        self._exporter = exporter
        self._where = where
        self._away = False
        # It would say so with each attempt.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        away = result is not SpanExportResult.SUCCESS
        if away != self._away:
            self._away = away
            if away:
                _LOG.warning("spans cannot be sent to %s; they are left out", self._where)
            else:
                _LOG.info("spans are sent to %s again", self._where)
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()
