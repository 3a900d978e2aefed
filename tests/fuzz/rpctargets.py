"""The messages of each gRPC service, through its servicer and a real connection."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import grpc
import numpy as np
from tests.conftest import make_package_at
from tests.fuzz.target import Target, Try, check_clear
from tests.rpc.liveserver import live_server
from tests.rpc.plainbackend import NAMES, PlainBackend

from lipwire.audio import AudioEncoder
from lipwire.avatars import Avatar
from lipwire.domain import NotFound
from lipwire.registry import Loaded, Registry
from lipwire.rpc.backends.network import RemoteNetwork
from lipwire.rpc.generated import compositing_pb2, inference_pb2, management_pb2
from lipwire.rpc.generated.lipwire.v1 import avatar_pb2, mouths_pb2
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

WINDOW: Final = np.random.default_rng(7).normal(0, 1, (32, 16, 16)).astype("<f4").tobytes()
REFUSALS: Final = frozenset(
    {"INVALID_ARGUMENT", "NOT_FOUND", "ABORTED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION"}
)
NEXT: Final = b"\0\xff\0\xff"
"""Between two messages of a stream."""


def _methods(module: Any, service: str) -> list[tuple[str, Any]]:
    """Paths of a service's calls with their request types, without streams."""
    described = module.DESCRIPTOR.services_by_name[service]
    found = []
    for method in described.methods:
        if method.client_streaming:
            continue
        holder = module if hasattr(module, method.input_type.name) else management_pb2
        request = getattr(holder, method.input_type.name)
        found.append((f"/{described.full_name}/{method.name}", request))
    return found


def _seeds(methods: Sequence[tuple[str, Any]]) -> tuple[bytes, ...]:
    """A byte that chooses the call, then a message for it."""
    found = []
    for number, (_, request) in enumerate(methods):
        fields = request.DESCRIPTOR.fields_by_name
        values: dict[str, Any] = {
            "model_id": "anna",
            "batch_size": 1,
            "count": 1,
            "audio_features": WINDOW,
            "windows": WINDOW,
            "page_size": 1,
            "holder": "me",
            "session_id": "nobody",
        }
        message = request(**{name: value for name, value in values.items() if name in fields})
        found.append(bytes([number]) + message.SerializeToString())
        if "raw_audio" in fields:
            message = request(
                model_id="bert", raw_audio=bytes(6400), sample_rate=16_000, batch_size=2
            )
            found.append(bytes([number]) + message.SerializeToString())
    return tuple(found)


def _calling(channel: grpc.Channel, methods: Sequence[tuple[str, Any]]) -> Try:
    calls: list[Any] = [channel.unary_unary(path) for path, _ in methods]

    def run(data: bytes) -> str:
        call = calls[(data[0] if data else 0) % len(calls)]
        try:
            call(data[1:], timeout=60)
        except grpc.RpcError as error:
            failed: Any = error
            assert failed.code().name in REFUSALS, (failed.code(), failed.details())
            check_clear(failed.details())
            return str(failed.code().name)
        return "answered"

    return run


@contextmanager
def _channel(port: int) -> Iterator[grpc.Channel]:
    options = [(f"grpc.max_{way}_message_length", -1) for way in ("send", "receive")]
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        yield channel


def _inference(methods: Sequence[tuple[str, Any]]) -> Callable[[Path], Any]:
    @contextmanager
    def opened(folder: Path) -> Iterator[Try]:
        backend = PlainBackend()
        services = [
            inference_service(InferenceServicer(backend, names=lambda: NAMES)),
            mouth_service(MouthServicer(backend)),
        ]
        server = RpcServer(services, ServerOptions(host="127.0.0.1"))
        server.start()
        try:
            with _channel(server.port) as channel:
                yield _calling(channel, methods)
        finally:
            server.stop()

    return opened


def _compositing(methods: Sequence[tuple[str, Any]]) -> Callable[[Path], Any]:
    @contextmanager
    def opened(folder: Path) -> Iterator[Try]:
        with ExitStack() as stack:
            package = make_package_at(folder / "anna", frames=4)
            frames = stack.enter_context(Avatar.open(package, parts=frozenset({"jpeg"})))
            encoder = AudioEncoder.open(package / "checkpoint" / "audio_encoder.onnx")
            backend = PlainBackend()

            def load(name: str) -> Loaded[LoadedAvatar]:
                if name not in NAMES:
                    raise NotFound(f"there is no avatar {name[:60]!r}")
                network = RemoteNetwork(backend, name, frames)
                loaded = LoadedAvatar(frames, network, frames.revision)
                return Loaded(loaded, 1_000_000, lambda: None)

            registry = stack.enter_context(Registry(load, max_items=10))
            encoders = stack.enter_context(AudioEncoders(lambda path: encoder))
            servicer = CompositingServicer(
                Compositor(registry, encoders),
                registry,
                backend,
                names=lambda: NAMES,
                inference_url="elsewhere:50051",
            )
            server = RpcServer([compositing_service(servicer)], ServerOptions(host="127.0.0.1"))
            server.start()
            stack.callback(server.stop)
            yield _calling(stack.enter_context(_channel(server.port)), methods)

    return opened


CONVERSE: Final = (
    NEXT.join(
        message.SerializeToString()
        for message in (
            avatar_pb2.ConverseRequest(start=avatar_pb2.StartSession(model_id="anna")),
            avatar_pb2.ConverseRequest(
                audio=avatar_pb2.SpeechAudio(samples=bytes(640), sample_rate=16_000, sequence=0)
            ),
            avatar_pb2.ConverseRequest(interrupt=avatar_pb2.Interrupt(number=1)),
            avatar_pb2.ConverseRequest(change_avatar=avatar_pb2.ChangeAvatar(model_id="bert")),
            avatar_pb2.ConverseRequest(close=avatar_pb2.CloseSession()),
        )
    ),
    avatar_pb2.ConverseRequest(
        start=avatar_pb2.StartSession(session_id="nobody", sound_rate=16_000, lookahead_ms=1.5)
    ).SerializeToString(),
)


@contextmanager
def _conversing(folder: Path) -> Iterator[Try]:
    """Streams; what a session says to the first messages is looked at, and it is left then."""
    package = make_package_at(folder / "anna", frames=4)
    encoder = AudioEncoder.open(package / "checkpoint" / "audio_encoder.onnx")
    with live_server(encoder) as live, _channel(live.server.port) as channel:
        method: Any = channel.stream_stream(
            "/lipwire.v1.AvatarService/Converse",
            response_deserializer=avatar_pb2.ConverseResponse.FromString,
        )

        def run(data: bytes) -> str:
            answers = method(iter(data.split(NEXT)[:8]), timeout=60)
            seen = "answered"
            try:
                for count, answer in enumerate(answers):
                    if answer.WhichOneof("message") == "refused":
                        check_clear(answer.refused.error)
                        seen = "refused"
                    if count >= 3:
                        break
            except grpc.RpcError as error:
                failed: Any = error
                assert failed.code().name in REFUSALS, (failed.code(), failed.details())
                check_clear(failed.details())
                seen = str(failed.code().name)
            finally:
                answers.cancel()
            return seen

        yield run


def rpc_targets() -> list[Target]:
    """All of them."""
    compositing = _methods(compositing_pb2, "CompositingService")
    inference = _methods(inference_pb2, "InferenceService") + _methods(mouths_pb2, "MouthService")
    words = (b"\x08\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01", b"anna", b"\x12\0", b"\xff" * 9)
    return [
        Target("grpc-compositing", _seeds(compositing), words, _compositing(compositing)),
        Target("grpc-inference", _seeds(inference), words, _inference(inference)),
        Target("grpc-converse", CONVERSE, (NEXT, *words), _conversing),
    ]
