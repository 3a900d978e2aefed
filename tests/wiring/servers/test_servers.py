"""What the keys of the configurations do, on servers in this process."""

import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from tests.support.accessunits import decoded_planes
from tests.support.waiting import WAIT_S, until
from tests.wiring.servers.asking import WINDOW, Serve, ask, loaded

from lipwire.avatars import Avatar
from lipwire.avatars.erasing import erase, kept_of
from lipwire.config import load_compositing_config, load_inference_config
from lipwire.domain import (
    AvatarInvalid,
    DependencyMissing,
    InvalidInput,
    NotFound,
    Overloaded,
    Unavailable,
)
from lipwire.engine import Engine
from lipwire.rpc.connection import CompositingConnection
from lipwire.rpc.generated.compositing_pb2 import CompositeBatchRequest
from lipwire.serving.networks import DeviceNetwork
from lipwire.wiring import choosing, periodic, registries
from lipwire.wiring.servers import open_compositing_server, open_inference_server


def test_every_avatar_of_the_root_is_served_and_new_ones_are_found(
    serve: Serve, root: Path, compiled_template: Path
) -> None:
    connection = serve()
    assert [model.model_id for model in connection.models(WAIT_S)] == ["a", "b", "c"]
    with pytest.raises(NotFound):
        ask(connection, "d")
    shutil.copytree(compiled_template, root / "d")
    until(lambda: [model.model_id for model in connection.models(WAIT_S)] == [*"abcd"])
    connection.load("d")
    assert len(ask(connection, "d")) == 1


@pytest.mark.slow
def test_an_erased_avatar_is_not_there_any_more(serve: Serve, root: Path) -> None:
    connection = serve()
    ask(connection, "a")
    for kept in kept_of(root / "a"):
        erase(kept)

    def gone() -> bool:
        try:
            ask(connection, "a")
        except NotFound:
            return True
        return False

    until(gone)
    assert "a" not in {model.model_id for model in connection.models(WAIT_S)}
    ask(connection, "b")


@pytest.mark.slow
def test_a_changed_avatar_is_swapped_in(serve: Serve, root: Path, make_package: Any) -> None:
    connection = serve()
    before = ask(connection, "a")
    other = make_package(root.parent / "other", seed=9)
    shutil.rmtree(root / "a")
    other.rename(root / "a")
    until(lambda: ask(connection, "a") != before)


@pytest.fixture
def two_servers(root: Path, tmp_path: Path) -> Iterator[CompositingConnection]:
    here = {"LIPWIRE_SERVER__HOST": "127.0.0.1", "LIPWIRE_SERVER__PORT": "0"}
    with ExitStack() as stack:
        (tmp_path / "i.yaml").write_text(f"models_root: {root}\n")
        networks = stack.enter_context(
            open_inference_server(
                load_inference_config(tmp_path / "i.yaml", here), tell=lambda *_: None
            )
        )
        (tmp_path / "c.yaml").write_text(
            f"models_root: {root}\n"
            f"inference_server: {{url: '127.0.0.1:{networks.port}', timeout_seconds: {WAIT_S}}}\n"
        )
        frames = stack.enter_context(
            open_compositing_server(
                load_compositing_config(tmp_path / "c.yaml", here), tell=lambda *_: None
            )
        )
        yield stack.enter_context(CompositingConnection(f"127.0.0.1:{frames.port}"))


@pytest.mark.slow
@pytest.mark.parametrize("apart", [False, True])
def test_no_frame_has_parts_of_two_packages(
    serve: Serve,
    two_servers: CompositingConnection,
    root: Path,
    tmp_path: Path,
    make_package: Any,
    apart: bool,
) -> None:
    # The frames and the network of an avatar are looked after apart from each other.
    forms = [tmp_path / "old", tmp_path / "new"]
    (root / "b").rename(forms[0])
    (root / "b").symlink_to(forms[0])
    make_package(forms[1], seed=9, size=(300, 280))
    connection = two_servers if apart else serve()
    pure = []
    for number, form in enumerate(forms):
        Avatar.open(form, parts=frozenset({"jpeg"})).close()
        shutil.copytree(form, root / f"pure{number}")
        pure.append(ask(connection, f"pure{number}", 2))
    assert pure[0] != pure[1]
    seen: list[int] = []
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            seen.append(pure.index(ask(connection, "b", 2)))  # ValueError: of both, or of none

    def is_shown(number: int, begun: int) -> bool:
        return number in seen[begun:]

    with ThreadPoolExecutor(2) as pool:
        watching = [pool.submit(watch) for _ in range(2)]
        try:
            for number in (1, 0, 1):
                (tmp_path / "link").symlink_to(forms[number])
                (tmp_path / "link").rename(root / "b")
                begun = len(seen)
                until(partial(is_shown, number, begun), futures=watching)
        finally:
            over.set()
        for watched in watching:
            watched.result()


def test_what_is_preloaded_is_there_before_it_is_asked_for(
    serve: Serve, root: Path, told: dict[str, Mapping[str, object]]
) -> None:
    connection = serve("models: {a: {preload: true}, b: {preload_backgrounds: true}, c: {}}")
    assert told["Compositing registry"]["Preloaded"] == 2
    assert loaded(connection) == {"a", "b"}


def test_what_the_inference_file_preloads_need_not_be_named_in_the_other(
    serve: Serve, root: Path
) -> None:
    wanted = "models: {a: {preload: true}, b: {preload: true}, gone: {preload: true}}"
    connection = serve("models: {a: {num_frames: 8}}", f"models_root: {root}\n{wanted}")
    assert loaded(connection) == {"a", "b"}


def test_backgrounds_are_read_ahead_up_to_the_limit(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []

    def preload(avatar: Avatar, frames: int) -> int:
        read.append(frames)
        return frames

    monkeypatch.setattr(Avatar, "preload", preload)
    connection = serve(
        "models: {a: {preload_backgrounds: true}, b: {}}\ncapacity: {background_cache_frames: 5}"
    )
    ask(connection, "b")
    assert read == [5]


def test_what_cannot_be_preloaded_does_not_keep_the_others_from_being_served(
    serve: Serve, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (root / "a" / "crop_rects.json").write_text("[]")
    connection = serve("models: {a: {preload: true}, b: {preload: true}}")
    assert loaded(connection) == {"b"}
    assert "cannot preload a: " in caplog.text


def test_another_number_of_frames_than_was_said_is_an_error(serve: Serve) -> None:
    connection = serve("models: {a: {num_frames: 8}, b: {num_frames: 523}}")
    assert len(ask(connection, "a")) == 1
    with pytest.raises(AvatarInvalid, match=r"avatar b has 8 frames; its num_frames is 523"):
        ask(connection, "b")


def test_quality_and_format_are_those_of_the_configuration(serve: Serve) -> None:
    (low,) = ask(serve("output: {jpeg_quality: 30}"), "a")
    (high,) = ask(serve("output: {jpeg_quality: 95}"), "a")
    (raw,) = ask(serve("output: {format: raw}"), "a")
    assert len(low) < len(high) / 2
    pixels = np.frombuffer(raw, np.uint8).reshape(240, 320, 3)
    decoded = cv2.imdecode(np.frombuffer(high, np.uint8), cv2.IMREAD_COLOR)
    assert decoded is not None
    apart = np.abs(pixels.astype(int) - decoded).mean()  # the noise that JPEG takes away
    assert apart < np.abs(pixels[..., ::-1].astype(int) - decoded).mean() / 4


def test_h264_has_the_quality_of_the_configuration(serve: Serve) -> None:
    sizes = {}
    for crf in (10, 40):
        (unit,) = ask(serve(f"output: {{format: h264, h264_crf: {crf}}}"), "a")
        (shown,) = decoded_planes([unit])
        assert shown.shape == (360, 320)
        sizes[crf] = len(unit)
    assert sizes[40] < sizes[10] / 2


@pytest.mark.slow
def test_messages_have_the_limit_of_the_configuration(serve: Serve) -> None:
    connection = serve("server: {max_message_size_mb: 1}")
    request = CompositeBatchRequest(
        model_id="a", audio_features=WINDOW, visual_frames=bytes(2**20), batch_size=1
    )
    with pytest.raises((InvalidInput, Overloaded), match="larger than max"):
        connection.composite(request, WAIT_S)


def test_requests_in_hand_have_the_limit_of_the_configuration(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = serve("server: {max_message_size_mb: 3, max_request_memory_mb: 3}")
    going, waiting = threading.Event(), threading.Event()
    real = DeviceNetwork.mouths_of

    def held(*given: Any, **named: Any) -> Any:
        waiting.set()
        assert going.wait(WAIT_S)
        return real(*given, **named)

    monkeypatch.setattr(DeviceNetwork, "mouths_of", held)
    visual = np.zeros((1, 6, 320, 320), np.float32).tobytes()  # 2.3 MiB
    request = CompositeBatchRequest(
        model_id="a", audio_features=WINDOW, visual_frames=visual, batch_size=1
    )
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(connection.composite, request, WAIT_S)
        assert waiting.wait(WAIT_S)
        with pytest.raises(Overloaded, match="bytes of requests are in hand") as refused:
            connection.composite(request, WAIT_S)
        assert refused.value.retry_after_s
        going.set()
        assert len(first.result().frames) == 1
    assert len(connection.composite(request, WAIT_S).frames) == 1


def test_the_times_of_batches_are_logged_where_asked_for(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "lipwire")
    ask(serve("logging: {log_compositing_times: false}"), "a")
    assert "1 frames in" not in caplog.text
    ask(serve("logging: {log_compositing_times: true}"), "a")
    assert "a: 1 frames in" in caplog.text


def test_how_the_cache_does_is_logged_where_asked_for(
    serve: Serve, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "lipwire")
    now_and_then: dict[str, Callable[[], object]] = {}

    def every(_: float, work: Callable[[], object], name: str) -> AbstractContextManager[None]:
        now_and_then[name] = work
        return nullcontext()

    monkeypatch.setattr(periodic, "every", every)
    ask(serve("logging: {log_cache_stats: false}"), "a")
    assert "cache statistics" not in now_and_then
    ask(serve("logging: {log_cache_stats: true}"), "a")
    assert "avatars open" not in caplog.text
    now_and_then["cache statistics"]()
    assert "1 avatars open" in caplog.text


def test_no_more_requests_wait_than_the_queue_holds(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = serve(inference="server: {worker_count_per_gpu: 1, queue_size: 1}")
    ask(connection, "a")
    going, running = threading.Event(), threading.Event()
    infer = Engine.infer

    def held(*given: Any) -> Any:
        running.set()
        assert going.wait(WAIT_S)
        return infer(*given)

    monkeypatch.setattr(Engine, "infer", held)
    with ThreadPoolExecutor(12) as threads:
        asked = [threads.submit(ask, connection, "a")]
        try:
            assert running.wait(WAIT_S)
            asked += [threads.submit(ask, connection, "a") for _ in range(11)]
            until(lambda: sum(future.done() for future in asked) == 10)
        finally:
            going.set()
        errors = [future.exception() for future in asked]
    refused = [error for error in errors if error is not None]
    assert len(refused) == 10, "one is run and one waits"
    assert all(isinstance(error, Overloaded) and error.retry_after_s for error in refused)


def test_as_many_networks_run_at_a_time_as_there_are_workers(
    serve: Serve,
    told: dict[str, Mapping[str, object]],
    own_threads: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(choosing, "usable_cores", lambda: 6)
    serve(inference="server: {worker_count_per_gpu: 4}")
    assert sum(name.startswith("lipwire-run") for name in own_threads()) == 4
    assert str(told["GPU status"]["Workers"]).startswith("4 ")


def test_cuda_that_is_required_and_not_there_is_an_error(serve: Serve) -> None:
    with pytest.raises(DependencyMissing, match=r"onnx\.use_cuda is strict"):
        serve(inference="onnx: {use_cuda: strict}")


@pytest.mark.parametrize(
    ("yaml", "loud"),
    [("", True), ("onnx: {use_cuda: false}", False), ("gpus: {enabled: false}", False)],
)
def test_cuda_that_is_wanted_and_not_there_is_said(
    serve: Serve, told: dict[str, Mapping[str, object]], yaml: str, loud: bool
) -> None:
    serve(inference=yaml)
    assert ("NOT AVAILABLE" in str(told["GPU status"].get("CUDA"))) == loud


def test_without_any_avatar_a_server_says_how_to_name_some(
    monkeypatch: pytest.MonkeyPatch, told: dict[str, Mapping[str, object]]
) -> None:
    monkeypatch.setattr(registries, "list_avatars", list)
    with (
        pytest.raises(NotFound, match=r"^no avatars to serve; name a folder .*--models-root"),
        open_inference_server(load_inference_config(None, {}), tell=told.__setitem__),
    ):
        pass


@pytest.mark.slow
def test_without_an_inference_server_the_compositing_server_starts_and_is_not_healthy(
    root: Path, told: dict[str, Mapping[str, object]]
) -> None:
    environ = {
        "LIPWIRE_SERVER__HOST": "127.0.0.1",
        "LIPWIRE_SERVER__PORT": "0",
        "LIPWIRE_INFERENCE_SERVER__URL": "127.0.0.1:9",
        "LIPWIRE_INFERENCE_SERVER__TIMEOUT_SECONDS": "0.5",
        "LIPWIRE_MODELS_ROOT": str(root),
    }
    config = load_compositing_config(None, environ)
    with (
        open_compositing_server(config, tell=told.__setitem__) as server,
        CompositingConnection(f"127.0.0.1:{server.port}") as connection,
    ):
        assert "Not there yet" in told["Inference server 127.0.0.1:9"]
        health = connection.health()
        assert (health.healthy, health.inference_server_healthy) == (False, False)
        connection_began_s = time.monotonic()
        with pytest.raises(Unavailable):
            ask(connection, "a")
        assert time.monotonic() - connection_began_s < WAIT_S / 2


@pytest.mark.slow
def test_the_parts_of_a_batchs_time_are_no_longer_than_the_whole(serve: Serve) -> None:
    connection = serve()
    ask(connection, "a")
    request = CompositeBatchRequest(model_id="a", audio_features=WINDOW, batch_size=20)
    for _ in range(3):
        answer = connection.composite(request, WAIT_S)
        assert answer.inference_ms + answer.composite_ms <= answer.server_ms <= answer.elapsed_ms
