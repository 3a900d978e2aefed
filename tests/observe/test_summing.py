"""Numbers of several processes, as those of one."""

import itertools

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from tests.support.numbers import Read

from lipwire.observe.metrics import STARTED
from lipwire.observe.summing import Summed

_NUMBERS = itertools.count(1)


class Process:
    """What a process of a server tells."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        Gauge(STARTED, "x", registry=self.registry).set(next(_NUMBERS))
        self.requests = Counter("lipwire_requests", "x", ["code"], registry=self.registry)
        self.depth = Gauge("lipwire_queue_depth", "x", registry=self.registry)
        self.capacity = Gauge("lipwire_sessions_capacity", "x", registry=self.registry)
        self.seconds = Histogram("lipwire_seconds", "x", buckets=(1, 2), registry=self.registry)

    def text(self) -> bytes:
        return generate_latest(self.registry)


def taken(summed: Summed, *processes: Process | None) -> Read:
    summed.take({n: each.text() for n, each in enumerate(processes) if each is not None})
    registry = CollectorRegistry()
    registry.register(summed)
    return Read(generate_latest(registry))


def test_counts_and_amounts_are_added_and_of_what_is_shared_the_largest_counts() -> None:
    one, other = Process(), Process()
    one.requests.labels("OK").inc(3)
    other.requests.labels("OK").inc(4)
    other.requests.labels("INTERNAL").inc()
    one.depth.set(2)
    other.depth.set(5)
    one.capacity.set(8)
    other.capacity.set(6)
    one.seconds.observe(0.5)
    other.seconds.observe(1.5)
    found = taken(Summed(), one, other)
    assert found("lipwire_requests_total", code="OK") == 7
    assert found("lipwire_requests_total", code="INTERNAL") == 1
    assert found("lipwire_queue_depth") == 7
    assert found("lipwire_sessions_capacity") == 8
    assert found("lipwire_seconds_bucket", le="1.0") == 1
    assert found("lipwire_seconds_bucket", le="+Inf") == 2
    assert found("lipwire_seconds_sum") == 2
    assert found.families["lipwire_requests"].type == "counter"
    assert found.families["lipwire_seconds"].type == "histogram"


def test_a_process_that_takes_anothers_place_adds_to_its_counts() -> None:
    summed, other = Summed(), Process()
    for begun in range(1, 4):
        process = Process()
        process.requests.labels("OK").inc(10)
        process.seconds.observe(0.5)
        found = taken(summed, process, other)
        assert found("lipwire_requests_total", code="OK") == 10 * begun
        assert taken(summed, process, other)("lipwire_seconds_count") == begun


def test_a_process_that_does_not_answer_keeps_its_counts_and_has_nothing_now() -> None:
    summed, one, other = Summed(), Process(), Process()
    one.requests.labels("OK").inc(3)
    other.requests.labels("OK").inc(4)
    one.depth.set(1)
    other.depth.set(1)
    taken(summed, one, other)
    alone = taken(summed, None, other)
    assert alone("lipwire_requests_total", code="OK") == 7
    assert alone("lipwire_queue_depth") == 1
    nobody = taken(summed, None, None)
    assert nobody("lipwire_requests_total", code="OK") == 7
    assert not nobody.has("lipwire_queue_depth")
    one.requests.labels("OK").inc()
    assert taken(summed, one, other)("lipwire_requests_total", code="OK") == 8


def test_nothing_is_told_before_a_process_has_answered() -> None:
    assert taken(Summed()).families == {}
