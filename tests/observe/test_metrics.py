"""What one process counts and measures."""

import time

import pytest
from prometheus_client.core import GaugeMetricFamily
from tests.support.numbers import Read

import lipwire
from lipwire.domain import EVERYTHING, Access
from lipwire.observe.metrics import ServerMetrics

TENANT = Access("key shop", tenant="acme")
OPERATOR = Access("key ops")


@pytest.fixture
def metrics() -> ServerMetrics:
    return ServerMetrics()


def read(metrics: ServerMetrics) -> Read:
    return Read(metrics.read())


@pytest.mark.parametrize(
    ("code", "error", "reason"),
    [
        ("OK", 0, ""),
        ("NOT_FOUND", 0, ""),
        ("CANCELLED", 0, ""),
        ("INVALID_ARGUMENT", 0, ""),
        ("INTERNAL", 1, ""),
        ("UNAVAILABLE", 1, ""),
        ("DEADLINE_EXCEEDED", 1, ""),
        ("RESOURCE_EXHAUSTED", 0, "limit"),
        ("UNAUTHENTICATED", 0, "credentials"),
        ("PERMISSION_DENIED", 0, "permission"),
        ("200", 0, ""),
        ("404", 0, ""),
        ("499", 0, ""),
        ("500", 1, ""),
        ("503", 1, ""),
        ("429", 0, "limit"),
        ("402", 0, "quota"),
        ("401", 0, "credentials"),
        ("403", 0, "permission"),
    ],
)
def test_a_call_is_counted_by_how_it_ended(
    metrics: ServerMetrics, code: str, error: int, reason: str
) -> None:
    metrics.call("grpc", "a.B/C", code, 0.02, TENANT)
    found = read(metrics)
    assert found("lipwire_requests_total", protocol="grpc", call="a.B/C", code=code) == 1
    assert found("lipwire_errors_total", protocol="grpc", call="a.B/C") == error
    assert found("lipwire_refusals_total") == bool(reason)
    if reason:
        assert found("lipwire_refusals_total", reason=reason, tenant_class="tenant") == 1


@pytest.mark.parametrize(
    ("access", "tenant_class"),
    [(None, "unknown"), (EVERYTHING, "anybody"), (OPERATOR, "operator"), (TENANT, "tenant")],
)
def test_refusals_are_told_by_the_class_of_who_asked_and_not_by_name(
    metrics: ServerMetrics, access: Access | None, tenant_class: str
) -> None:
    metrics.call("http", "GET /", "429", 0.1, access)
    assert read(metrics)("lipwire_refusals_total", tenant_class=tenant_class) == 1
    assert b"acme" not in metrics.read()


def test_what_has_no_length_is_counted_and_not_timed(metrics: ServerMetrics) -> None:
    metrics.call("grpc", "a.B/Stream", "OK", None, EVERYTHING)
    metrics.call("grpc", "a.B/C", "OK", 0.03, EVERYTHING)
    found = read(metrics)
    assert found("lipwire_requests_total") == 2
    assert found("lipwire_request_seconds_count") == 1
    assert found("lipwire_request_seconds_sum") == pytest.approx(0.03)
    assert found("lipwire_request_seconds_bucket", le="0.025") == 0
    assert found("lipwire_request_seconds_bucket", le="0.05") == 1


def test_numbers_of_others_are_read_when_somebody_asks(metrics: ServerMetrics) -> None:
    asked: list[None] = []

    def depth() -> list[GaugeMetricFamily]:
        asked.append(None)
        return [GaugeMetricFamily("lipwire_queue_depth", "Requests.", value=len(asked))]

    metrics.add(depth)
    assert not asked
    assert read(metrics)("lipwire_queue_depth") == 1
    assert read(metrics)("lipwire_queue_depth") == 2


def test_the_version_and_the_process_are_told() -> None:
    before_s = time.time()
    found = read(ServerMetrics())
    assert before_s <= found("lipwire_start_time_seconds") <= time.time()
    assert found("lipwire_build_info", version=lipwire.__version__) == 1
    assert found("process_resident_memory_bytes") > 10e6
    assert found("process_cpu_seconds_total") > 0


def test_two_processes_of_metrics_are_apart(metrics: ServerMetrics) -> None:
    ServerMetrics().call("grpc", "a.B/C", "OK", 0.1, EVERYTHING)
    assert not read(metrics).has("lipwire_requests_total")
