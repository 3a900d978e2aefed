"""Real processes on ports of the loopback, with small avatars."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import wave
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tests.cli.conftest import WAIT_S, serving_in

from lipwire.audio import AudioEncoder, decode_audio, extract_windows
from lipwire.avatars import read_package
from lipwire.domain import DeadlineExceeded, Float32Array, LipwireError, Unavailable
from lipwire.rpc.connection import CompositingConnection
from lipwire.rpc.generated.compositing_pb2 import CompositeBatchRequest
from lipwire.rpc.requests import requests_of_audio, requests_of_windows

if TYPE_CHECKING:
    from tests.cli.conftest import Lipwire, Served, Serving

GUIDES_PROTO = """
syntax = "proto3";
package compositing;
service CompositingService {
  rpc InferBatchComposite(CompositeBatchRequest) returns (CompositeBatchResponse);
  rpc Health(HealthRequest) returns (HealthResponse);
}
message CompositeBatchRequest {
  string model_id = 1;           // Model ID (e.g., "sanders", "user_123")
  bytes visual_frames = 2;       // Batch × 6 × 320 × 320 × float32
  bytes audio_features = 3;      // 32 × 16 × 16 × float32
  int32 batch_size = 4;          // Number of frames in batch
  int32 start_frame_idx = 5;     // Starting frame index (for backgrounds)
}
message CompositeBatchResponse {
  bool success = 1;
  string error = 2;
  repeated bytes composited_frames = 3;  // Array of JPEG-encoded frames
  int32 gpu_id = 4;                      // Which GPU processed this
  float inference_time_ms = 5;           // Time spent in inference
  float composite_time_ms = 6;           // Time spent in compositing
  float total_time_ms = 7;               // Total processing time
}
message HealthRequest {}
message HealthResponse {
  bool healthy = 1;
  int32 loaded_models = 2;
  int32 max_models = 3;
  string inference_server_url = 4;
  bool inference_server_healthy = 5;
  string version = 6;
}
"""

GUIDES_CLIENT = """
import grpc
import compositing_pb2
import compositing_pb2_grpc
import numpy as np

# Connect to server
channel = grpc.insecure_channel(
    'localhost:50052',
    options=[
        ('grpc.max_send_message_length', 100 * 1024 * 1024),
        ('grpc.max_receive_message_length', 100 * 1024 * 1024),
    ]
)
stub = compositing_pb2_grpc.CompositingServiceStub(channel)

# Prepare request
visual_frames = np.random.randn(24, 6, 320, 320).astype(np.float32)
audio_features = np.random.randn(32, 16, 16).astype(np.float32)

request = compositing_pb2.CompositeBatchRequest(
    model_id="sanders",
    visual_frames=visual_frames.tobytes(),
    audio_features=audio_features.tobytes(),
    batch_size=24,
    start_frame_idx=0
)

# Call API
response = stub.InferBatchComposite(request)

if not response.success:
    print(f"Error: {response.error}")
else:
    print(f"Received {len(response.composited_frames)} frames")
    print(f"Inference: {response.inference_time_ms:.2f}ms")
    print(f"Compositing: {response.composite_time_ms:.2f}ms")
    
    # Save frames
    for i, frame_data in enumerate(response.composited_frames):
        with open(f"output_{i}.jpg", "wb") as f:
            f.write(frame_data)
"""  # noqa: W293 - as the guide has it

GUIDES_HEALTH = """
health = stub.Health(compositing_pb2.HealthRequest())
assert health.healthy and health.inference_server_healthy, health
assert health.max_models == 11000 and health.loaded_models == 1, health
"""


@pytest.fixture(scope="module")
def models_root(package_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the avatar ``sanders``."""
    root = tmp_path_factory.mktemp("models")
    shutil.copytree(package_template, root / "sanders")
    return root


@pytest.fixture(scope="module")
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


@pytest.fixture(scope="module")
def one(stack: ExitStack, models_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Served:
    """Both servers in one process."""
    start = serving_in(stack, tmp_path_factory.mktemp("one"))
    return start("serve", "--models-root", models_root, "--host", "127.0.0.1", "--port", 0)


@pytest.fixture(scope="module")
def two(stack: ExitStack, models_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Served:
    """The servers apart, started by ``lipwire up``."""
    ports = ["--port", 0, "--inference-port", 0]
    start = serving_in(stack, tmp_path_factory.mktemp("two"))
    patient = {"LIPWIRE_INFERENCE_SERVER__TIMEOUT_SECONDS": "300"}  # the machine may be busy
    return start("up", "--models-root", models_root, *ports, "--no-test", **patient)


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2.2 seconds: three batches of 24, the last one shorter."""
    path = tmp_path_factory.mktemp("speech") / "speech.wav"
    noise = np.random.default_rng(5).integers(-9000, 9000, 35_200).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(noise.tobytes())
    return path


@pytest.fixture(scope="module")
def windows(models_root: Path, speech: Path) -> Float32Array:
    encoder = read_package(models_root / "sanders").encoder_path
    assert encoder is not None
    return extract_windows(decode_audio(speech), AudioEncoder.open(encoder))


def frames_of(address: str, requests: Iterator[CompositeBatchRequest]) -> list[bytes]:
    with CompositingConnection(address) as connection:
        return [f for r in requests for f in connection.composite(r, WAIT_S).frames]


# Networks begin no run while there is a file "held" in the server's folder.
HELD = """
import time
from pathlib import Path
from lipwire.cli.main import main
from lipwire.engine import Engine

infer = Engine.infer

def infer_late(*arguments):
    while Path("held").exists():
        time.sleep(0.01)
    return infer(*arguments)

Engine.infer = infer_late
main()
"""


def is_refused(connection: CompositingConnection) -> bool:
    """Whether new requests are. One that crosses with the signal is still let in."""
    window = bytes(32 * 16 * 16 * 4)
    request = CompositeBatchRequest(model_id="sanders", audio_features=window, batch_size=1)
    try:
        connection.composite(request, 2)
    except Unavailable:
        return True
    except DeadlineExceeded:
        pass
    return False


def wait_until(condition: Callable[[], bool]) -> None:
    until_s = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < until_s
        time.sleep(0.02)


@pytest.mark.parametrize("servers", ["one", "two"])
def test_the_guides_client_gets_its_frames(
    servers: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    served: Served = request.getfixturevalue(servers)
    (tmp_path / "compositing.proto").write_text(GUIDES_PROTO)
    code = GUIDES_CLIENT.replace("localhost:50052", served.address) + GUIDES_HEALTH
    (tmp_path / "client.py").write_text(code)
    protoc = ["-m", "grpc_tools.protoc", "-I.", "--python_out=.", "--grpc_python_out=."]
    subprocess.run([sys.executable, *protoc, "compositing.proto"], cwd=tmp_path, check=True)
    ran = subprocess.run(
        [sys.executable, "client.py"], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    assert ran.stdout.startswith("Received 24 frames\nInference: ")
    for index in range(24):
        frame = cv2.imread(str(tmp_path / f"output_{index}.jpg"))
        assert frame is not None
        assert frame.shape == (240, 320, 3)


def test_one_process_two_servers_and_a_render_give_the_same_bytes(
    one: Served,
    two: Served,
    windows: Float32Array,
    lipwire: Lipwire,
    models_root: Path,
    speech: Path,
    tmp_path: Path,
) -> None:
    together = frames_of(one.address, requests_of_windows("sanders", windows, 24))
    apart = frames_of(two.address, requests_of_windows("sanders", windows, 24))
    heard = frames_of(two.address, requests_of_audio("sanders", decode_audio(speech), 24))
    rendered = lipwire(
        "render", models_root / "sanders", speech, "--frames", tmp_path / "r", "--quality", 75
    )
    assert rendered.code == 0
    files = [path.read_bytes() for path in sorted((tmp_path / "r").iterdir())]
    assert len(files) == 55
    assert together == files
    assert apart == files
    assert heard == files


def test_the_client_saves_frames_and_says_where_the_time_went(
    one: Served, lipwire: Lipwire, models_root: Path, speech: Path, tmp_path: Path
) -> None:
    at = ["--address", one.address, "--save", tmp_path / "f", "--batch", 24]
    outcome = lipwire("client", models_root / "sanders", speech, *at)
    assert outcome.code == 0
    assert "55 frames in 3 requests" in outcome.out
    for row in ("inference", "compositing", "gRPC and waiting", "total"):
        assert row in outcome.out
    assert len(list((tmp_path / "f").glob("frame_*.jpg"))) == 55
    again = lipwire("client", models_root / "sanders", speech, *at)
    assert (again.code, again.err.count("\n")) == (2, 1)


def test_frames_sent_by_the_client_give_what_the_servers_own_give(
    two: Served, lipwire: Lipwire, models_root: Path, speech: Path, tmp_path: Path
) -> None:
    folders = {}
    for form in ("windows", "frames", "audio"):
        folders[form] = tmp_path / form
        at = ["-a", two.address, "--save", folders[form], "--batches", 1, "--batch", 5]
        outcome = lipwire("client", models_root / "sanders", speech, *at, "--form", form)
        assert outcome.code == 0, outcome.err
    files = {f: [p.read_bytes() for p in sorted(d.iterdir())] for f, d in folders.items()}
    assert files["frames"] == files["windows"] == files["audio"]
    assert len(files["frames"]) == 5


def test_models_are_loaded_listed_and_unloaded_on_both_servers(
    two: Served, lipwire: Lipwire
) -> None:
    at = ("-a", two.address)
    assert lipwire("models", "load", "sanders", *at).out.startswith("sanders: loaded in ")
    assert lipwire("models", "list", *at).out == "sanders  (loaded)\n"
    stats = json.loads(lipwire("models", "stats", *at, "--json").out)
    assert [model["model_id"] for model in stats["models"]] == ["sanders"]
    assert lipwire("models", "unload", "sanders", *at).out == "sanders: unloaded\n"
    assert lipwire("models", "unload", "sanders", *at).out == "sanders: was not loaded\n"
    assert lipwire("models", "list", *at).out == "sanders\n"
    unknown = lipwire("models", "load", "sandars", *at)
    assert unknown.code == 2
    assert unknown.err == "error: no avatar named sandars; the nearest known is sanders\n"


def test_nobody_there_is_one_line(lipwire: Lipwire, speech: Path) -> None:
    with socket.socket() as taken:  # bound, and not listening
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        outcome = lipwire("client", "sanders", speech, "-a", address, "--timeout", "0.3")
    assert outcome.code == 1
    assert outcome.err == f"error: no server answered at {address} within 0.3 s\n"


def test_a_signal_lets_a_batch_finish_and_the_process_end_well(
    stack: ExitStack, models_root: Path, windows: Float32Array, tmp_path: Path
) -> None:
    serving = serving_in(stack, tmp_path, ("-c", HELD))
    served = serving("serve", "--models-root", models_root, "--port", 0)
    request = CompositeBatchRequest(
        model_id="sanders", audio_features=windows[:50].tobytes(), batch_size=50
    )
    answers: list[Any] = []
    with (
        CompositingConnection(served.address) as connection,
        grpc.insecure_channel(served.address) as channel,
    ):
        connection.load("sanders")
        (tmp_path / "held").touch()
        health: Any = health_pb2_grpc.HealthStub(channel)
        said = health.Watch(health_pb2.HealthCheckRequest())
        serving_status = health_pb2.HealthCheckResponse
        assert next(said).status == serving_status.SERVING

        def ask() -> None:
            try:
                answers.append(connection.composite(request, WAIT_S))
            except LipwireError as error:
                answers.append(error)

        asking = [threading.Thread(target=ask) for _ in range(3)]
        for thread in asking:
            thread.start()
        wait_until(lambda: connection.stats("sanders").models[0].in_use == 3)
        served.process.send_signal(signal.SIGTERM)
        assert next(said).status == serving_status.NOT_SERVING
        wait_until(lambda: is_refused(connection))
        assert answers == []
        (tmp_path / "held").unlink()
        for thread in asking:
            thread.join()
    assert served.wait() == 0
    assert [len(answer.frames) for answer in answers] == [50, 50, 50]
    assert "draining: 3 requests in hand" in served.text
    assert served.lines[-1].endswith("stopped")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_port_in_use_is_one_line(serving: Serving, models_root: Path, workers: int) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        options = ["--host", "127.0.0.1", "--port", port, "--workers", workers]
        served = serving("serve", "--models-root", models_root, *options)
        assert served.wait() == 1
    line = served.wait_for(r"error: .*")
    assert f"cannot listen on 127.0.0.1:{port}" in line
    assert served.lines[-1] == line


@pytest.mark.slow
def test_workers_share_a_port_and_a_dead_one_is_replaced(
    serving: Serving, models_root: Path, windows: Float32Array
) -> None:
    served = serving("serve", "--models-root", models_root, "--workers", 2, "--port", 0)
    port = int(served.wait_for(r"Listening on port (\d+)"))
    served.wait_for("Ready")
    children = children_of(served.process.pid)
    assert len(children) == 2
    os.kill(children[0], signal.SIGKILL)
    served.wait_for(r"worker \d \(process \d+\) ended with -9")
    until_s = time.monotonic() + WAIT_S
    while len(now := children_of(served.process.pid)) < 2 or children[0] in now:
        assert time.monotonic() < until_s, served.text
        time.sleep(0.05)
    frames = frames_of(f"127.0.0.1:{port}", requests_of_windows("sanders", windows[:24], 24))
    assert len(frames) == 24
    assert served.end() == 0
    assert not any(Path(f"/proc/{child}").exists() for child in now)


@pytest.mark.slow
def test_workers_end_when_their_parent_is_killed(serving: Serving, models_root: Path) -> None:
    served = serving("serve", "--models-root", models_root, "--workers", 2, "--port", 0)
    served.wait_for("Ready")
    children = children_of(served.process.pid)
    served.end(signal.SIGKILL)
    wait_until(lambda: not any(Path(f"/proc/{child}").exists() for child in children))


def test_json_logs_are_nothing_but_json(
    serving: Serving, models_root: Path, windows: Float32Array
) -> None:
    served = serving("serve", "--models-root", models_root, "--port", 0, "--json-logs")
    port = int(served.wait_for(r'"message": "ready".*"port": (\d+)'))
    frames_of(f"127.0.0.1:{port}", requests_of_windows("sanders", windows[:2], 2))
    assert served.end() == 0
    served.wait_for('"stopped"')
    entries = [json.loads(line) for line in served.lines]
    (times,) = [entry for entry in entries if "composite_ms" in entry]
    assert (times["model"], times["frames"], times["level"]) == ("sanders", 2, "info")
    assert entries[0]["message"] == "starting"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("logging", "said"),
    [
        ("log_compositing_times: true", True),
        ("log_compositing_times: false", False),
        ("level: warn", False),
    ],
)
def test_the_guides_logging_keys_decide_what_is_logged(
    serving: Serving,
    models_root: Path,
    windows: Float32Array,
    tmp_path: Path,
    logging: str,
    said: bool,
) -> None:
    (tmp_path / "config.yaml").write_text(
        f"models_root: {models_root}\nserver:\n  port: ':0'\nlogging:\n  {logging}\n"
    )
    served = serving("serve")  # config.yaml of its folder
    assert "Loaded from: config.yaml" in served.wait_for(r"Loaded from: .*")
    frames_of(served.address, requests_of_windows("sanders", windows[:2], 2))
    assert served.end() == 0
    assert ("sanders: 2 frames in" in served.text) == said


@pytest.mark.slow
def test_up_runs_the_test_client_and_ends(
    serving: Serving, models_root: Path, speech: Path, tmp_path: Path
) -> None:
    ports = ["--port", 0, "--inference-port", 0]
    save = ["--save", tmp_path / "f", "--batch", 50]
    served = serving(
        "up", "sanders", speech, "--models-root", models_root, *ports, *save, "--no-stay"
    )
    assert served.wait() == 0
    served.wait_for("55 frames in 2 requests")
    assert len(list((tmp_path / "f").iterdir())) == 55


@pytest.mark.slow
def test_ctrl_c_ends_the_test_client_and_both_servers(serving: Serving, models_root: Path) -> None:
    ports = ["--port", 0, "--inference-port", 0, "--batch", 1]
    served = serving("up", "sanders", "--models-root", models_root, *ports)
    served.wait_for("compositing server at")
    served.wait_for("sanders: 1 frames in")
    children = children_of(served.process.pid)
    assert len(children) == 2
    assert served.end(signal.SIGINT) == 0
    assert "312 frames in" not in served.text
    assert not any(Path(f"/proc/{child}").exists() for child in children)


def children_of(parent: int) -> list[int]:
    text = Path(f"/proc/{parent}/task/{parent}/children").read_text()
    return [int(pid) for pid in text.split()]
