"""inference.InferenceService and lipwire.v1.MouthService over loopback."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest

from lipwire.domain import Float32Array, NotFound
from lipwire.rpc.generated import inference_pb2 as pb
from lipwire.rpc.generated.inference_pb2_grpc import InferenceServiceStub
from lipwire.rpc.generated.lipwire.v1 import mouths_pb2
from lipwire.rpc.generated.lipwire.v1.mouths_pb2_grpc import MouthServiceStub

if TYPE_CHECKING:
    from tests.rpc.plainbackend import PlainBackend

RANDOM = np.random.default_rng(6)
WINDOWS: Float32Array = RANDOM.normal(0, 1, (4, 32, 16, 16)).astype(np.float32)


@pytest.fixture
def stub(channel: grpc.Channel) -> InferenceServiceStub:
    return InferenceServiceStub(channel)


def mouths(channel: grpc.Channel, **fields: Any) -> mouths_pb2.MouthsResponse:
    usual: dict[str, Any] = {"model_id": "anna", "count": 4, "windows": WINDOWS.tobytes()}
    return MouthServiceStub(channel).Mouths(mouths_pb2.MouthsRequest(**(usual | fields)))


def test_mouths_by_frame_number(channel: grpc.Channel, mouth: Callable[..., Any]) -> None:
    answer = mouths(channel, first_frame=2**40)
    wanted = np.stack([mouth(2**40 + i, WINDOWS[i]) for i in range(4)])
    assert answer.pixels == wanted.tobytes()
    assert (answer.gpu_id, answer.inference_time_ms) == (3, 1.5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"count": 0}, "count is 0; allowed are 1 to 50"),
        ({"count": 51}, "count is 51; allowed are 1 to 50"),
        ({"first_frame": -1}, "first_frame is -1; allowed are 0 and above"),
        ({"windows": b"1"}, "windows is 1 bytes; allowed are one window of 32 x 16 x 16 float32"),
        ({"model_id": ""}, "model_id is empty; name an avatar"),
        ({"service": 4}, "service is 4; allowed are 0 to 3"),
        ({"tenant": "x" * 201}, "tenant has 201 characters; allowed are up to 200"),
    ],
)
def test_what_is_wrong_with_a_request_for_mouths_is_a_status(
    channel: grpc.Channel, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        mouths(channel, **fields)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert message in str(caught.value.details())


def test_mouths_are_made_for_the_class_and_the_tenant_that_a_request_names(
    channel: grpc.Channel, backend: "PlainBackend"
) -> None:
    mouths(channel)
    mouths(channel, service=mouths_pb2.SERVICE_LIVE, tenant="x" * 200)
    mouths(channel, service=mouths_pb2.SERVICE_BATCH)
    mouths(channel, service=mouths_pb2.SERVICE_RENDER, tenant="acme")
    assert backend.asked_by == [
        ("batch", ""),
        ("live", "x" * 200),
        ("batch", ""),
        ("render", "acme"),
    ]


def test_in_the_guides_form_every_request_is_batch(
    stub: InferenceServiceStub, backend: "PlainBackend"
) -> None:
    stub.InferBatch(
        pb.InferBatchRequest(model_id="anna", audio_features=WINDOWS.tobytes(), batch_size=4)
    )
    assert backend.asked_by == [("batch", "")]


def test_an_unknown_model_is_a_status_for_mouths_and_an_answer_in_the_guides_form(
    channel: grpc.Channel, stub: InferenceServiceStub, backend: "PlainBackend"
) -> None:
    backend.error = NotFound("there is no model 'nobody'")
    with pytest.raises(grpc.RpcError) as caught:
        mouths(channel, model_id="nobody")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    request = pb.InferBatchRequest(
        model_id="nobody", audio_features=WINDOWS[0].tobytes(), batch_size=1
    )
    answer = stub.InferBatch(request)
    assert (answer.success, answer.error_code) == (False, "NOT_FOUND")
    assert answer.error == "there is no model 'nobody'"


def test_the_guides_form_gives_the_networks_floats(stub: InferenceServiceStub) -> None:
    visual = RANDOM.random((4, 6, 320, 320), dtype=np.float32)
    answer = stub.InferBatch(
        pb.InferBatchRequest(
            model_id="anna",
            visual_frames=visual.tobytes(),
            audio_features=WINDOWS[0].tobytes(),
            batch_size=4,
        )
    )
    assert answer.success, answer.error
    output = np.frombuffer(answer.output, "<f4").reshape(4, 3, 320, 320)
    np.testing.assert_array_equal(output, visual[:, :3] * np.float32(0.5))
    assert answer.total_time_ms > 0


def test_the_avatars_own_frames_give_floats_as_well(
    stub: InferenceServiceStub, mouth: Callable[..., Any]
) -> None:
    answer = stub.InferBatch(
        pb.InferBatchRequest(
            model_id="anna",
            audio_features=WINDOWS.tobytes(),
            batch_size=4,
            start_frame_idx=3,
        )
    )
    output = np.frombuffer(answer.output, "<f4").reshape(4, 3, 320, 320)
    pixels = np.rint(output * 255).astype(np.uint8).transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(pixels, [mouth(3 + i, WINDOWS[i]) for i in range(4)])


def test_a_batch_of_51_is_refused(stub: InferenceServiceStub, backend: "PlainBackend") -> None:
    request = pb.InferBatchRequest(
        model_id="anna", audio_features=WINDOWS[0].tobytes(), batch_size=51
    )
    assert stub.InferBatch(request).error == "batch_size is 51; allowed are 1 to 50"
    assert backend.timeouts == []


def test_models_and_health_are_the_backends(
    stub: InferenceServiceStub, backend: "PlainBackend"
) -> None:
    loaded = stub.LoadModel(pb.LoadModelRequest(model_id="bert"))
    assert (loaded.success, loaded.model.model_id, loaded.model.memory_bytes) == (
        True,
        "bert",
        1000,
    )
    listed = stub.ListModels(pb.ListModelsRequest())
    assert [(model.model_id, model.loaded) for model in listed.models] == [
        ("anna", False),
        ("bert", True),
    ]
    stats = stub.GetModelStats(pb.GetModelStatsRequest())
    assert [(model.model_id, model.uses, model.idle_s) for model in stats.models] == [
        ("bert", 1, 0.5)
    ]
    assert (stats.loaded_models, stats.max_models, stats.memory_bytes) == (1, 1000, 1000)
    assert not stub.GetModelStats(pb.GetModelStatsRequest(model_id="anna")).models
    health = stub.Health(pb.HealthRequest())
    assert (health.healthy, health.gpu_count, health.loaded_models) == (True, 1, 1)
    assert health.version == "1.2.3"
    (gpu,) = health.gpus
    assert (gpu.index, gpu.name, gpu.loaded_models, gpu.lost) == (3, "NVIDIA H200", 7, "fell off")
    assert (gpu.memory_bytes, gpu.used_bytes) == (150_000_000_000, 9_000_000_000)
    assert gpu.utilisation == 0.25
    assert stub.UnloadModel(pb.UnloadModelRequest(model_id="bert")).unloaded
    assert not stub.UnloadModel(pb.UnloadModelRequest(model_id="bert")).unloaded
    refused = stub.LoadModel(pb.LoadModelRequest(model_id="nobody"))
    assert (refused.success, refused.error_code) == (False, "NOT_FOUND")
    assert not stub.LoadModel(pb.LoadModelRequest()).success
