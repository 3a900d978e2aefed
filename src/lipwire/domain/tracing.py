"""What belongs to one request: its id, in every process that works for it, and spans of time for
whoever records them.

A server takes both from the request that it gets (``trace_of``), and hands them on with each
request that it sends itself (``Trace.headers``). In between they are the thread's or task's own
(``current_trace``), so that log lines, records and errors have the id without being given it.
Names and forms of headers are those of W3C Trace Context, and ``x-request-id``.
"""

import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, Protocol

REQUEST_ID: Final = "x-request-id"
TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"

SpanKind = Literal["server", "client", "internal"]
"""What is done in a span: a request is answered, one is sent, or something in between."""

_PARENT: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_ID: Final = re.compile(r"[A-Za-z0-9._:@-]{1,64}")
_STATE: Final = re.compile(r"[\x20-\x7e]{1,512}")
_SAMPLED: Final = 0x01


@dataclass(frozen=True, slots=True)
class Trace:
    """What ties together all that is done for one request, in whatever process.

    ``request_id`` is what logs, records and errors call it. ``trace_id`` (32 hexadecimal digits)
    and ``span_id`` (16; empty where there is no span yet) are its place in a trace, ``sampled``
    says whether spans of it are recorded, and ``state`` is the ``tracestate`` of other systems,
    which is passed on unchanged.
    """

    request_id: str
    trace_id: str
    span_id: str = ""
    sampled: bool = False
    state: str = ""

    def headers(self) -> tuple[tuple[str, str], ...]:
        """Return the headers that pass this trace to another process, as (name, value) pairs for
        HTTP headers or gRPC metadata: ``x-request-id``, ``traceparent``, and ``tracestate`` where
        ``state`` is not empty."""
        span_id = self.span_id or secrets.token_hex(8)
        told = [
            (REQUEST_ID, self.request_id),
            (TRACEPARENT, f"00-{self.trace_id}-{span_id}-{_SAMPLED if self.sampled else 0:02x}"),
        ]
        if self.state:
            told.append((TRACESTATE, self.state))
        return tuple(told)

    def unrecorded(self) -> "Trace":
        """Return a copy of which no spans are recorded (``sampled`` is False), with a new
        ``span_id`` where this one has none: for work with more parts than can be recorded."""
        return replace(self, sampled=False, span_id=self.span_id or secrets.token_hex(8))


def new_trace() -> Trace:
    """Return the trace of a request that belongs to no other, with new ids."""
    trace_id = secrets.token_hex(16)
    return Trace(trace_id, trace_id)


def trace_of(headers: Mapping[str, str]) -> Trace:
    """Return the trace of a request that was received with ``headers``: the values of HTTP headers
    or gRPC metadata by name in lower case, of which ``x-request-id``, ``traceparent`` and
    ``tracestate`` are looked at.

    Headers that are not well formed count as missing. Missing ids of the trace are made anew, and
    where the request's id is missing it is the trace's.
    """
    found = _PARENT.fullmatch(headers.get(TRACEPARENT, ""))
    trace = new_trace() if found is None else _parsed(found, headers.get(TRACESTATE, ""))
    given = headers.get(REQUEST_ID, "")
    return replace(trace, request_id=given) if _ID.fullmatch(given) else trace


def _parsed(found: re.Match[str], state: str) -> Trace:
    version, trace_id, span_id, flags, more = found.groups()
    forbidden = version == "ff" or not int(trace_id, 16) or not int(span_id, 16)
    if forbidden or (version == "00" and more is not None):
        return new_trace()
    sampled = bool(int(flags, 16) & _SAMPLED)
    return Trace(trace_id, trace_id, span_id, sampled, state if _STATE.fullmatch(state) else "")


_current: ContextVar[Trace | None] = ContextVar("lipwire_trace", default=None)


def current_trace() -> Trace | None:
    """Return the trace of the request that this thread or task works for; None where it works for
    none."""
    return _current.get()


def trace_headers() -> tuple[tuple[str, str], ...]:
    """Return ``Trace.headers``, (name, value) pairs for HTTP headers or gRPC metadata, of the
    request that this thread or task works for; an empty tuple where it works for none."""
    trace = _current.get()
    return () if trace is None else trace.headers()


@contextmanager
def traced(trace: Trace | None) -> Iterator[None]:
    """Context manager: have this thread or task work for the request of ``trace`` during the
    ``with`` block, in which ``current_trace`` returns ``trace``; None: for no request. Afterwards
    the thread or task works for what it did before."""
    token = _current.set(trace)
    try:
        yield
    finally:
        # A generator may be ended by another thread than began it, which has its own.
        with suppress(ValueError):
            _current.reset(token)


class Span(Protocol):
    """A part of the work for a request, while it is recorded with the time that it takes."""

    def set(self, **attributes: Any) -> None:
        """Add ``attributes``, texts, numbers and truth values by name, to the record of the span. A
        value replaces one that was set before under the same name."""

    def fail(self, status: str) -> None:
        """Record the span as failed. ``status`` is the name or the number of the error, such as
        gRPC's or HTTP's status."""


class Recorder(Protocol):
    """Records spans: how long parts of the work for requests took. One is set for the whole process
    with ``record_spans``; ``span`` and ``span_passed`` call it, in any thread."""

    def begins(self, trace: Trace) -> bool:
        """Return whether spans of ``trace`` are to be recorded. Where this is False, ``span`` and
        ``passed`` are not called for it."""

    def span(
        self, name: str, kind: SpanKind, trace: Trace, attributes: Mapping[str, Any]
    ) -> AbstractContextManager[tuple[Span, Trace]]:
        """Return a context manager that records its ``with`` block as a span of ``trace``, called
        ``name``, with ``attributes`` (texts, numbers and truth values by name). ``kind`` is
        "server" where the block answers a request, "client" where it sends one, else "internal".

        The block is given the span, and ``trace`` with the span's id in it, for requests and spans
        inside the block.
        """

    def passed(
        self, name: str, trace: Trace, seconds: float, attributes: Mapping[str, Any]
    ) -> None:
        """Record a span of ``trace``, called ``name``, with ``attributes`` (texts, numbers and
        truth values by name), that has ended now and began ``seconds`` ago."""


class _NoSpan:
    def set(self, **attributes: Any) -> None:
        """Do nothing: the span is not recorded."""

    def fail(self, status: str) -> None:
        """Do nothing: the span is not recorded."""


_NO_SPAN: Final = _NoSpan()
_recorder: Recorder | None = None


def record_spans(recorder: Recorder | None) -> None:
    """Have ``recorder`` record the spans of this process from now on, in place of the one that was
    set before; None: no spans are recorded."""
    global _recorder
    _recorder = recorder


@contextmanager
def span(name: str, kind: SpanKind = "internal", **attributes: Any) -> Iterator[Span]:
    """Context manager: record the ``with`` block as a span, called ``name``, of the request that
    this thread or task works for, with ``attributes`` (texts, numbers and truth values). ``kind``
    is "server" where the block answers a request, "client" where it sends one, else "internal".

    The block is given the span, to which it may add. Where this thread or task works for no
    request, or nobody records (``record_spans``), the block is run all the same and nothing is
    recorded.
    """
    trace = _current.get()
    recorder = _recorder
    if recorder is None or trace is None or not recorder.begins(trace):
        yield _NO_SPAN
        return
    with recorder.span(name, kind, trace, attributes) as (recorded, inner), traced(inner):
        yield recorded


def span_passed(name: str, trace: Trace | None, seconds: float, **attributes: Any) -> None:
    """Record a span of ``trace``, called ``name``, that has ended now and began ``seconds`` ago,
    with ``attributes`` (texts, numbers and truth values). Does nothing where nobody records
    (``record_spans``), or ``trace`` is None."""
    recorder = _recorder
    if recorder is not None and trace is not None and recorder.begins(trace):
        recorder.passed(name, trace, seconds, attributes)
