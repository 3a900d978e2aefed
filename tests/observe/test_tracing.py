"""Spans, as an OpenTelemetry collector gets them."""

import logging
import threading
from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from tests.support.collector import Collector, collector

from lipwire.domain.tracing import Trace, current_trace, new_trace, span, span_passed, traced
from lipwire.observe import tracing
from lipwire.observe.tracing import SpanRecorder

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN_ID = "00f067aa0ba902b7"


@pytest.fixture(scope="module")
def collected() -> Iterator[Collector]:
    with collector() as found:
        yield found


def test_a_request_is_a_trace_of_spans_within_each_other(collected: Collector) -> None:
    asked = new_trace()
    with (
        SpanRecorder("a server", endpoint=collected.endpoint + "/"),
        traced(asked),
        span("call", "server", method="M") as called,
    ):
        with span("part", frames=3):
            span_passed("network", current_trace(), 0.25, queue_ms=1.5)
        called.set(status=200)
    (call,) = [each for each in collected.named("call") if each.trace_id == asked.trace_id]
    (part,) = [each for each in collected.named("part") if each.parent_id == call.span_id]
    (network,) = [each for each in collected.named("network") if each.parent_id == part.span_id]
    assert (call.service, call.kind, call.parent_id, call.failed) == ("a server", 2, "", False)
    assert call.attributes == {
        "lipwire.request_id": asked.request_id,
        "method": "M",
        "status": 200,
    }
    assert (part.kind, part.attributes["frames"]) == (1, 3)
    assert network.seconds == pytest.approx(0.25, abs=0.001)
    assert network.attributes["queue_ms"] == 1.5


def test_a_callers_span_is_the_parent_and_its_word_counts(collected: Collector) -> None:
    with SpanRecorder("a server", endpoint=collected.endpoint, sample_ratio=0.0):
        with traced(Trace("mine", TRACE_ID, SPAN_ID, True)), span("wanted"):
            pass
        with traced(Trace("mine", TRACE_ID, SPAN_ID, False)), span("unwanted"):
            pass
        with traced(new_trace()), span("not of those few"):
            inner = current_trace()
            with span("and nothing in it"):
                pass
    assert inner is not None
    assert not inner.sampled
    (wanted,) = collected.named("wanted")
    assert (wanted.trace_id, wanted.parent_id) == (TRACE_ID, SPAN_ID)
    assert wanted.attributes["lipwire.request_id"] == "mine"
    for name in ("unwanted", "not of those few", "and nothing in it"):
        assert collected.named(name) == []


def _break() -> None:
    with span("broken"):
        raise ValueError("nonsense")


def test_what_fails_is_told_as_such_and_long_texts_are_cut(collected: Collector) -> None:
    with SpanRecorder("a server", endpoint=collected.endpoint), traced(new_trace()):
        with span("refused", avatar="x" * 5000) as spent:
            spent.fail("NOT_FOUND")
        with pytest.raises(ValueError, match="nonsense"):
            _break()
    (refused,), (broken,) = collected.named("refused"), collected.named("broken")
    assert refused.failed
    assert broken.failed
    assert len(refused.attributes["avatar"]) == 200


class Stuck(SpanExporter):
    """Takes nothing until it is released."""

    def __init__(self) -> None:
        self.released = threading.Event()

    def export(self, spans: object) -> SpanExportResult:
        self.released.wait(60)
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        self.released.set()


@pytest.mark.slow
def test_a_collector_that_does_not_answer_holds_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "_ENDED_WITHIN_S", 0.1)
    stuck = Stuck()
    with SpanRecorder("a server", endpoint="", exporter=stuck):
        for _ in range(10_000):  # more than may wait
            with traced(new_trace()), span("call"):
                pass
    assert stuck.released.is_set()  # the end did not wait for it
    with traced(new_trace()), span("call"):
        assert current_trace() is not None


def test_a_collector_that_is_away_is_told_of_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracing, "_SENT_WITHIN_S", 0.1)
    with collector() as gone:
        endpoint = gone.endpoint
    caplog.set_level(logging.INFO)
    with SpanRecorder("a server", endpoint=endpoint) as recorder:
        for _ in range(2):
            with traced(new_trace()), span("call"):
                pass
            recorder.flush()
    told = [record.getMessage() for record in caplog.records]
    assert told == [f"spans cannot be sent to {endpoint}; they are left out"]
