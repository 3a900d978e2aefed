"""Servers whose configurations name an avatar's files one by one, wherever they lie."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from tests.support.waiting import WAIT_S

from lipwire.config import load_compositing_config, load_inference_config
from lipwire.domain import AvatarInvalid, InvalidInput, NotFound
from lipwire.rpc.connection import CompositingConnection
from lipwire.rpc.generated.compositing_pb2 import CompositeBatchRequest
from lipwire.rpc.generated.inference_pb2 import InferBatchRequest
from lipwire.rpc.generated.inference_pb2_grpc import InferenceServiceStub
from lipwire.wiring.servers import open_compositing_server, open_inference_server, open_serve

WINDOWS = np.random.default_rng(3).standard_normal((3, 32, 16, 16)).astype(np.float32)
SPEECH = np.random.default_rng(4).integers(-9000, 9000, 16_000).astype("<i2").tobytes()
HERE = {"LIPWIRE_SERVER__HOST": "127.0.0.1", "LIPWIRE_SERVER__PORT": "0"}


def ask(connection: CompositingConnection, name: str, **fields: Any) -> tuple[bytes, ...]:
    if "raw_audio" not in fields:
        fields["audio_features"] = WINDOWS.tobytes()
    request = CompositeBatchRequest(model_id=name, batch_size=len(WINDOWS), **fields)
    return connection.composite(request, WAIT_S).frames


@dataclass
class Pair:
    """The two servers of the guide."""

    stack: ExitStack
    folder: Path

    def __call__(self, inference: str, compositing: str) -> CompositingConnection:
        (self.folder / "i.yaml").write_text(inference)
        networks = self.stack.enter_context(
            open_inference_server(
                load_inference_config(self.folder / "i.yaml", HERE), tell=lambda *_: None
            )
        )
        url = f"inference_server: {{url: '127.0.0.1:{networks.port}', timeout_seconds: {WAIT_S}}}"
        (self.folder / "c.yaml").write_text(f"{url}\n{compositing}")
        frames = self.stack.enter_context(
            open_compositing_server(
                load_compositing_config(self.folder / "c.yaml", HERE), tell=lambda *_: None
            )
        )
        return self.stack.enter_context(CompositingConnection(f"127.0.0.1:{frames.port}"))


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    with ExitStack() as stack:
        yield Pair(stack, tmp_path)


@pytest.fixture(scope="module")
def template(make_package: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Not compiled. Nobody writes to it."""
    return make_package(tmp_path_factory.mktemp("template") / "whole", frames=4, seed=5)


@pytest.fixture
def package(template: Path, tmp_path: Path) -> Path:
    return shutil.copytree(template, tmp_path / "whole")


@pytest.fixture(scope="module")
def expected(template: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, ...]:
    """The frames of the package as one folder, from both servers in one process."""
    folder = tmp_path_factory.mktemp("expected")
    return whole(shutil.copytree(template, folder / "whole"), folder)


def whole(package: Path, tmp_path: Path, **others: Any) -> tuple[bytes, ...]:
    config = tmp_path / "whole.yaml"
    config.write_text(f"models: {{anna: {{path: {package}}}}}")
    with (
        open_serve(
            load_compositing_config(config, HERE),
            load_inference_config(None, {}),
            tell=lambda *_: None,
        ) as server,
        CompositingConnection(f"127.0.0.1:{server.port}") as connection,
    ):
        return ask(connection, "anna", **others)


def taken_apart(package: Path, tmp_path: Path) -> tuple[Path, Path, Path]:
    """The network, the frames and the rectangles, each in a folder of its own."""
    for name in ("user_123", "pictures", "faces"):
        (tmp_path / name).mkdir()
    network = tmp_path / "user_123" / "model.onnx"
    frames = tmp_path / "pictures" / "of user 123"
    rects = tmp_path / "faces" / "user_123.json"
    (package / "checkpoint" / "model_best.onnx").rename(network)
    (package / "frames").rename(frames)
    (package / "crop_rects.json").rename(rects)
    return network, frames, rects


@pytest.mark.slow
def test_the_guides_second_example_serves(
    pair: Pair, package: Path, tmp_path: Path, expected: tuple[bytes, ...]
) -> None:
    network, frames, rects = taken_apart(package, tmp_path)
    connection = pair(
        "models:\n  user_123:\n    model_path: user_123/model.onnx\n",
        "models:\n"
        "  user_123:\n"
        f"    background_dir: {frames}\n"
        f"    crop_rects_path: {rects}\n"
        "    num_frames: 4\n"
        "    preload_backgrounds: true\n",
    )
    assert network.is_file()
    assert ask(connection, "user_123") == expected
    assert ask(connection, "user_123", start_frame_idx=0) == expected
    assert [model.model_id for model in connection.models(WAIT_S)] == ["user_123"]


@pytest.mark.slow
def test_the_guides_own_form_with_visual_frames_is_served_too(
    pair: Pair, package: Path, tmp_path: Path
) -> None:
    visual = np.random.default_rng(1).random((3, 6, 320, 320), np.float32).tobytes()
    expected = whole(package, tmp_path, visual_frames=visual)
    network, frames, rects = taken_apart(package, tmp_path)
    connection = pair(
        f"models: {{anna: {{model_path: {network}}}}}",
        f"models: {{anna: {{background_dir: {frames}, crop_rects_path: {rects}}}}}",
    )
    assert ask(connection, "anna", visual_frames=visual) == expected


@pytest.mark.slow
def test_servers_whose_frames_differ_work_together(
    pair: Pair, package: Path, tmp_path: Path, make_package: Callable[..., Path]
) -> None:
    """An inference server that has other frames beside its network is sent what it has to see."""
    other = make_package(tmp_path / "other", frames=6, seed=5, size=(400, 300))
    expected = whole(other, tmp_path)
    connection = pair(
        f"models: {{anna: {{model_path: {package}/checkpoint/model_best.onnx}}}}",
        f"models: {{anna: {{background_dir: {other}/frames}}}}",
    )
    assert ask(connection, "anna") == expected


@pytest.mark.slow
def test_one_process_takes_all_files_from_where_they_are(
    package: Path, tmp_path: Path, expected: tuple[bytes, ...]
) -> None:
    network, frames, rects = taken_apart(package, tmp_path)
    config, inference = tmp_path / "c.yaml", tmp_path / "i.yaml"
    inference.write_text(f"models: {{anna: {{model_path: {network}}}}}")
    config.write_text(f"models: {{anna: {{background_dir: {frames}, crop_rects_path: {rects}}}}}")
    with (
        open_serve(
            load_compositing_config(config, HERE),
            load_inference_config(inference, {}),
            tell=lambda *_: None,
        ) as server,
        CompositingConnection(f"127.0.0.1:{server.port}") as connection,
    ):
        assert ask(connection, "anna") == expected


@pytest.mark.slow
@pytest.mark.parametrize("named", [True, False])
def test_raw_audio_needs_the_encoder_where_the_frames_are(
    pair: Pair, package: Path, tmp_path: Path, named: bool
) -> None:
    audio = {"raw_audio": SPEECH}
    expected = whole(package, tmp_path, **audio)
    network, frames, rects = taken_apart(package, tmp_path)
    encoder = (package / "checkpoint" / "audio_encoder.onnx").rename(
        tmp_path / ("elsewhere.onnx" if named else "user_123/audio_encoder.onnx")
    )
    key = f"audio_encoder_path: {encoder}" if named else f"model_path: {network}"
    connection = pair(
        f"models: {{anna: {{model_path: {network}}}}}",
        f"models: {{anna: {{background_dir: {frames}, crop_rects_path: {rects}, {key}}},"
        f" ben: {{background_dir: {frames}, crop_rects_path: {rects}}}}}",
    )
    assert ask(connection, "anna", **audio) == expected
    with pytest.raises(
        InvalidInput, match=r"has no audio encoder here, so raw_audio cannot be heard"
    ):
        ask(connection, "ben", **audio)


@pytest.mark.slow
def test_a_network_that_is_replaced_is_picked_up(
    pair: Pair, package: Path, tmp_path: Path, make_package: Callable[..., Path]
) -> None:
    other = make_package(tmp_path / "other", frames=4, seed=6)
    network, frames, rects = taken_apart(package, tmp_path)
    connection = pair(
        f"models: {{anna: {{model_path: {network}}}}}",
        f"models: {{anna: {{background_dir: {frames}, crop_rects_path: {rects}}}}}",
    )
    before = ask(connection, "anna")
    shutil.copy(other / "checkpoint" / "model_best.onnx", tmp_path / "new.onnx")
    (tmp_path / "new.onnx").replace(network)
    connection.load("anna")
    assert ask(connection, "anna") != before


@pytest.mark.slow
def test_frames_beside_a_network_that_are_no_use_are_left_alone(
    pair: Pair, package: Path, tmp_path: Path, expected: tuple[bytes, ...]
) -> None:
    network, frames, rects = taken_apart(package, tmp_path)
    (tmp_path / "user_123" / "frames").mkdir()
    (tmp_path / "user_123" / "frames" / "notes.txt").touch()
    connection = pair(
        f"models: {{anna: {{model_path: {network}}}}}",
        f"models: {{anna: {{background_dir: {frames}, crop_rects_path: {rects}}}}}",
    )
    assert ask(connection, "anna") == expected


def test_a_network_alone_says_what_it_needs(pair: Pair, package: Path, tmp_path: Path) -> None:
    network, _, _ = taken_apart(package, tmp_path)
    config = tmp_path / "i.yaml"
    config.write_text(f"models: {{anna: {{model_path: {network}}}}}")
    with (
        open_inference_server(load_inference_config(config, HERE), tell=lambda *_: None) as server,
        grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        request = InferBatchRequest(
            model_id="anna", audio_features=WINDOWS.tobytes(), batch_size=len(WINDOWS)
        )
        answer = InferenceServiceStub(channel).InferBatch(request, timeout=WAIT_S)
        assert not answer.success
        assert answer.error_code == "FAILED_PRECONDITION"
        assert answer.error == (
            "none of its frames are where the network is; send what the network sees of them"
        )


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("user_123/model.onnx", r"^model\.onnx is not there$"),
        ("pictures/of user 123", r"of user 123 is not there$"),
        ("faces/user_123.json", r"^user_123\.json is not there$"),
    ],
)
def test_what_is_named_and_not_there_is_said_without_its_folder(
    pair: Pair, package: Path, tmp_path: Path, missing: str, message: str
) -> None:
    network, frames, rects = taken_apart(package, tmp_path)
    (tmp_path / missing).rename(tmp_path / "away")
    connection = pair(
        f"models: {{anna: {{model_path: {network}}}}}",
        f"models: {{anna: {{background_dir: {frames}, crop_rects_path: {rects}}}}}",
    )
    with pytest.raises((AvatarInvalid, NotFound), match=message):
        ask(connection, "anna")


def test_what_a_server_does_not_need_may_be_named_and_not_there(
    pair: Pair, package: Path, tmp_path: Path, expected: tuple[bytes, ...]
) -> None:
    """Files that are written for both servers name what only one of them has."""
    network, frames, rects = taken_apart(package, tmp_path)
    connection = pair(
        f"models: {{anna: {{model_path: {network}, background_dir: /no/frames,"
        " crop_rects_path: /no/rects.json, audio_encoder_path: /no/encoder.onnx}}",
        f"models: {{anna: {{model_path: /no/model.onnx, background_dir: {frames},"
        f" crop_rects_path: {rects}}}}}",
    )
    assert ask(connection, "anna") == expected


@pytest.mark.slow
def test_a_network_that_only_lies_beside_the_frames_is_not_asked_for(
    pair: Pair, package: Path, tmp_path: Path, make_package: Callable[..., Path]
) -> None:
    """The inference server's counts, from the first request on and when it is replaced."""
    other = make_package(tmp_path / "other", frames=4, seed=6)
    network = shutil.copy(package / "checkpoint" / "model_best.onnx", tmp_path / "model.onnx")
    connection = pair(
        f"models: {{anna: {{model_path: {network}}}}}",
        f"models: {{anna: {{background_dir: {package}/frames,"
        f" crop_rects_path: {package}/crop_rects.json}}}}",
    )
    first = ask(connection, "anna")
    assert first == whole(package, tmp_path)
    shutil.copy(other / "checkpoint" / "model_best.onnx", tmp_path / "new.onnx")
    (tmp_path / "new.onnx").replace(network)
    connection.load("anna")
    assert ask(connection, "anna") != first
