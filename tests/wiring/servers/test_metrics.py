"""What servers tell Prometheus of what they did."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from tests.support.numbers import Read
from tests.support.spoken import spoken
from tests.support.waiting import until
from tests.wiring.servers.asking import ask
from tests.wiring.servers.test_live import EXACT, SPEECH

from lipwire.config import load_compositing_config, load_inference_config
from lipwire.domain import LipwireError
from lipwire.observe.metrics import ServerMetrics
from lipwire.rpc.connection import CompositingConnection
from lipwire.rpc.conversing import AvatarConnection
from lipwire.rpc.generated.lipwire.v1.renders_pb2 import SubmitRenderRequest
from lipwire.rpc.generated.lipwire.v1.renders_pb2_grpc import RenderServiceStub
from lipwire.rpc.transport import open_channel
from lipwire.session.live import SessionSettings
from lipwire.wiring import measuring
from lipwire.wiring.servers import open_compositing_server, open_inference_server, open_serve

HERE = {
    "LIPWIRE_SERVER__PORT": "0",
    "LIPWIRE_WEB__PORT": "0",
    "LIPWIRE_SPEECH__VOICE": "none",
}
COMPOSITE = "compositing.CompositingService/InferBatchComposite"
Start = Callable[[str], tuple[CompositingConnection, Callable[[], Read]]]


@pytest.fixture
def start(root: Path, tmp_path: Path) -> Iterator[Start]:
    """``start(yaml)``: a connection to ``lipwire serve``, and its numbers."""
    with ExitStack() as stack:

        def started(yaml: str) -> tuple[CompositingConnection, Callable[[], Read]]:
            file = tmp_path / "compositing.yaml"
            file.write_text(f"models_root: {root}\n{yaml}\n")
            metrics = ServerMetrics()
            server = stack.enter_context(
                open_serve(
                    load_compositing_config(file, HERE),
                    load_inference_config(None, {}),
                    tell=lambda *_: None,
                    metrics=metrics,
                )
            )
            connection = stack.enter_context(CompositingConnection(f"127.0.0.1:{server.port}"))
            return connection, lambda: Read(metrics.read())

        yield started


def test_a_batch_is_told_from_the_call_to_the_frame(start: Start) -> None:
    connection, read = start("")
    ask(connection, "a", 3)
    ask(connection, "a", 3)
    ask(connection, "b")
    until(lambda: read()("lipwire_requests_total", call=COMPOSITE, code="OK") == 3)
    found = read()
    assert found("lipwire_request_seconds_count", call=COMPOSITE) == 3
    assert found("lipwire_frames_total", device="cpu", service="batch") == 7
    assert found("lipwire_inference_seconds_count") >= 3
    assert found("lipwire_queue_wait_seconds_count", service="batch") == 3
    assert found("lipwire_composite_seconds_count") == 7
    assert found("lipwire_jpeg_seconds_count") == 7
    assert found("lipwire_composite_seconds_sum") >= found("lipwire_jpeg_seconds_sum") > 0
    assert found("lipwire_cache_hits_total", cache="avatars") == 1
    assert found("lipwire_cache_misses_total", cache="avatars") == 2
    assert found("lipwire_loads_total", cache="avatars") == 2
    assert found("lipwire_avatar_cold_start_seconds_count") == 2
    assert found("lipwire_resident", cache="avatars") == 2
    assert found("lipwire_resident_bytes", cache="avatars") > 1e5
    assert found("lipwire_queue_depth", device="cpu") == 0
    assert found("lipwire_queue_limit", device="cpu") == 50
    assert found("lipwire_workers", device="cpu") >= 1
    assert found("lipwire_networks", device="cpu", runner="cpu", precision="float32") == 2
    assert found("lipwire_specialised_bytes") == 0
    assert found("lipwire_specialisations_total", what="loaded") == 0
    assert found("lipwire_cores") >= 1
    assert found("lipwire_healthy") == 1
    assert found("lipwire_errors_total") == 0


def test_no_avatars_name_is_in_the_numbers(start: Start) -> None:
    connection, read = start("")
    ask(connection, "a")
    with suppress(LipwireError):
        ask(connection, "someone-else")
    labels = {value for sample in read().samples for value in sample.labels.values()}
    assert not labels & {"a", "someone-else"}


@pytest.mark.parametrize(
    ("avatar", "count", "code"),
    [("nobody", 1, "NOT_FOUND"), ("a", 0, "INVALID_ARGUMENT")],
)
def test_a_clients_mistake_is_no_error_of_the_server(
    start: Start, avatar: str, count: int, code: str
) -> None:
    connection, read = start("")
    with suppress(LipwireError):
        ask(connection, avatar, count)
    until(lambda: read().has("lipwire_requests_total", call=COMPOSITE))
    assert read()("lipwire_requests_total", call=COMPOSITE, code=code) == 1
    assert read()("lipwire_errors_total") == 0


def test_evictions_and_failed_loads_are_told(start: Start, root: Path) -> None:
    connection, read = start("capacity: {max_models: 1}")
    ask(connection, "a")
    ask(connection, "b")
    assert read()("lipwire_cache_evictions_total", cache="avatars") == 1
    assert read()("lipwire_resident_limit", cache="avatars") == 1
    (root / "c" / "crop_rects.json").write_text("{")
    with pytest.raises(LipwireError):
        ask(connection, "c")
    assert read()("lipwire_load_failures_total", cache="avatars") == 1


@pytest.mark.slow
def test_live_sessions_are_told_from_their_first_frame_to_their_end(start: Start) -> None:
    connection, read = start("live: {max_sessions: 3}")
    with AvatarConnection(connection.address) as client:
        with client.converse("a", EXACT) as session:
            spoken(session, SPEECH)
            found = read()
            assert found("lipwire_sessions_active") == 1
            assert found("lipwire_sessions_waiting") == 0
            assert 1 <= found("lipwire_sessions_capacity") <= 3
            assert found("lipwire_sessions_total") == 1
            assert found("lipwire_first_frame_seconds_count") == 1
            assert found("lipwire_frames_total", service="live") >= 25
            # These frames were asked for as fast as can be: nobody says that they are late.
            assert found("lipwire_av_offset_seconds_count") == 0
        until(lambda: read()("lipwire_sessions_active") == 0)
        assert read()("lipwire_sessions_ended_total") == 1
        with client.converse("a", SessionSettings()) as session:
            until(lambda: read()("lipwire_av_offset_seconds_count") > 3)
    converse = "lipwire.v1.AvatarService/Converse"
    until(lambda: read()("lipwire_requests_total", call=converse) == 2)
    assert not read().has("lipwire_request_seconds_count", call=converse)


def test_requests_of_the_web_are_told_besides_those_of_grpc(root: Path, tmp_path: Path) -> None:
    metrics = ServerMetrics()
    told: dict[str, object] = {}
    file = tmp_path / "compositing.yaml"
    file.write_text(f"models_root: {root}\n")
    with open_serve(
        load_compositing_config(file, HERE),
        load_inference_config(None, {}),
        tell=lambda heading, facts: told.update(facts),
        metrics=metrics,
    ):
        with urlopen(f"{told['Page']}v1/avatars") as answer:
            assert answer.status == 200

        def read() -> Read:
            return Read(metrics.read())

        until(lambda: read().has("lipwire_requests_total", call="GET /v1/avatars"))
        assert read()("lipwire_requests_total", protocol="http", code="200") == 1
        assert read().has("lipwire_viewers")
        assert read().has("lipwire_web_loop_lag_seconds")


def test_the_two_servers_each_tell_their_part(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "_HEALTH_EVERY_S", 0.02)
    file = tmp_path / "inference.yaml"
    file.write_text(f"models_root: {root}\n")
    networks, frames = ServerMetrics(), ServerMetrics()
    with ExitStack() as stack:
        inference = stack.enter_context(
            open_inference_server(
                load_inference_config(file, {"LIPWIRE_SERVER__PORT": "0"}),
                tell=lambda *_: None,
                metrics=networks,
            )
        )
        file.write_text(
            f"models_root: {root}\ninference_server: {{url: '127.0.0.1:{inference.port}'}}\n"
        )
        server = stack.enter_context(
            open_compositing_server(
                load_compositing_config(file, HERE), tell=lambda *_: None, metrics=frames
            )
        )
        connection = stack.enter_context(CompositingConnection(f"127.0.0.1:{server.port}"))
        ask(connection, "a", 2)
        of_networks, of_frames = Read(networks.read()), Read(frames.read())
        assert of_networks("lipwire_frames_total") == 2
        assert of_networks("lipwire_cache_misses_total", cache="models") == 1
        assert of_frames("lipwire_composite_seconds_count") == 2
        assert of_frames("lipwire_healthy") == 1
        assert not of_frames.has("lipwire_frames_total")
        assert not of_networks("lipwire_composite_seconds_count")
        inference.stop()
        until(lambda: Read(frames.read())("lipwire_healthy") == 0)


@pytest.mark.slow
def test_frames_of_finished_videos_are_of_the_last_class(start: Start, tmp_path: Path) -> None:
    connection, read = start(f"renders: {{folder: {tmp_path / 'renders'}}}")
    with open_channel(connection.address, max_message_bytes=1 << 20) as channel:
        stub: Any = RenderServiceStub(channel)
        stub.Submit(SubmitRenderRequest(model_id="a", pcm=bytes(32_000)))
        until(lambda: read()("lipwire_renders_total", state="done") == 1)
    found = read()
    assert found("lipwire_frames_total", device="cpu", service="render") >= 25
    for others in ("live", "batch"):
        assert found("lipwire_frames_total", device="cpu", service=others) == 0
