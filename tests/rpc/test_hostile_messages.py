"""Random, damaged and huge messages for servers in processes of their own: a clear answer to each,
and the servers are what they were before."""

import random
import re
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import grpc
import numpy as np
import pytest
from google.protobuf.message import DecodeError, Message
from tests.cli.conftest import Served, serving_in
from tests.support.waiting import until

from lipwire.bench.footprint import Footprint, footprint
from lipwire.rpc.generated import compositing_pb2, inference_pb2
from lipwire.rpc.generated.lipwire.v1 import mouths_pb2

MESSAGES: Final = 10_000
AT_A_TIME: Final = 16
WINDOW: Final = np.random.default_rng(7).normal(0, 1, (32, 16, 16)).astype("<f4").tobytes()
SOUND: Final = np.random.default_rng(8).integers(-9000, 9000, 6400).astype("<i2").tobytes()
CODES: Final = grpc.StatusCode
REFUSALS: Final = {"INVALID_ARGUMENT", "NOT_FOUND", "ABORTED"}
"""The last where a revision of an avatar is asked for that is not there."""
MB: Final = 2**20

Form = Literal["one process", "two servers"]


@dataclass(frozen=True, slots=True)
class Method:
    """One call of a server: its path, its messages, and valid requests to be damaged."""

    path: str
    request: type[Message]
    response: type[Message]
    valid: tuple[Message, ...]


def methods_of(
    module: Any, service: str, inferences: dict[str, tuple[Message, ...]]
) -> list[Method]:
    """All calls of a service; those not in ``inferences`` are about models."""
    found = []
    for method in module.DESCRIPTOR.services_by_name[service].methods:
        request, response = (
            getattr(module, kind.name) for kind in (method.input_type, method.output_type)
        )
        valid = inferences.get(method.name)
        if valid is None:
            has_model = "model_id" in request.DESCRIPTOR.fields_by_name
            valid = (request(model_id="bert"),) if has_model else (request(),)
        path = f"/{module.DESCRIPTOR.package}.{service}/{method.name}"
        found.append(Method(path, request, response, valid))
    return found


def requests_of(request: type[Any]) -> tuple[Message, ...]:
    return (
        request(model_id="anna", audio_features=WINDOW, batch_size=1, start_frame_idx=70_000),
        request(model_id="bert", audio_features=WINDOW * 2, batch_size=2),
        request(
            model_id="anna",
            visual_frames=bytes(6 * 320 * 320 * 4),
            audio_features=WINDOW,
            batch_size=1,
        ),
    )


COMPOSITING: Final = methods_of(
    compositing_pb2,
    "CompositingService",
    {
        "InferBatchComposite": (
            *requests_of(compositing_pb2.CompositeBatchRequest),
            compositing_pb2.CompositeBatchRequest(
                model_id="anna", raw_audio=SOUND, sample_rate=16_000, channels=1, batch_size=3
            ),
        )
    },
)
INFERENCE: Final = methods_of(
    inference_pb2,
    "InferenceService",
    {"InferBatch": requests_of(inference_pb2.InferBatchRequest)},
) + methods_of(
    mouths_pb2,
    "MouthService",
    {"Mouths": (mouths_pb2.MouthsRequest(model_id="anna", count=2, windows=WINDOW * 2),)},
)


def random_message(chance: random.Random, valid: bytes, other: bytes) -> bytes:
    """Noise, or ``valid`` damaged in one of the ways in which messages get damaged."""
    way = chance.randrange(8)
    data = bytearray(valid)
    if way == 0:
        return chance.randbytes(chance.randrange(200))
    if way == 1:
        return bytes(data[: chance.randrange(len(data) + 1)])
    if way == 2:  # the beginning of one and the end of another
        return (
            bytes(data[: chance.randrange(len(data) + 1)])
            + other[chance.randrange(len(other) + 1) :]
        )
    if way == 3:  # both, of which the last fields count
        return valid + other
    if way == 4:  # a field that nobody knows, of any number, type and length
        tag = chance.randrange(1 << chance.randrange(4, 36))
        return valid + varint(tag) + varint(chance.getrandbits(64)) + chance.randbytes(8)
    for _ in range(chance.randrange(1, 5)):
        if not data:
            break
        # Tags and lengths are at the ends, as what is between is a field of many bytes.
        near = chance.randrange(min(24, len(data)))
        place = chance.choice([near, len(data) - 1 - near, chance.randrange(len(data))])
        if way == 5:
            data[place] = chance.randrange(256)
        elif way == 6:
            data[place] ^= 1 << chance.randrange(8)
        elif chance.random() < 0.5:
            del data[place : place + chance.randrange(1, 5)]
        else:
            data[place:place] = chance.randbytes(chance.randrange(1, 5))
    return bytes(data)


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def looked_at(method: Method, sent: bytes, call: Any) -> str:
    """What came of a call, which has to be one of the clear answers there are."""
    try:
        request = method.request.FromString(sent)
    except DecodeError:
        request = None
    try:
        data = call.result()
    except grpc.RpcError:
        said = call.details()
        assert call.code().name in REFUSALS, (method.path, call.code(), said, sent[:200])
        unreadable = said == f"the message is no protobuf message of {method.path[1:]}"
        assert unreadable == (request is None), (said, sent[:200])
        assert_clear(said)
        return str(call.code().name)
    assert request is not None, (method.path, sent[:200])
    answer: Any = method.response.FromString(data)
    if not hasattr(answer, "success"):
        return "answer"
    if not answer.success:
        assert answer.error_code in REFUSALS, (answer.error_code, answer.error)
        assert_clear(answer.error)
        return "success = false"
    assert not answer.error
    asked: Any = request
    if hasattr(answer, "composited_frames"):
        assert len(answer.composited_frames) == asked.batch_size
        assert all(frame.startswith(b"\xff\xd8\xff") for frame in answer.composited_frames)
    elif hasattr(answer, "output"):
        assert len(answer.output) == asked.batch_size * 3 * 320 * 320 * 4
    return "success"


def assert_clear(said: str) -> None:
    """One line that has something to say, and nothing of the server's inside."""
    assert 10 < len(said) <= 500, said
    assert said == " ".join(said.split()), said
    assert not re.search(r"Traceback|internal error|site-packages|\.py|tmp/", said), said


def bombard(channel: grpc.Channel, methods: list[Method], count: int, seed: int) -> Counter[str]:
    """``count`` messages, some at a time; how many got which kind of answer."""
    chance = random.Random(seed)
    calls: dict[str, Any] = {method.path: channel.unary_unary(method.path) for method in methods}
    # What costs work is a good third of it.
    weights = [len(methods) / 2 if len(method.valid) > 1 else 1 for method in methods]
    seen: Counter[str] = Counter()
    done = 0
    while done < count:
        sent = []
        for _ in range(min(AT_A_TIME, count - done)):
            method = chance.choices(methods, weights)[0]
            # Frames in the guide's form are 2.4 MB; one in a hundred will do.
            valid = chance.choice([each for each in method.valid if small(each)] or method.valid)
            if chance.random() < 0.01:
                valid = chance.choice(method.valid)
            other = chance.choice(chance.choice(methods).valid[:2]).SerializeToString()
            message = random_message(chance, valid.SerializeToString(), other)
            sent.append((method, message, calls[method.path].future(message, timeout=300)))
        for method, message, call in sent:
            seen[looked_at(method, message, call)] += 1
        done += len(sent)
    return seen


def small(message: Message) -> bool:
    return message.ByteSize() < 100_000


def throw_noise_at(port: int, connections: int, seed: int) -> None:
    """Connections that speak no gRPC, no HTTP/2, or begin with it and go on with noise; some are
    left without a word."""
    chance = random.Random(seed)
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    settings = b"\0\0\0\x04\0\0\0\0\0"
    with ExitStack() as stack:
        for number in range(connections):
            peer = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=60))
            noise = chance.randbytes(chance.randrange(1, 3000))
            starts = (b"", preface, preface + settings, b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
            with suppress(OSError):  # it hangs up on noise, which is its right
                peer.sendall(starts[number % 4] + noise)
                if number % 3 == 0:
                    peer.shutdown(socket.SHUT_WR)


def send_too_much(channel: grpc.Channel, path: str, *, packed: bool) -> None:
    """200 MB as they are; where ``packed``, also 200 MB that are small on their way."""
    call: Any = channel.unary_unary(path)
    for compression in (grpc.Compression.NoCompression, grpc.Compression.Gzip)[: 1 + packed]:
        with pytest.raises(grpc.RpcError) as caught:
            call(bytes(200 * MB), timeout=300, compression=compression)
        failed: Any = caught.value
        assert failed.code() is CODES.RESOURCE_EXHAUSTED
        assert "larger than max" in failed.details()


def settled(pid: int, before: Footprint) -> Footprint:
    """Its footprint as soon as it has no more than before.

    Pools of threads may find their full size only now, and gRPC keeps a connection or two.
    """
    now = before

    def calm() -> bool:
        nonlocal now
        now = footprint(pid)
        return now.threads <= before.threads + 8 and now.files <= before.files + 4

    until(calm, seen=lambda: (before, now))
    return now


@dataclass(frozen=True, slots=True)
class Target:
    """A server: its process, a channel to it, and what may be called."""

    served: Served
    port: int
    channel: grpc.Channel
    methods: list[Method]

    def valid_answers(self) -> list[bytes]:
        """Frames, mouths or floats for requests that are in order."""
        answers = []
        for method in self.methods:
            if len(method.valid) == 1 and "Mouths" not in method.path:
                continue
            call: Any = self.channel.unary_unary(method.path)
            for request in method.valid:
                answer: Any = method.response.FromString(
                    call(request.SerializeToString(), timeout=300)
                )
                if isinstance(answer, compositing_pb2.CompositeBatchResponse):
                    assert answer.success, answer.error
                    answers += list(answer.composited_frames)
                else:
                    answers.append(
                        answer.pixels
                        if isinstance(answer, mouths_pb2.MouthsResponse)
                        else answer.output
                    )
        assert all(answers)
        return answers


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, make_package: Callable[..., Path]) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(("anna", "bert")):
        make_package(folder / name, frames=8, seed=40 + seed)
    return folder


@contextmanager
def started(form: Form, root: Path, folder: Path) -> Iterator[list[Target]]:
    """``lipwire serve``, or the two servers apart."""
    with ExitStack() as stack:
        serving = serving_in(stack, folder)
        common = ("--models-root", root, "--host", "127.0.0.1", "--port", 0)
        environ = {
            "LIPWIRE_LOGGING__LOG_COMPOSITING_TIMES": "false",
            # glibc gives back what is freed, so that what is not freed shows.
            "MALLOC_ARENA_MAX": "2",
            "MALLOC_MMAP_THRESHOLD_": "1048576",
        }

        def target(served: Served, port: int, methods: list[Method]) -> Target:
            options = [(f"grpc.max_{way}_message_length", -1) for way in ("send", "receive")]
            channel = grpc.insecure_channel(f"127.0.0.1:{port}", options=options)
            return Target(served, port, stack.enter_context(channel), methods)

        if form == "one process":
            one = serving("serve", *common, **environ)
            yield [target(one, one.port, COMPOSITING)]
            return
        inference = serving("inference-server", *common, **environ)
        port = int(inference.wait_for(r"Inference server listening on port (\d+)"))
        compositing = serving(
            "compositing-server", *common, "--inference", f"127.0.0.1:{port}", **environ
        )
        yield [
            target(inference, port, INFERENCE),
            target(compositing, compositing.port, COMPOSITING),
        ]


def harass(form: Form, root: Path, folder: Path, messages: int, seed: int) -> None:
    with started(form, root, folder) as targets:
        each = messages // len(targets)
        right = [target.valid_answers() for target in targets]
        for target in targets:  # pools of threads and memory reach the size that such traffic takes
            # What 100 MB unpack into, piece by piece, stays in glibc's heaps from then on.
            send_too_much(target.channel, target.methods[0].path, packed=target is targets[0])
            bombard(target.channel, target.methods, 600, seed + 1)
            throw_noise_at(target.port, 8, seed)
        before = [footprint(target.served.process.pid) for target in targets]
        for target in targets:
            send_too_much(target.channel, target.methods[0].path, packed=target is targets[0])
            peak = footprint(target.served.process.pid).peak_bytes
            assert peak < max(each.peak_bytes for each in before) + 160 * MB
            seen = bombard(target.channel, target.methods, each, seed)
            assert sum(seen.values()) == each
            assert {"INVALID_ARGUMENT", "success = false", "success"} <= set(seen)
            assert min(seen[kind] for kind in ("INVALID_ARGUMENT", "success")) > each // 20, seen
            throw_noise_at(target.port, 40, seed)
        assert [target.valid_answers() for target in targets] == right
        for target, then in zip(targets, before, strict=True):
            now = settled(target.served.process.pid, then)
            assert now.own_bytes < then.own_bytes + 64 * MB, (then, now)
        for target in reversed(targets):
            assert "Traceback" not in target.served.text
            assert target.served.end() == 0, target.served.text


linux = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="looks at Linux's /proc")


@linux
@pytest.mark.slow
@pytest.mark.parametrize("form", ["one process", "two servers"])
def test_ten_thousand_messages_leave_the_servers_as_they_were(
    form: Form, root: Path, tmp_path: Path
) -> None:
    harass(form, root, tmp_path, MESSAGES // 2, seed=1)
