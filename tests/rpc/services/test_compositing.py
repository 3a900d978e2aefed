"""compositing.CompositingService over loopback."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest
from tests.support.accessunits import decoded_planes, psnr_db

from lipwire.audio import AudioEncoder, StreamResampler, extract_windows
from lipwire.avatars import Avatar
from lipwire.domain import AvatarChanged, AvatarInvalid, Float32Array, Unavailable
from lipwire.rpc.generated import compositing_pb2 as pb
from lipwire.rpc.generated.compositing_pb2_grpc import CompositingServiceStub

if TYPE_CHECKING:
    from tests.rpc.conftest import Connect, Serve
    from tests.rpc.plainbackend import PlainBackend

WINDOW_BYTES = 32 * 16 * 16 * 4
VISUAL_BYTES = 6 * 320 * 320 * 4
RANDOM = np.random.default_rng(5)
WINDOWS: Float32Array = RANDOM.normal(0, 1, (50, 32, 16, 16)).astype(np.float32)


@pytest.fixture
def stub(channel: grpc.Channel) -> CompositingServiceStub:
    return CompositingServiceStub(channel)


def ask(stub: CompositingServiceStub, **fields: Any) -> pb.CompositeBatchResponse:
    """One frame of anna, unless ``fields`` say otherwise."""
    usual: dict[str, Any] = {
        "model_id": "anna",
        "audio_features": WINDOWS[0].tobytes(),
        "batch_size": 1,
    }
    return stub.InferBatchComposite(pb.CompositeBatchRequest(**(usual | fields)), timeout=60)


def test_a_batch_is_the_avatars_own_frames_with_the_mouths_on_them(
    stub: CompositingServiceStub, anna: Avatar, mouth: Callable[..., Any]
) -> None:
    answer = ask(stub, audio_features=WINDOWS[:11].tobytes(), batch_size=11, start_frame_idx=5)
    assert answer.success, answer.error
    wanted = [anna.jpeg(5 + i, mouth(5 + i, WINDOWS[i])) for i in range(11)]
    assert list(answer.composited_frames) == wanted
    assert (answer.gpu_id, answer.inference_time_ms) == (3, 1.5)
    assert (answer.frame_format, answer.width, answer.height) == ("jpeg", 320, 240)
    assert 0 < answer.composite_time_ms < answer.total_time_ms


def test_one_window_stands_for_the_whole_batch(
    stub: CompositingServiceStub, anna: Avatar, mouth: Callable[..., Any]
) -> None:
    answer = ask(stub, batch_size=3)
    wanted = [anna.jpeg(i, mouth(i, WINDOWS[0])) for i in range(3)]
    assert list(answer.composited_frames) == wanted


def test_the_callers_own_visual_frames_are_what_the_network_sees(
    stub: CompositingServiceStub, anna: Avatar
) -> None:
    visual = RANDOM.random((2, 6, 320, 320), dtype=np.float32)
    answer = ask(stub, visual_frames=visual.tobytes(), batch_size=2, start_frame_idx=1)
    mouths = np.rint(visual[:, :3] * np.float32(127.5)).astype(np.uint8).transpose(0, 2, 3, 1)
    wanted = [anna.jpeg(1 + i, np.ascontiguousarray(mouths[i])) for i in range(2)]
    assert list(answer.composited_frames) == wanted


def test_frame_indices_run_back_and_forth_without_end(stub: CompositingServiceStub) -> None:
    # 8 frames: the walk repeats every 14.
    largest = 2**31 - 1
    near = ask(stub, batch_size=20, start_frame_idx=largest % 14)
    far = ask(stub, batch_size=20, start_frame_idx=largest)
    assert far.success, far.error
    assert list(far.composited_frames) == list(near.composited_frames)


def test_raw_frames_are_bgr_pixels(
    serve: "Serve", connect: "Connect", anna: Avatar, mouth: Callable[..., Any]
) -> None:
    stub = CompositingServiceStub(connect(serve(frame_format="raw")))
    answer = ask(stub, start_frame_idx=2)
    assert answer.frame_format == "bgr24"
    wanted = anna.pixels(2, mouth(2, WINDOWS[0]))
    assert answer.composited_frames[0] == wanted.tobytes()
    assert (answer.height, answer.width, 3) == wanted.shape


def test_h264_frames_are_access_units_and_each_answer_is_decoded_by_itself(
    serve: "Serve", connect: "Connect", anna: Avatar, mouth: Callable[..., Any]
) -> None:
    stub = CompositingServiceStub(connect(serve(frame_format="h264", crf=18)))
    for first in (2, 5):
        answer = ask(stub, start_frame_idx=first, batch_size=3)
        assert answer.success, answer.error
        assert answer.frame_format == "h264"
        assert (answer.width, answer.height) == (anna.width, anna.height)
        shown = decoded_planes(answer.composited_frames)
        assert len(shown) == 3
        for index, planes in enumerate(shown, first):
            assert psnr_db(planes, anna.planes(index, mouth(index, WINDOWS[0]))) > 30


def test_raw_frames_that_cannot_fit_in_a_message_are_refused(
    serve: "Serve", connect: "Connect"
) -> None:
    stub = CompositingServiceStub(connect(serve(frame_format="raw", max_answer_bytes=1_000_000)))
    answer = ask(stub, batch_size=5)
    assert (answer.success, answer.error_code) == (False, "INVALID_ARGUMENT")
    assert "batch_size is 5; allowed are up to 4 raw frames of 320 x 240" in answer.error
    assert ask(stub, batch_size=4).success


@pytest.mark.slow
@pytest.mark.parametrize(("rate_hz", "channels"), [(0, 0), (16_000, 1), (48_000, 2), (44_100, 1)])
@pytest.mark.parametrize("first", [0, 3, 41])
def test_raw_audio_gives_the_frames_of_its_windows(
    stub: CompositingServiceStub, encoder: AudioEncoder, rate_hz: int, channels: int, first: int
) -> None:
    shape = (3 * (rate_hz or 16_000), channels or 1)
    samples = RANDOM.integers(-9000, 9000, shape, dtype=np.int16)
    heard = ask(
        stub,
        audio_features=b"",
        raw_audio=samples.tobytes(),
        sample_rate=rate_hz,
        channels=channels,
        audio_start_frame=first,
        batch_size=9,
    )
    assert heard.success, heard.error
    assert heard.audio_time_ms > 0
    resampler = StreamResampler(rate_hz or 16_000, channels or 1)
    pcm = np.concatenate([resampler.push(samples), resampler.flush()])
    windows = extract_windows(pcm, encoder)[first : first + 9]
    told = ask(stub, audio_features=windows.tobytes(), batch_size=9)
    assert list(heard.composited_frames) == list(told.composited_frames)


@pytest.mark.parametrize(
    ("gains", "heard_as"), [((1.0, -1.0), (1.0,)), ((0.5, -0.625), (-0.625,)), ((1.0, -0.3), None)]
)
def test_channels_of_raw_audio_that_cancel_out_are_heard(
    stub: CompositingServiceStub,
    encoder: AudioEncoder,
    gains: tuple[float, ...],
    heard_as: tuple[float, ...] | None,
) -> None:
    one = RANDOM.integers(-9000, 9000, (2 * 16_000, 1)) // 8 * 8
    samples = (one * gains).astype(np.int16)
    heard = ask(
        stub, audio_features=b"", raw_audio=samples.tobytes(), channels=len(gains), batch_size=9
    )
    loudest = samples if heard_as is None else (one * heard_as).astype(np.int16)
    windows = extract_windows(StreamResampler(16_000, loudest.shape[1]).push(loudest), encoder)
    told = ask(stub, audio_features=windows[:9].tobytes(), batch_size=9)
    assert list(heard.composited_frames) == list(told.composited_frames)


NAN_WINDOW = WINDOWS[0].copy()
NAN_WINDOW[3, 2, 1] = np.nan
INFINITE_VISUAL = np.zeros((6, 320, 320), np.float32)
INFINITE_VISUAL[5, 319, 319] = np.inf


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"batch_size": 0}, "batch_size is 0; allowed are 1 to 50"),
        ({"batch_size": -1}, "batch_size is -1; allowed are 1 to 50"),
        ({"batch_size": 51}, "batch_size is 51; allowed are 1 to 50"),
        ({"start_frame_idx": -1}, "start_frame_idx is -1; allowed are 0 and above"),
        ({"start_frame_idx": -(2**31)}, "start_frame_idx is -2147483648; allowed"),
        ({"model_id": ""}, "model_id is empty"),
        ({"model_id": "x" * 201}, "model_id has 201 characters; allowed are up to 200"),
        ({"audio_features": b""}, "audio_features is 0 bytes; allowed are one window"),
        ({"audio_features": b"\0" * 32767}, "audio_features is 32767 bytes; allowed"),
        (
            {"audio_features": b"\0" * WINDOW_BYTES * 3, "batch_size": 2},
            f"audio_features is {WINDOW_BYTES * 3} bytes; allowed are one window of 32 x 16 x 16"
            f" float32, {WINDOW_BYTES} bytes, or one a frame, {WINDOW_BYTES * 2} bytes",
        ),
        ({"audio_features": NAN_WINDOW.tobytes()}, "audio_features holds nan at number 801"),
        ({"visual_frames": b"\0" * 4}, "visual_frames is 4 bytes; allowed are 1 x 6 x 320 x 320"),
        (
            {"visual_frames": b"\0" * VISUAL_BYTES, "batch_size": 2},
            f"visual_frames is {VISUAL_BYTES} bytes; allowed are 2 x 6 x 320 x 320 float32,"
            f" {VISUAL_BYTES * 2} bytes, or none",
        ),
        ({"visual_frames": INFINITE_VISUAL.tobytes()}, "visual_frames holds inf at number 614399"),
        ({"raw_audio": b"\0\0"}, "audio_features (32768 bytes) and raw_audio are both given"),
        ({"audio_features": b"", "raw_audio": b"\0"}, "raw_audio is 1 bytes; allowed are whole"),
        (
            {"audio_features": b"", "raw_audio": b"\0" * 6, "channels": 2},
            "raw_audio is 6 bytes; allowed are whole samples of 16 bits in 2 channels",
        ),
        (
            {"audio_features": b"", "raw_audio": b"\0\0", "sample_rate": -8000},
            "sample_rate is -8000; allowed are 1000 to 768000",
        ),
        (
            {"audio_features": b"", "raw_audio": b"\0\0", "channels": 65},
            "channels is 65; allowed are 1 to 64",
        ),
        (
            {"audio_features": b"", "raw_audio": b"\0\0", "audio_start_frame": -2},
            "audio_start_frame is -2; allowed are 0 and above",
        ),
        (
            {"audio_features": b"", "raw_audio": b"\0\0" * 6400, "batch_size": 11},
            "raw_audio is 10 frames of 40 ms long; asked for are its frames 0 to 10",
        ),
        (
            {"audio_features": b"", "raw_audio": b"\0\0" * 61_000, "sample_rate": 1000},
            "raw_audio is 61.00 s long; allowed are up to 60 s",
        ),
        (
            {"audio_features": b"", "raw_audio": bytes(2**24 + 2), "sample_rate": 768_000},
            "raw_audio is 16777218 bytes; allowed are up to 16777216",
        ),
    ],
)
def test_what_is_wrong_with_a_request_is_said_and_nothing_is_run(
    stub: CompositingServiceStub, backend: "PlainBackend", fields: dict[str, Any], error: str
) -> None:
    answer = ask(stub, **fields)
    assert not answer.success
    assert error in answer.error
    assert answer.error_code == "INVALID_ARGUMENT"
    assert not answer.composited_frames
    assert backend.timeouts == []
    assert ask(stub).success


def test_an_unknown_avatar_is_an_answer(stub: CompositingServiceStub) -> None:
    answer = ask(stub, model_id="ana")
    assert (answer.success, answer.error_code) == (False, "NOT_FOUND")
    assert answer.error == "there is no avatar 'ana'; the nearest is 'anna'"


def test_a_broken_avatar_is_an_answer_without_the_servers_folders(
    stub: CompositingServiceStub,
) -> None:
    answer = ask(stub, model_id="broken")
    assert (answer.success, answer.error_code) == (False, "FAILED_PRECONDITION")
    assert answer.error == "crop_rects.json is no JSON"


def test_finite_numbers_that_overflow_a_sum_are_fine(stub: CompositingServiceStub) -> None:
    huge = np.full((32, 16, 16), 3e38, np.float32)
    assert ask(stub, audio_features=huge.tobytes()).success


def test_trouble_at_the_backend_is_a_status(
    stub: CompositingServiceStub, backend: "PlainBackend"
) -> None:
    backend.error = Unavailable("no inference server answers")
    with pytest.raises(grpc.RpcError) as caught:
        ask(stub)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    backend.error = AvatarInvalid("the network has another shape")
    assert ask(stub).error == "the network has another shape"


def test_health_is_the_backends(stub: CompositingServiceStub, backend: "PlainBackend") -> None:
    ask(stub)
    answer = stub.Health(pb.HealthRequest())
    assert (answer.healthy, answer.inference_server_healthy) == (True, True)
    assert answer.loaded_models >= 1
    assert answer.max_models == 10
    backend.is_healthy = False
    answer = stub.Health(pb.HealthRequest())
    assert (answer.healthy, answer.inference_server_healthy) == (False, False)
    assert answer.detail == "as told"
    (gpu,) = answer.gpus
    assert (gpu.index, gpu.name, gpu.loaded_models) == (3, "NVIDIA H200", 7)
    assert (gpu.memory_bytes, gpu.used_bytes) == (150_000_000_000, 9_000_000_000)
    assert (gpu.utilisation, gpu.lost, gpu.server) == (0.25, "fell off", "gpu1:50051")


def test_models_are_listed_loaded_counted_and_let_go(
    stub: CompositingServiceStub, backend: "PlainBackend"
) -> None:
    stub.UnloadModel(pb.UnloadModelRequest(model_id="bert"))
    loaded = stub.LoadModel(pb.LoadModelRequest(model_id="bert"))
    assert loaded.success
    assert loaded.load_time_ms > 0
    assert backend.loaded == {"bert"}
    listed = stub.ListModels(pb.ListModelsRequest())
    assert [model.model_id for model in listed.models] == ["anna", "bert"]
    assert listed.models[1].loaded
    (stats,) = stub.GetModelStats(pb.GetModelStatsRequest(model_id="bert")).models
    assert (stats.model_id, stats.memory_bytes, stats.in_use) == ("bert", 1_000_000, 0)
    everything = stub.GetModelStats(pb.GetModelStatsRequest())
    assert (everything.loaded_networks, everything.network_memory_bytes) == (1, 1000)
    gone = stub.UnloadModel(pb.UnloadModelRequest(model_id="bert"))
    assert (gone.success, gone.unloaded) == (True, True)
    assert backend.loaded == set()
    assert not stub.GetModelStats(pb.GetModelStatsRequest(model_id="bert")).models
    gone = stub.UnloadModel(pb.UnloadModelRequest(model_id="bert"))
    assert (gone.success, gone.unloaded) == (True, False)
    refused = stub.LoadModel(pb.LoadModelRequest(model_id="nobody"))
    assert (refused.success, refused.error_code) == (False, "NOT_FOUND")


def test_lists_come_in_pages(stub: CompositingServiceStub) -> None:
    first = stub.ListModels(pb.ListModelsRequest(page_size=1))
    assert ([model.model_id for model in first.models], first.total) == (["anna"], 2)
    token = first.next_page_token
    second = stub.ListModels(pb.ListModelsRequest(page_size=1, page_token=token))
    assert [model.model_id for model in second.models] == ["bert"]
    assert second.next_page_token == ""
    with pytest.raises(grpc.RpcError) as caught:
        stub.ListModels(pb.ListModelsRequest(page_size=-1))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details() == "page_size is -1; allowed are 1 to 10000, or 0 for 1000"


def test_the_backend_hears_which_revision_the_frames_are_of(
    stub: CompositingServiceStub, backend: "PlainBackend", anna: Avatar
) -> None:
    assert ask(stub).success
    visual = np.zeros((1, 6, 320, 320), np.float32).tobytes()
    assert ask(stub, visual_frames=visual).success
    assert backend.revisions == [anna.revision, anna.revision]


def test_an_avatar_that_changes_under_a_request_is_opened_anew(
    stub: CompositingServiceStub, backend: "PlainBackend"
) -> None:
    backend.error, backend.fail_times = AvatarChanged("another one is here"), 2
    assert ask(stub).success
    assert len(backend.revisions) == 3


def test_a_network_that_stays_of_another_revision_is_said(
    stub: CompositingServiceStub, backend: "PlainBackend"
) -> None:
    backend.error = AvatarChanged("another one is here")
    with pytest.raises(grpc.RpcError) as refused:
        ask(stub)
    assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
    assert "anna is not the same here and where its network is" in str(refused.value.details())


@pytest.mark.slow
def test_what_is_loaded_is_told_without_networks_too(
    stub: CompositingServiceStub, backend: "PlainBackend", monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object, **__: object) -> None:
        raise Unavailable("no inference server answers")

    monkeypatch.setattr(backend, "models", gone)
    assert ask(stub).success
    stats = stub.GetModelStats(pb.GetModelStatsRequest())
    assert stats.loaded_models >= 1
    assert not stats.HasField("loaded_networks")
