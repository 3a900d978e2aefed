"""What is wrong with a request is said by whole servers, in one process and apart, without harm.

``test_compositing`` and ``test_inference`` have every message that a servicer may answer; here the
networks, the registries and the sockets are real.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import grpc
import numpy as np
import pytest

from lipwire.avatars import Avatar
from lipwire.config import load_compositing_config, load_inference_config
from lipwire.domain import Float32Array, UInt8Array, ping_pong
from lipwire.engine import Engine
from lipwire.rpc.generated import compositing_pb2, inference_pb2
from lipwire.rpc.generated.compositing_pb2_grpc import CompositingServiceStub
from lipwire.rpc.generated.inference_pb2_grpc import InferenceServiceStub
from lipwire.rpc.generated.lipwire.v1 import mouths_pb2
from lipwire.rpc.generated.lipwire.v1.mouths_pb2_grpc import MouthServiceStub
from lipwire.wiring.servers import open_compositing_server, open_inference_server, open_serve

FRAMES = 8
WINDOW: Float32Array = np.random.default_rng(4).normal(0, 1, (32, 16, 16)).astype(np.float32)
WINDOW_BYTES = WINDOW.nbytes
VISUAL_BYTES = 6 * 320 * 320 * 4
HERE = {"LIPWIRE_SERVER__HOST": "127.0.0.1", "LIPWIRE_SERVER__PORT": "0"}

Form = Literal["one process", "two servers"]


def spoiled(value: float) -> bytes:
    """A window with ``value`` in one place."""
    window = WINDOW.copy()
    window[1, 2, 3] = value
    return window.tobytes()


def spoiled_visual(value: float) -> bytes:
    visual = np.zeros((6, 320, 320), np.float32)
    visual[3, 160, 160] = value
    return visual.tobytes()


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"batch_size": 0}, "batch_size is 0; allowed are 1 to 50"),
    ({"batch_size": -1}, "batch_size is -1; allowed are 1 to 50"),
    ({"batch_size": 51}, "batch_size is 51; allowed are 1 to 50"),
    ({"batch_size": -(2**31)}, "batch_size is -2147483648; allowed are 1 to 50"),
    ({"start_frame_idx": -1}, "start_frame_idx is -1; allowed are 0 and above"),
    ({"audio_features": b""}, "audio_features is 0 bytes; allowed are one window"),
    (
        {"audio_features": bytes(WINDOW_BYTES - 1)},
        f"audio_features is {WINDOW_BYTES - 1} bytes; allowed are one window",
    ),
    (
        {"audio_features": bytes(WINDOW_BYTES * 49), "batch_size": 50},
        f"audio_features is {WINDOW_BYTES * 49} bytes; allowed are one window",
    ),
    ({"audio_features": spoiled(np.nan)}, "audio_features holds nan at number 291; allowed are"),
    ({"audio_features": spoiled(np.inf)}, "audio_features holds inf at number 291; allowed are"),
    ({"audio_features": spoiled(-np.inf)}, "audio_features holds -inf at number 291; allowed"),
    ({"visual_frames": b"\0"}, "visual_frames is 1 bytes; allowed are 1 x 6 x 320 x 320"),
    (
        {"visual_frames": bytes(VISUAL_BYTES - 4)},
        f"visual_frames is {VISUAL_BYTES - 4} bytes; allowed are 1 x 6 x 320 x 320 float32,"
        f" {VISUAL_BYTES} bytes, or none",
    ),
    (
        {"visual_frames": bytes(VISUAL_BYTES), "batch_size": 2},
        f"visual_frames is {VISUAL_BYTES} bytes; allowed are 2 x 6 x 320 x 320",
    ),
    ({"visual_frames": spoiled_visual(np.nan)}, "visual_frames holds nan at number 358560"),
    ({"visual_frames": spoiled_visual(np.inf)}, "visual_frames holds inf at number 358560"),
    ({"model_id": ""}, "model_id is empty; name an avatar"),
    ({"model_id": "x" * 10_000}, "model_id has 10000 characters; allowed are up to 200"),
    (
        {"model_id": "../bert"},
        "avatar name is '../bert'; allowed are 1 to 128 letters, digits, blanks and signs that are",
    ),
    ({"model_id": "anna\0"}, "avatar name is 'anna\\x00'; allowed are"),
]
WRONG_AUDIO: list[tuple[dict[str, Any], str]] = [
    ({"raw_audio": b"\0"}, "raw_audio is 1 bytes; allowed are whole samples of 16 bits"),
    (
        {"raw_audio": bytes(6402), "channels": 2},
        "raw_audio is 6402 bytes; allowed are whole samples of 16 bits in 2 channels",
    ),
    (
        {"raw_audio": bytes(1280 * 3), "batch_size": 4},
        "raw_audio is 3 frames of 40 ms long; asked for are its frames 0 to 3",
    ),
    ({"raw_audio": bytes(1280), "audio_start_frame": 1}, "asked for are its frame 1"),
    ({"raw_audio": bytes(1280), "audio_start_frame": 2**31 - 1}, "its frame 2147483647"),
    ({"raw_audio": bytes(1280), "sample_rate": -1}, "sample_rate is -1; allowed are 1000 to"),
    ({"raw_audio": bytes(32_000 * 60 + 2)}, "raw_audio is 60.00 s long; allowed are up to 60 s"),
    (
        {"raw_audio": bytes(1280), "audio_features": WINDOW.tobytes()},
        f"audio_features ({WINDOW_BYTES} bytes) and raw_audio are both given; send one",
    ),
]


@dataclass(frozen=True, slots=True)
class Servers:
    """Addresses; ``inference`` is None where there is no such server."""

    compositing: grpc.Channel
    inference: grpc.Channel | None

    def composite(self, **fields: Any) -> compositing_pb2.CompositeBatchResponse:
        """One frame of anna, unless ``fields`` say otherwise."""
        usual: dict[str, Any] = {"model_id": "anna", "batch_size": 1}
        if "raw_audio" not in fields:
            usual["audio_features"] = WINDOW.tobytes()
        request = compositing_pb2.CompositeBatchRequest(**(usual | fields))
        return CompositingServiceStub(self.compositing).InferBatchComposite(request, timeout=60)

    def infer(self, **fields: Any) -> inference_pb2.InferBatchResponse:
        assert self.inference is not None
        usual: dict[str, Any] = {
            "model_id": "anna",
            "batch_size": 1,
            "audio_features": WINDOW.tobytes(),
        }
        request = inference_pb2.InferBatchRequest(**(usual | fields))
        return InferenceServiceStub(self.inference).InferBatch(request, timeout=60)

    def mouths(self, **fields: Any) -> mouths_pb2.MouthsResponse:
        assert self.inference is not None
        usual: dict[str, Any] = {"model_id": "anna", "count": 1, "windows": WINDOW.tobytes()}
        request = mouths_pb2.MouthsRequest(**(usual | fields))
        return MouthServiceStub(self.inference).Mouths(request, timeout=60)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, make_package: Callable[..., Path]) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(("anna", "bert")):
        make_package(folder / name, frames=FRAMES, seed=30 + seed)
    return folder


@pytest.fixture(scope="module")
def mouths(root: Path) -> list[UInt8Array]:
    """The mouths of anna's frames for WINDOW, made without servers."""
    with Engine(threads=1) as engine, Avatar.open(root / "anna") as anna:
        model = engine.load(anna.model_path)
        return [engine.infer(model, anna.crop(i)[None], WINDOW[None])[0] for i in range(FRAMES)]


@pytest.fixture(scope="module")
def frames(root: Path, mouths: list[UInt8Array]) -> list[bytes]:
    with Avatar.open(root / "anna", parts=frozenset({"jpeg"})) as anna:
        return [anna.jpeg(i, mouth) for i, mouth in enumerate(mouths)]


@pytest.fixture(scope="module")
def opened(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[Form, Servers]]:
    def tell(heading: str, facts: object) -> None:
        pass

    def channel(port: int) -> grpc.Channel:
        options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
        return stack.enter_context(grpc.insecure_channel(f"127.0.0.1:{port}", options=options))

    environ = HERE | {"LIPWIRE_MODELS_ROOT": str(root)}
    inference_config = load_inference_config(None, environ)
    with ExitStack() as stack:
        inference = stack.enter_context(open_inference_server(inference_config, tell=tell))
        url = {"LIPWIRE_INFERENCE_SERVER__URL": f"127.0.0.1:{inference.port}"}
        apart = load_compositing_config(None, environ | url)
        compositing = stack.enter_context(open_compositing_server(apart, tell=tell))
        whole = load_compositing_config(None, environ)
        one = stack.enter_context(open_serve(whole, load_inference_config(None, {}), tell=tell))
        yield {
            "one process": Servers(channel(one.port), None),
            "two servers": Servers(channel(compositing.port), channel(inference.port)),
        }


@pytest.fixture(params=["one process", pytest.param("two servers", marks=pytest.mark.slow)])
def servers(
    request: pytest.FixtureRequest, opened: dict[Form, Servers], frames: list[bytes]
) -> Iterator[Servers]:
    """Servers that give anna's frames as they should after each test."""
    form: Form = request.param
    yield opened[form]
    answer = opened[form].composite(batch_size=FRAMES)
    assert answer.success, answer.error
    assert list(answer.composited_frames) == frames


@pytest.fixture
def apart(opened: dict[Form, Servers], mouths: list[UInt8Array]) -> Iterator[Servers]:
    """The two servers; the inference server gives anna's mouths as it should after each test."""
    yield opened["two servers"]
    answer = opened["two servers"].mouths(count=FRAMES)
    assert answer.pixels == np.stack(mouths).tobytes()


@pytest.mark.slow
@pytest.mark.parametrize(("fields", "error"), [*WRONG, *WRONG_AUDIO])
def test_the_compositing_server_says_what_is_wrong(
    servers: Servers, fields: dict[str, Any], error: str
) -> None:
    answer = servers.composite(**fields)
    assert not answer.success
    assert error in answer.error
    assert answer.error_code == "INVALID_ARGUMENT"
    assert not answer.composited_frames


@pytest.mark.slow
@pytest.mark.parametrize(("fields", "error"), WRONG)
def test_the_inference_server_says_what_is_wrong(
    apart: Servers, fields: dict[str, Any], error: str
) -> None:
    answer = apart.infer(**fields)
    assert not answer.success
    assert error in answer.error
    assert answer.error_code == "INVALID_ARGUMENT"
    assert not answer.output


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"count": 0}, "count is 0; allowed are 1 to 50"),
        ({"count": -1}, "count is -1; allowed are 1 to 50"),
        ({"count": 51}, "count is 51; allowed are 1 to 50"),
        (
            {"first_frame": -(2**63)},
            "first_frame is -9223372036854775808; allowed are 0 and above",
        ),
        ({"windows": spoiled(np.nan)}, "windows holds nan at number 291"),
        ({"windows": bytes(WINDOW_BYTES + 4)}, f"windows is {WINDOW_BYTES + 4} bytes; allowed"),
        ({"model_id": "../bert"}, "avatar name is '../bert'; allowed are"),
    ],
)
def test_of_mouths_by_frame_number_it_is_a_status(
    apart: Servers, fields: dict[str, Any], error: str
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        apart.mouths(**fields)
    failed: Any = caught.value
    assert failed.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error in failed.details()


def test_for_an_unknown_model_the_nearest_is_named(servers: Servers) -> None:
    answer = servers.composite(model_id="ana")
    assert (answer.success, answer.error_code) == (False, "NOT_FOUND")
    assert answer.error.startswith("no avatar named ana; the nearest known is anna")
    stub = CompositingServiceStub(servers.compositing)
    loaded = stub.LoadModel(compositing_pb2.LoadModelRequest(model_id="brt"), timeout=60)
    assert (loaded.success, loaded.error_code) == (False, "NOT_FOUND")
    assert loaded.error.startswith("no avatar named brt; the nearest known is bert")


def test_the_inference_server_names_the_nearest_as_well(apart: Servers) -> None:
    answer = apart.infer(model_id="ana")
    assert (answer.success, answer.error_code) == (False, "NOT_FOUND")
    assert answer.error.startswith("no avatar named ana; the nearest known is anna")
    with pytest.raises(grpc.RpcError) as caught:
        apart.mouths(model_id="ana")
    failed: Any = caught.value
    assert failed.code() is grpc.StatusCode.NOT_FOUND
    assert failed.details().startswith("no avatar named ana; the nearest known is anna")


@pytest.mark.slow
def test_a_frame_far_past_the_end_is_where_the_walk_back_and_forth_arrives(
    servers: Servers, frames: list[bytes]
) -> None:
    far = 2**31 - 1 - 50
    answer = servers.composite(start_frame_idx=far, batch_size=50)
    assert answer.success, answer.error
    assert list(answer.composited_frames) == [frames[ping_pong(far + i, FRAMES)] for i in range(50)]
    # 8 frames: there and back is 14, and every frame but the first and the last comes twice.
    walk = [*range(8), *range(6, 0, -1)]
    assert answer.composited_frames[0] == frames[walk[far % 14]]


@pytest.mark.slow
def test_mouths_far_past_the_end_as_well(apart: Servers, mouths: list[UInt8Array]) -> None:
    far = 2**62
    wanted = np.stack([mouths[ping_pong(far + i, FRAMES)] for i in range(20)])
    assert apart.mouths(first_frame=far, count=20).pixels == wanted.tobytes()
    answer = apart.infer(start_frame_idx=2**31 - 1)
    pixels = np.frombuffer(answer.output, "<f4").reshape(3, 320, 320).transpose(1, 2, 0)
    np.testing.assert_array_equal(np.rint(pixels * 255), mouths[ping_pong(2**31 - 1, FRAMES)])


def test_the_last_frame_number_there_is_may_be_asked_for(servers: Servers) -> None:
    """The batch runs on past what its own field could say."""
    answer = servers.composite(start_frame_idx=2**31 - 1, batch_size=50)
    assert answer.success, answer.error
    assert len(answer.composited_frames) == 50


@pytest.mark.parametrize("method", ["InferBatchComposite", "LoadModel", "GetModelStats"])
def test_a_message_cut_off_anywhere_is_no_message_or_says_what_is_missing(
    servers: Servers, method: str
) -> None:
    whole = compositing_pb2.CompositeBatchRequest(
        model_id="anna", audio_features=WINDOW.tobytes(), batch_size=2, start_frame_idx=300
    ).SerializeToString()
    call: Any = servers.compositing.unary_unary(f"/compositing.CompositingService/{method}")
    cuts = [*range(1, 16), 100, len(whole) // 2, *range(len(whole) - 6, len(whole))]
    codes = set()
    for end in cuts:
        try:
            answer = call(whole[:end], timeout=60)
        except grpc.RpcError as error:
            failed: Any = error
            assert failed.code() is grpc.StatusCode.INVALID_ARGUMENT
            wanted = (
                f"the message is no protobuf message of compositing.CompositingService/{method}"
            )
            assert failed.details() == wanted
            codes.add("status")
            continue
        if method != "InferBatchComposite":
            codes.add("answer")
            continue
        read = compositing_pb2.CompositeBatchResponse.FromString(answer)
        codes.add("frames" if read.success else "answer")
        assert read.success == (not read.error)
    assert {"status", "answer"} <= codes
