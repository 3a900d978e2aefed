"""A server on a loopback port, with small avatars and a backend whose mouths can be predicted."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc
import numpy as np
import pytest

from lipwire.audio import AudioEncoder
from lipwire.avatars import Avatar
from lipwire.avatars.holdings import Loaded
from lipwire.avatars.registry import Registry
from lipwire.domain import (
    AvatarInvalid,
    Float32Array,
    LipwireError,
    NotFound,
    UInt8Array,
    ping_pong,
)
from lipwire.rpc.backends import BackendHealth, FloatMouths, GpuStatus, ModelStatus, Mouths
from lipwire.rpc.calls import current
from lipwire.rpc.compositing import CompositingServicer
from lipwire.rpc.inference import InferenceServicer, MouthServicer
from lipwire.rpc.serving import (
    RpcServer,
    ServerOptions,
    compositing_service,
    inference_service,
    mouth_service,
)

FRAMES = 8
NAMES = ("anna", "bert")
LIMIT_BYTES = 100 * 1024 * 1024
WAIT_S = 60.0
"""For what comes in a moment, unless the machine is busy with something else."""


def expected_mouth(frame: int, window: Float32Array) -> UInt8Array:
    """What ``PlainBackend`` draws for ``frame``: shades that depend on the frame and the speech."""
    speech = abs(float(window.mean(dtype=np.float64)))
    shade = int(40 * ping_pong(frame, FRAMES) + 1000 * speech) % 256
    rows = np.arange(320, dtype=np.uint16)[:, None, None]
    return np.broadcast_to((rows + shade).astype(np.uint8), (320, 320, 3)).copy()


@dataclass
class PlainBackend:
    """Stands in for networks where only the wire is looked at."""

    error: LipwireError | Exception | None = None
    fail_times: int = 10**9
    wait: threading.Event | None = None
    entered: threading.Event = field(default_factory=threading.Event)
    left: threading.Event = field(default_factory=threading.Event)
    timeouts: list[float | None] = field(default_factory=list)
    revisions: list[str] = field(default_factory=list)
    loaded: set[str] = field(default_factory=set)
    is_healthy: bool = True
    gpu_id: int = 3

    def mouths(
        self,
        model_id: str,
        first: int,
        windows: Float32Array,
        *,
        revision: str = "",
        timeout_s: float | None = None,
    ) -> Mouths:
        self.revisions.append(revision)
        self._work(model_id, timeout_s)
        pixels = np.stack([expected_mouth(first + i, w) for i, w in enumerate(windows)])
        return Mouths(pixels, self.gpu_id, 1.5)

    def mouths_of(
        self,
        model_id: str,
        visual: Float32Array,
        windows: Float32Array,
        *,
        revision: str = "",
        timeout_s: float | None = None,
    ) -> FloatMouths:
        self.revisions.append(revision)
        self._work(model_id, timeout_s)
        assert visual.dtype == np.float32
        assert windows.shape == (len(visual), 32, 16, 16)
        return FloatMouths(visual[:, :3] * np.float32(0.5), self.gpu_id, 2.5)

    def _work(self, model_id: str, timeout_s: float | None) -> None:
        self.timeouts.append(timeout_s)
        self.loaded.add(model_id)
        self.entered.set()
        if self.error is not None and self.fail_times > 0:
            self.fail_times -= 1
            raise self.error
        if self.wait is not None:
            call = current()
            assert call is not None
            call.on_end(self.wait.set)
            assert self.wait.wait(WAIT_S)
            self.left.set()

    def load(self, model_id: str, *, timeout_s: float | None = None) -> ModelStatus:
        if model_id not in NAMES:
            raise NotFound(f"there is no model {model_id!r}")
        self.loaded.add(model_id)
        return ModelStatus(model_id, 0, 1000, 0, 0.0)

    def unload(self, model_id: str, *, timeout_s: float | None = None) -> bool:
        there = model_id in self.loaded
        self.loaded.discard(model_id)
        return there

    def models(self, *, timeout_s: float | None = None) -> tuple[ModelStatus, ...]:
        return tuple(ModelStatus(name, 0, 1000, 1, 0.5, 0) for name in sorted(self.loaded))

    def health(self, *, timeout_s: float | None = None) -> BackendHealth:
        gpu = GpuStatus(
            3, "NVIDIA H200", 7, 150_000_000_000, 9_000_000_000, 0.25, "fell off", "gpu1:50051"
        )
        loaded = len(self.loaded)
        return BackendHealth(self.is_healthy, 1, loaded, 1000, "1.2.3", "as told", (gpu,))

    def close(self) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


@pytest.fixture(scope="session")
def models_root(
    tmp_path_factory: pytest.TempPathFactory, make_package: Callable[..., Path]
) -> Path:
    root = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(NAMES):
        make_package(root / name, frames=FRAMES, seed=seed)
    return root


@pytest.fixture(scope="session")
def avatars(models_root: Path) -> Iterator[Registry[Avatar]]:
    def load(name: str) -> Loaded[Avatar]:
        if name == "broken":
            raise AvatarInvalid(f"{models_root}/broken/crop_rects.json is no JSON")
        if name not in NAMES:
            raise NotFound(f"there is no avatar {name!r}; the nearest is {NAMES[0]!r}")
        avatar = Avatar.open(models_root / name, parts=frozenset({"jpeg", "pixels"}))
        return Loaded(avatar, 1_000_000, avatar.close)

    with Registry(load, max_items=10) as registry:
        yield registry


@pytest.fixture(scope="session")
def anna(models_root: Path) -> Iterator[Avatar]:
    """The oracle: the avatar, opened without a server."""
    with Avatar.open(models_root / "anna", parts=frozenset({"jpeg", "pixels"})) as avatar:
        yield avatar


@pytest.fixture(scope="session")
def encoder(anna: Avatar) -> AudioEncoder:
    assert anna.encoder_path is not None
    return AudioEncoder.open(anna.encoder_path)


@pytest.fixture
def backend() -> PlainBackend:
    return PlainBackend()


Serve = Callable[..., RpcServer]
Connect = Callable[[RpcServer], grpc.Channel]


@pytest.fixture
def serve(
    avatars: Registry[Avatar], backend: PlainBackend, encoder: AudioEncoder
) -> Iterator[Serve]:
    """``serve(options=..., healthy=..., **arguments of CompositingServicer) -> RpcServer``."""
    running: list[RpcServer] = []

    def start(
        options: ServerOptions | None = None,
        healthy: Callable[[], bool] | None = None,
        **arguments: Any,
    ) -> RpcServer:
        servicer = CompositingServicer(
            backend, avatars, names=lambda: NAMES, encoder_of=lambda avatar: encoder, **arguments
        )
        services = [
            compositing_service(servicer),
            inference_service(InferenceServicer(backend, names=lambda: NAMES)),
            mouth_service(MouthServicer(backend)),
        ]
        server = RpcServer(services, options or ServerOptions(host="127.0.0.1"), healthy=healthy)
        server.start()
        running.append(server)
        return server

    yield start
    for server in running:
        server.stop()


@pytest.fixture
def server(serve: Serve) -> RpcServer:
    return serve()


@pytest.fixture
def connect() -> Iterator[Connect]:
    """``connect(server) -> grpc.Channel``, without limits of its own on messages."""
    channels: list[grpc.Channel] = []
    limits = ("grpc.max_send_message_length", "grpc.max_receive_message_length")

    def open_channel(server: RpcServer) -> grpc.Channel:
        options = [(limit, -1) for limit in limits]
        channels.append(grpc.insecure_channel(f"127.0.0.1:{server.port}", options=options))
        return channels[-1]

    yield open_channel
    for channel in channels:
        channel.close()


@pytest.fixture
def channel(server: RpcServer, connect: Connect) -> grpc.Channel:
    return connect(server)


@pytest.fixture
def until() -> Callable[[Callable[[], bool]], bool]:
    """Whether a condition comes true, before a minute has passed."""

    def wait(condition: Callable[[], bool]) -> bool:
        end = time.monotonic() + WAIT_S
        while not condition():
            if time.monotonic() > end:
                return False
            time.sleep(0.005)
        return True

    return wait


@pytest.fixture
def mouth() -> Callable[[int, Float32Array], UInt8Array]:
    """What the backend draws for a frame and a window."""
    return expected_mouth
