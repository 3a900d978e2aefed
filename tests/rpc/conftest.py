"""A server on a loopback port, with small avatars and a backend whose mouths can be predicted."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.rpc.inferenceservers import Server
from tests.rpc.plainbackend import FRAMES, NAMES, WAIT_S, PlainBackend, expected_mouth

from lipwire.audio import AudioEncoder
from lipwire.avatars import Avatar
from lipwire.avatars.holdings import Loaded
from lipwire.avatars.registry import Registry
from lipwire.domain import AvatarInvalid, Float32Array, NotFound, UInt8Array
from lipwire.rpc.backends import servers as servers_module
from lipwire.rpc.compositing import CompositingServicer
from lipwire.rpc.inference import InferenceServicer, MouthServicer
from lipwire.rpc.ports import held_port
from lipwire.rpc.serving import (
    RpcServer,
    ServerOptions,
    compositing_service,
    inference_service,
    mouth_service,
)


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


@pytest.fixture
def patient_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that does not answer for a second is not gone here: the machine may be busy."""
    monkeypatch.setattr(servers_module, "_CHECK_TIMEOUT_S", WAIT_S)


@pytest.fixture
def servers(patient_checks: None) -> Iterator[list[Server]]:
    """Three inference servers, whose ports are theirs: one that was killed may be started again."""
    with ExitStack() as stack:
        running = [Server(stack.enter_context(held_port("127.0.0.1", 0))) for _ in range(3)]
        yield running
        for server in running:
            server.kill()
