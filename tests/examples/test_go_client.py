"""A client in another language, made from nothing but the guide's messages."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from tests.cli.conftest import Served, serving_in

from lipwire.rpc.connection import CompositingConnection
from lipwire.rpc.generated.compositing_pb2 import CompositeBatchRequest

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "go-client"
THERE = (
    all(shutil.which(program) for program in ("go", "protoc", "protoc-gen-go"))
    and Path("/usr/share/gocode/src/google.golang.org/grpc").is_dir()
    and Path("/usr/share/doc/protoc-gen-go-1-3").is_dir()
)

# The reason is no "needs ...": Go is too large for CI, which takes that for something missing.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not THERE, reason="Debian's Go and its gRPC packages are not here"),
]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    built = tmp_path_factory.mktemp("go") / "client"
    subprocess.run([EXAMPLE / "build-debian.sh", built], check=True)
    return built


@pytest.fixture
def served(tmp_path: Path, make_package: Callable[..., Path]) -> Iterator[Served]:
    make_package(tmp_path / "models" / "anna", frames=8)
    with ExitStack() as stack:
        serving = serving_in(stack, tmp_path)
        yield serving("serve", "--models-root", tmp_path / "models", "--port", 0)


def test_frames_are_those_of_the_python_client(
    program: Path, served: Served, tmp_path: Path
) -> None:
    windows = np.random.default_rng(3).normal(0, 1, (24, 32, 16, 16)).astype("<f4")
    (tmp_path / "speech").write_bytes(windows.tobytes())
    for arguments, features in (
        (["-start", "0"], bytes(windows[0].nbytes)),
        (["-start", "5", "-audio", tmp_path / "speech"], windows.tobytes()),
    ):
        out = tmp_path / f"frames {len(features)}"
        done = subprocess.run(
            [program, "-address", served.address, "-model", "anna", "-out", out, *arguments],
            check=True,
            capture_output=True,
            text=True,
        )
        assert "Received 24 frames\nInference: " in done.stdout
        with CompositingConnection(served.address) as connection:
            wanted = connection.composite(
                CompositeBatchRequest(
                    model_id="anna",
                    audio_features=features,
                    batch_size=24,
                    start_frame_idx=int(str(arguments[1])),
                ),
                timeout_s=60,
            )
        saved = [(out / f"output_{index}.jpg").read_bytes() for index in range(24)]
        assert tuple(saved) == wanted.frames


def test_what_is_wrong_is_one_line(program: Path, served: Served) -> None:
    done = subprocess.run(
        [program, "-address", served.address, "-model", "ana"], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr == "error: no avatar named ana; the nearest known is anna\n"
