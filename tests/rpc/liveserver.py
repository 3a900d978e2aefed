"""A server with live sessions on a loopback port, whose avatars cost nothing."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np

from lipwire.audio import AudioEncoder
from lipwire.domain import AudioWindows, Call, Mouths, NotFound, UInt8Array
from lipwire.rpc.conversing import ConverseStream
from lipwire.rpc.generated.lipwire.v1 import avatar_pb2 as pb
from lipwire.rpc.generated.lipwire.v1.avatar_pb2_grpc import AvatarServiceStub
from lipwire.rpc.received import Received
from lipwire.rpc.server.server import RpcServer, ServerOptions, avatar_service
from lipwire.rpc.services.conversing import ConversingServicer, Speak
from lipwire.rpc.workers import WorkerPlace
from lipwire.rpc.workers.sessioncount import SharedCount
from lipwire.serving import PictureFormat
from lipwire.session.live import (
    LiveAvatar,
    LiveSessions,
    LiveThreads,
    Pacer,
    SessionObserver,
    SessionRules,
)
from lipwire.session.live.observer import NO_OBSERVER
from lipwire.wiring.listening import listening

WIDTH, HEIGHT = 32, 24
REST = np.full((320, 320, 3), 7, np.uint8)


def noise(seconds: float, rate_hz: int = 16_000) -> np.ndarray[Any, np.dtype[np.int16]]:
    """(n,) int16."""
    samples = np.random.default_rng(1).normal(0, 3000, round(seconds * rate_hz))
    return samples.astype(np.int16)


class Rest:
    """Mouths at rest that are all there."""

    complete = True

    def has(self, number: int) -> bool:
        return True

    def ready(self, number: int) -> UInt8Array | None:
        return REST

    def mouth(self, number: int, *, call: Call | None = None) -> UInt8Array:
        return REST


@dataclass
class LiveServer:
    """A running server, and what its tests look at."""

    server: RpcServer
    sessions: LiveSessions
    threads: LiveThreads
    end: Callable[[], None]
    """Stops it before its block does."""
    closed: list[str] = field(default_factory=list)
    """Avatars that were closed, by name."""

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server.port}"


@contextmanager
def live_server(
    encoder: AudioEncoder,
    *,
    rules: SessionRules | None = None,
    frame_format: PictureFormat = "jpeg",
    max_streams: int = 8,
    opening: Callable[[str], object] = lambda name: None,
    frame_bytes: int = 0,
    clock: Callable[[], float] = time.monotonic,
    speak: Speak | None = None,
    place: WorkerPlace | None = None,
    observer: SessionObserver = NO_OBSERVER,
) -> Iterator[LiveServer]:
    """Give a server with the avatars anna and bert. ``opening`` is called with the name of each
    avatar that is opened, and may raise or wait. Frames have ``frame_bytes`` or more. ``clock`` is
    what a drained server ends its sessions by, and ``speak`` has a session say a text. ``place`` is
    that among other servers, as processes of one have it. ``observer`` is told of its sessions."""

    def open_avatar(name: str, call: Call) -> LiveAvatar:
        opening(name)
        if name not in ("anna", "bert"):
            raise NotFound(f"there is no avatar {name!r}")

        def compose(position: int, mouth: UInt8Array | None) -> bytes:
            spoken = mouth is not None and mouth is not REST
            if frame_format == "raw":
                return np.full((HEIGHT, WIDTH, 3), spoken, np.uint8).tobytes()
            return f"{name} {position} {'speaks' if spoken else 'rests'}".encode().ljust(
                frame_bytes, b" "
            )

        def mouths(position: int, windows: AudioWindows, call: Call) -> Mouths:
            return np.zeros((len(windows), 320, 320, 3), np.uint8)

        return LiveAvatar(
            name,
            WIDTH,
            HEIGHT,
            8,
            compose,
            mouths,
            Rest(),
            encoder,
            lambda: running.closed.append(name),
        )

    with (
        Pacer() as pacer,
        ThreadPoolExecutor(8, thread_name_prefix="lipwire-live") as workers,
        ThreadPoolExecutor(1, thread_name_prefix="lipwire-frames") as composing,
    ):
        threads = LiveThreads(pacer, workers, composing)
        with ExitStack() as stack:
            count = None if place is None else stack.enter_context(SharedCount(place))
            sessions = stack.enter_context(
                LiveSessions(
                    open_avatar,
                    threads,
                    rules=rules,
                    count=count,
                    observer=observer,
                    prefix="" if place is None else place.session_prefix,
                )
            )
            servicer = ConversingServicer(sessions, frame_format, clock=clock, speak=speak)
            server = stack.enter_context(
                listening(
                    [avatar_service(servicer)],
                    ServerOptions(host="127.0.0.1", max_streams=max_streams),
                    healthy=lambda: True,
                    on_drain=servicer.drain,
                    place=place,
                    parts=[avatar_service(servicer)],
                )
            )
            running = LiveServer(server, sessions, threads, stack.close)
            yield running


class Raw:
    """A client that sends what it is told to, right or wrong."""

    def __init__(self, live: LiveServer) -> None:
        self.channel = grpc.insecure_channel(live.address)
        self.stub: Any = AvatarServiceStub(self.channel)
        self._messages: list[bytes | None] = []
        self._more = threading.Condition()
        method = self.channel.stream_stream(
            "/lipwire.v1.AvatarService/Converse",
            request_serializer=lambda data: data,
            response_deserializer=pb.ConverseResponse.FromString,
        )
        self.answers = method(self._sent())

    def __enter__(self) -> "Raw":
        return self

    def __exit__(self, *_: object) -> None:
        self.send(None)
        self.channel.close()

    def say(self, **message: Any) -> None:
        self.send(pb.ConverseRequest(**message).SerializeToString())

    def send(self, data: bytes | None) -> None:
        """None says that nothing more is sent."""
        with self._more:
            self._messages.append(data)
            self._more.notify_all()

    def until(self, kind: str) -> Any:
        for answer in self.answers:
            if answer.WhichOneof("message") == kind:
                return getattr(answer, kind)
        raise AssertionError(f"it ended without {kind}")

    def _sent(self) -> Iterator[bytes]:
        while True:
            with self._more:
                self._more.wait_for(lambda: self._messages)
                data = self._messages.pop(0)
            if data is None:
                return
            yield data


def until_seen(stream: ConverseStream, wanted: Callable[[Received], object]) -> list[Received]:
    """What ``stream`` gives up to the first that ``wanted`` holds for, which has to come."""
    seen: list[Received] = []
    for received in stream:
        seen.append(received)
        if wanted(received):
            return seen
    raise AssertionError(f"it ended without it: {seen[-5:]}")


def kinds(received: list[Received], kind: type) -> list[Any]:
    """Those of ``received`` that are of ``kind``."""
    return [each for each in received if isinstance(each, kind)]
