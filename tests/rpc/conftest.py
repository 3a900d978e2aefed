"""A server on a loopback port, with small avatars and a backend whose mouths can be predicted."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.rpc.inferenceservers import Server
from tests.rpc.liveserver import LiveServer, live_server
from tests.rpc.plainbackend import FRAMES, NAMES, PlainBackend, expected_mouth
from tests.support.madeonce import made_once
from tests.support.waiting import WAIT_S, until

from lipwire.audio import AudioEncoder
from lipwire.avatars import Avatar, Part
from lipwire.domain import AvatarInvalid, Float32Array, NotFound, UInt8Array
from lipwire.registry import Loaded, Registry
from lipwire.rpc.backends import servers as servers_module
from lipwire.rpc.backends.network import RemoteNetwork
from lipwire.rpc.conversing import AvatarConnection
from lipwire.rpc.server.ports import held_port
from lipwire.rpc.server.server import (
    RpcServer,
    ServerOptions,
    compositing_service,
    inference_service,
    mouth_service,
)
from lipwire.rpc.services.compositing import CompositingServicer
from lipwire.rpc.services.inference import InferenceServicer, MouthServicer
from lipwire.serving import AudioEncoders, Compositor, LoadedAvatar


@pytest.fixture(scope="session")
def models_root(
    tmp_path_factory: pytest.TempPathFactory, make_package: Callable[..., Path]
) -> Path:
    def make(folder: Path) -> None:
        for seed, name in enumerate(NAMES):
            make_package(folder / name, frames=FRAMES, seed=seed)

    return made_once(tmp_path_factory, "rpc-models", make)


@pytest.fixture(scope="session")
def opened(models_root: Path) -> Iterator[dict[str, Avatar]]:
    """Every avatar, opened once for all tests."""
    parts = frozenset[Part]({"jpeg", "pixels", "planes"})
    avatars = {name: Avatar.open(models_root / name, parts=parts) for name in NAMES}
    yield avatars
    for avatar in avatars.values():
        avatar.close()


@pytest.fixture
def avatars(
    models_root: Path, opened: dict[str, Avatar], backend: PlainBackend
) -> Iterator[Registry[LoadedAvatar]]:
    """A compositing server's."""

    def load(name: str) -> Loaded[LoadedAvatar]:
        if name == "broken":
            raise AvatarInvalid(f"{models_root}/broken/crop_rects.json is no JSON")
        if name not in NAMES:
            raise NotFound(f"there is no avatar {name!r}; the nearest is {NAMES[0]!r}")
        frames = opened[name]
        network = RemoteNetwork(backend, name, frames)
        return Loaded(LoadedAvatar(frames, network, frames.revision), 1_000_000, lambda: None)

    with Registry(load, max_items=10) as registry:
        yield registry


@pytest.fixture(scope="session")
def anna(models_root: Path) -> Iterator[Avatar]:
    """The oracle: the avatar, opened without a server."""
    with Avatar.open(models_root / "anna", parts=frozenset({"jpeg", "pixels", "planes"})) as avatar:
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
    avatars: Registry[LoadedAvatar], backend: PlainBackend, encoder: AudioEncoder
) -> Iterator[Serve]:
    """``serve(options=..., healthy=..., **arguments of Compositor) -> RpcServer``."""
    running: list[RpcServer] = []
    encoders = AudioEncoders(lambda path: encoder)

    def start(
        options: ServerOptions | None = None,
        healthy: Callable[[], bool] | None = None,
        **arguments: Any,
    ) -> RpcServer:
        servicer = CompositingServicer(
            Compositor(avatars, encoders, **arguments),
            avatars,
            backend,
            names=lambda: NAMES,
            inference_url="elsewhere:50051",
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
    encoders.close()


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


ServeLive = Callable[..., LiveServer]


@pytest.fixture
def serve_live(encoder: AudioEncoder, own_threads: Callable[[], list[str]]) -> Iterator[ServeLive]:
    """``serve_live(**arguments of live_server)``. All of its threads end with the test."""
    with ExitStack() as stack:
        yield lambda **arguments: stack.enter_context(live_server(encoder, **arguments))
    until(lambda: not own_threads(), seen=own_threads)


@pytest.fixture
def live(serve_live: ServeLive) -> LiveServer:
    return serve_live()


@pytest.fixture
def client(live: LiveServer) -> Iterator[AvatarConnection]:
    with AvatarConnection(live.address) as connection:
        yield connection
