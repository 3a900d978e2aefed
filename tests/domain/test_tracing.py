"""Ids of requests: taken from headers, handed on, and the thread's own."""

import threading
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from lipwire.domain.tracing import (
    Recorder,
    Span,
    SpanKind,
    Trace,
    current_trace,
    new_trace,
    record_spans,
    span,
    span_passed,
    trace_of,
    traced,
)

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN_ID = "00f067aa0ba902b7"
PARENT = f"00-{TRACE_ID}-{SPAN_ID}-01"


def of(**headers: str) -> Trace:
    return trace_of({name.replace("_", "-"): value for name, value in headers.items()})


def test_a_callers_trace_is_gone_on_with() -> None:
    trace = of(traceparent=PARENT, tracestate="vendor=1")
    assert trace == Trace(TRACE_ID, TRACE_ID, SPAN_ID, True, "vendor=1")
    assert dict(trace.headers()) == {
        "x-request-id": TRACE_ID,
        "traceparent": PARENT,
        "tracestate": "vendor=1",
    }
    assert not of(traceparent=PARENT[:-1] + "0").sampled


def test_a_callers_id_is_the_requests() -> None:
    assert of(x_request_id="a-1:b.c@d_E").request_id == "a-1:b.c@d_E"
    both = of(x_request_id="mine", traceparent=PARENT)
    assert (both.request_id, both.trace_id) == ("mine", TRACE_ID)


@pytest.mark.parametrize("given", ["", "a b", "a\n", "ä", "x" * 65, '"', "<script>"])
def test_an_id_that_could_do_harm_in_a_log_is_none(given: str) -> None:
    trace = of(x_request_id=given)
    assert trace.request_id == trace.trace_id
    assert len(trace.trace_id) == 32


@pytest.mark.parametrize(
    "parent",
    [
        "",
        PARENT.upper(),
        PARENT.replace("00-", "ff-", 1),
        PARENT + "-more",  # allowed in later versions only
        PARENT[:-3],
        f"00-{'0' * 32}-{SPAN_ID}-01",
        f"00-{TRACE_ID}-{'0' * 16}-01",
        f" {PARENT}",
    ],
)
def test_what_is_no_parent_is_none(parent: str) -> None:
    trace = of(traceparent=parent, tracestate="vendor=1")
    assert trace.trace_id != TRACE_ID
    assert (trace.span_id, trace.sampled, trace.state) == ("", False, "")


def test_a_later_version_is_read_as_far_as_it_is_known() -> None:
    assert of(traceparent="cc-" + PARENT[3:] + "-what-follows").span_id == SPAN_ID
    assert of(traceparent=PARENT, tracestate="a\x00b").state == ""


def test_a_new_trace_is_of_its_own_and_can_be_handed_on() -> None:
    one, other = new_trace(), new_trace()
    assert one.trace_id != other.trace_id
    again = trace_of(dict(one.headers()))
    assert (again.request_id, again.trace_id) == (one.request_id, one.trace_id)
    assert len(again.span_id) == 16


def test_each_thread_works_for_a_request_of_its_own() -> None:
    seen: list[Trace | None] = []
    assert current_trace() is None
    with traced(of(x_request_id="mine")):
        other = threading.Thread(target=lambda: seen.append(current_trace()))
        other.start()
        other.join()
        with traced(None):
            seen.append(current_trace())
        assert current_trace() == replace(of(), request_id="mine", trace_id=_here().trace_id)
    assert seen == [None, None]
    assert current_trace() is None


def _here() -> Trace:
    trace = current_trace()
    assert trace is not None
    return trace


def test_a_generator_may_be_ended_by_another_thread() -> None:
    def frames() -> Generator[int, None, None]:
        with traced(new_trace()):
            yield 1

    begun = frames()
    closing = threading.Thread(target=lambda: next(begun))
    closing.start()
    closing.join()
    begun.close()
    assert current_trace() is None


class Kept(Recorder):
    """Keeps the names of spans, in the order in which they end."""

    def __init__(self) -> None:
        self.names: list[tuple[str, str]] = []

    def begins(self, trace: Trace) -> bool:
        return trace.sampled

    @contextmanager
    def span(
        self, name: str, kind: SpanKind, trace: Trace, attributes: Mapping[str, Any]
    ) -> Iterator[tuple[Span, Trace]]:
        class Nothing:
            def set(self, **attributes: Any) -> None: ...

            def fail(self, status: str) -> None: ...

        yield Nothing(), replace(trace, span_id=f"{trace.span_id}/{name}")
        self.names.append((name, trace.span_id))

    def passed(
        self, name: str, trace: Trace, seconds: float, attributes: Mapping[str, Any]
    ) -> None:
        self.names.append((name, trace.span_id))


@pytest.fixture
def kept() -> Iterator[Kept]:
    kept = Kept()
    record_spans(kept)
    yield kept
    record_spans(None)


def test_spans_are_within_each_other(kept: Kept) -> None:
    with traced(Trace("id", TRACE_ID, "root", True)):
        with span("outer"), span("inner"):
            span_passed("part", current_trace(), 0.5)
        with span("next") as spent:
            spent.set(frames=1)
    assert kept.names == [
        ("part", "root/outer/inner"),
        ("inner", "root/outer"),
        ("outer", "root"),
        ("next", "root"),
    ]


def test_nothing_is_recorded_of_no_request_or_one_that_is_not_sampled(kept: Kept) -> None:
    with span("alone"):
        span_passed("part", current_trace(), 0.5)
    with traced(Trace("id", TRACE_ID, "root", False)), span("left out") as spent:
        spent.fail("INTERNAL")
        span_passed("part", current_trace(), 0.5)
    assert kept.names == []
