"""Spans are recorded where the configuration asks for it, and OpenTelemetry is there."""

import sys
from pathlib import Path

import pytest
from tests.support.collector import collector

from lipwire.config import CompositingConfig, load_compositing_config, load_inference_config
from lipwire.domain import DependencyMissing, InvalidInput
from lipwire.domain.tracing import new_trace, span, traced
from lipwire.wiring.tracing import recording_spans

ENDPOINT = "LIPWIRE_TRACING__ENDPOINT"
RATIO = "LIPWIRE_TRACING__SAMPLE_RATIO"


def asked(times: int) -> None:
    for _ in range(times):
        with traced(new_trace()), span("call"):
            pass


@pytest.mark.parametrize(
    ("ratio", "least", "most"), [("1", 400, 400), ("0.5", 140, 260), ("0", 0, 0)]
)
def test_as_many_requests_are_recorded_as_are_asked_for(ratio: str, least: int, most: int) -> None:
    with collector() as found:
        config = load_inference_config(None, {ENDPOINT: found.endpoint, RATIO: ratio})
        told: list[object] = []
        with recording_spans(config, tell=lambda *facts: told.append(facts)):
            asked(400)
        assert least <= len(found.named("call")) <= most
    assert {each.service for each in found.spans} <= {"lipwire-inference"}
    assert told == [
        (
            "Spans for OpenTelemetry",
            {"Sent to": found.endpoint, "Recorded": f"{100 * float(ratio):g} % of the requests"},
        )
    ]


def test_nothing_is_recorded_or_told_unless_it_is_asked_for() -> None:
    told: list[object] = []
    with recording_spans(load_compositing_config(None, {}), tell=lambda *facts: told.append(facts)):
        asked(1)
    assert told == []


def test_without_opentelemetry_it_is_said_how_to_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("lipwire.observe.tracing", "opentelemetry"):
        monkeypatch.setitem(sys.modules, name, None)
    config = load_compositing_config(None, {ENDPOINT: "http://127.0.0.1:4318"})
    with (
        pytest.raises(DependencyMissing, match=r"pip install 'lipwire\[otel\]'"),
        recording_spans(config, tell=lambda *_: None),
    ):
        pass


@pytest.mark.parametrize(
    ("yaml", "said"),
    [
        ("tracing: {endpoint: 'ftp://collector'}", r"tracing\.endpoint is ftp://collector"),
        ("tracing: {sample_ratio: 2}", r"tracing\.sample_ratio is 2; allowed is 0 to 1"),
        ("tracing: {ratio: 1}", "unknown key ratio in tracing"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, yaml: str, said: str) -> None:
    (tmp_path / "config.yaml").write_text(f"{yaml}\n")
    with pytest.raises(InvalidInput, match=said):
        load_compositing_config(tmp_path / "config.yaml", {})


def test_a_server_records_nothing_by_itself() -> None:
    assert CompositingConfig().tracing.endpoint is None
