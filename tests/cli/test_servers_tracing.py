"""One request through both servers: its id in logs, records and errors, and its spans."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from tests.cli.conftest import Served, Serving
from tests.support.collector import Collected, Collector, collector
from tests.support.waiting import until

from lipwire.domain import Float32Array, InvalidInput, NotFound
from lipwire.domain.tracing import Trace, traced
from lipwire.rpc.connection import CompositingConnection
from lipwire.rpc.conversing import AvatarConnection
from lipwire.rpc.generated.compositing_pb2_grpc import CompositingServiceStub
from lipwire.rpc.requests import requests_of_windows
from lipwire.session.live import SessionSettings, SpeechEnded

pytestmark = pytest.mark.slow  # two processes

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN_ID = "00f067aa0ba902b7"
SPEECH = np.random.default_rng(4).integers(-9000, 9000, 8_000).astype(np.int16)
SPOKEN = SessionSettings(16_000, paced=False, gate=False)
"""Every frame of it has a mouth of its own."""
READY = r'"message": "ready".*"port": (\d+)'


@pytest.fixture(scope="module")
def collected() -> Iterator[Collector]:
    with collector() as found:
        yield found


@pytest.fixture
def both(
    serving: Serving, models_root: Path, tmp_path: Path, collected: Collector
) -> tuple[Served, Served]:
    """A compositing and an inference server that record few spans, and write what they did."""
    common = f"""
models_root: {models_root}
metrics: {{port: 0}}
logging: {{format: json, log_inference_times: true}}
tracing: {{endpoint: "{collected.endpoint}", sample_ratio: 0}}
"""
    (tmp_path / "inference.yaml").write_text(
        f"{common}server: {{port: 0}}\nsecurity: {{audit_file: inference.log}}\n"
    )
    inference = serving("inference-server", "--config", tmp_path / "inference.yaml")
    port = inference.wait_for(READY)
    (tmp_path / "compositing.yaml").write_text(
        f"{common}server: {{port: 0}}\nsecurity: {{audit_file: compositing.log}}\n"
        f"inference_server: {{url: '127.0.0.1:{port}'}}\n"
    )
    compositing = serving("compositing-server", "--config", tmp_path / "compositing.yaml")
    compositing.wait_for(READY)
    return compositing, inference


def address_of(served: Served) -> str:
    return f"127.0.0.1:{served.wait_for(READY)}"


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def logged(served: Served) -> list[dict[str, Any]]:
    return [json.loads(line) for line in served.lines]


def parent_of(span: Collected, spans: list[Collected]) -> Collected | None:
    return next((each for each in spans if each.span_id == span.parent_id), None)


def test_one_id_goes_through_all(
    both: tuple[Served, Served], windows: Float32Array, tmp_path: Path, collected: Collector
) -> None:
    compositing, inference = both
    request = next(requests_of_windows("sanders", windows[:2], 2))
    with traced(Trace("mine-1", TRACE_ID, SPAN_ID, sampled=True)):
        with CompositingConnection(address_of(compositing)) as connection:
            connection.composite(request, 60)
            request.batch_size = 0
            with pytest.raises(InvalidInput) as refused:
                connection.composite(request, 60)
        with AvatarConnection(address_of(compositing)) as live:
            with live.converse("sanders", SPOKEN) as session:
                session.push(SPEECH, 16_000)
                session.end_of_speech()
                next(each for each in session if isinstance(each, SpeechEnded))
            with pytest.raises(NotFound) as missing:
                live.converse("nobody")
    assert refused.value.request_id == missing.value.request_id == "mine-1"
    assert compositing.end() == inference.end() == 0

    for served in both:
        about = [entry for entry in logged(served) if "frames" in entry]
        assert about
        assert {entry["request_id"] for entry in about} == {"mine-1"}
    recorded = lines_of(tmp_path / "compositing.log")
    assert {line["request_id"] for line in recorded} == {"mine-1"}
    asked = [line for line in lines_of(tmp_path / "inference.log") if "Mouths" in line["call"]]
    assert len(asked) > 1  # of the batch and of the session
    assert {line["request_id"] for line in asked} == {"mine-1"}

    spans = collected.spans
    assert {span.trace_id for span in spans} == {TRACE_ID}
    assert {span.attributes["lipwire.request_id"] for span in spans} == {"mine-1"}
    good, bad = collected.named("compositing.CompositingService/InferBatchComposite")
    assert (good.parent_id, good.failed, bad.failed) == (SPAN_ID, False, True)
    # Of a live session only the first mouth is a span, which it begins with, if nobody has made
    # that mouth at rest before.
    network, *first = sorted(
        collected.named("network"), key=lambda span: -span.attributes["frames"]
    )
    assert [span.attributes["frames"] for span in first] in ([1], [])
    chain = [network]
    while (above := parent_of(chain[-1], spans)) is not None:
        chain.append(above)
    assert [(span.service.removeprefix("lipwire-"), span.name) for span in chain] == [
        ("inference", "network"),
        ("inference", "lipwire.v1.MouthService/Mouths"),
        ("compositing", "inference"),
        ("compositing", "mouths"),
        ("compositing", "compositing.CompositingService/InferBatchComposite"),
    ]
    assert network.attributes["frames"] == 2
    below = {span.name for span in spans if span.parent_id == good.span_id}
    assert below == {"avatar", "mouths", "composite"}
    (speech,) = collected.named("speech")
    assert speech.seconds == pytest.approx(0.5, abs=0.1)
    assert not speech.attributes["interrupted"]


def test_an_id_is_made_where_none_is_sent_and_answers_have_it(
    both: tuple[Served, Served], windows: Float32Array, tmp_path: Path, collected: Collector
) -> None:
    before = len(collected.spans)
    with grpc.insecure_channel(address_of(both[0])) as channel:
        stub: Any = CompositingServiceStub(channel)
        request = next(requests_of_windows("sanders", windows[:2], 2))
        _, call = stub.InferBatchComposite.with_call(request, timeout=60)
    told = dict(call.trailing_metadata())["x-request-id"]
    assert len(told) == 32
    for served, name in zip(both, ("compositing.log", "inference.log"), strict=True):
        path = tmp_path / name
        until(lambda: told in path.read_text())  # noqa: B023 - called here
        assert served.end() == 0
    assert len(collected.spans) == before  # few are recorded, which is none here
