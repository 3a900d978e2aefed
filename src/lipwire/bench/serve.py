"""Servers under clients: the guide's table, what a frame costs besides its network, and the guide's
own 59 MB form against a bare gRPC echo.

Servers are processes of their own, as they are in use; clients are threads of this one.
"""

import json
import os
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from lipwire.avatars import Avatar
from lipwire.bench.coldstart import write_package
from lipwire.bench.harness import Comparison
from lipwire.bench.randomnetworks import MOBILE_WIDTHS, Widths, write_tiny_unet
from lipwire.config import load_compositing_config, load_inference_config
from lipwire.domain import AUDIO_WINDOW_SHAPE, Float32Array, UInt8Array, percentile
from lipwire.domain.pythonprocess import python_command
from lipwire.engine import Engine, Model
from lipwire.rpc.connection import Composited, CompositingConnection
from lipwire.rpc.generated.compositing_pb2 import CompositeBatchRequest, CompositeBatchResponse
from lipwire.rpc.transport import UNLIMITED_BYTES, open_channel
from lipwire.wiring.servers import open_serve

BATCHES: Final = (1, 8, 24, 50)
CLIENTS: Final = (1, 2, 4, 8)
SIZE: Final = (1280, 720)
_TIMEOUT_S: Final = 600.0
_START_S: Final = 120.0
_GUIDES_BATCH: Final = 24
_FRAMES: Final = 60
_NARROW: Final[Widths] = (8, 8, 8, 8, 8)
_ECHO: Final = """
import sys
from concurrent.futures import ThreadPoolExecutor
import grpc
limit = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
server = grpc.server(ThreadPoolExecutor(4), options=limit)
answer = int(sys.argv[1])
class Echo(grpc.GenericRpcHandler):
    def service(self, details):
        return grpc.unary_unary_rpc_method_handler(lambda data, context: data[:answer])
server.add_generic_rpc_handlers((Echo(),))
port = server.add_insecure_port("127.0.0.1:0")
print('{"message": "ready", "facts": {"port": %d}}' % port, flush=True)
server.start()
sys.stdin.read()
"""


@dataclass(frozen=True, slots=True)
class Spread:
    """Median and 99th percentile of a request, in milliseconds."""

    p50_ms: float
    p99_ms: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Return the median and the 99th percentile of ``values``, which are milliseconds."""
        return cls(percentile(list(values), 50), percentile(list(values), 99))


@dataclass(frozen=True, slots=True)
class Load:
    """How requests of ``batch`` frames each were answered while ``clients`` clients asked at once:
    the time of the network, of compositing, of everything else (``overhead``) and of the whole
    (``total``), in milliseconds for each request, and the frames a second of all clients together
    (``fps``). ``requests`` is how many there were."""

    clients: int
    batch: int
    requests: int
    inference: Spread
    compositing: Spread
    overhead: Spread
    total: Spread
    fps: float
    """Frames a second of all clients together."""

    @property
    def frame_ms(self) -> float:
        """The median time of a request divided by the number of its frames, in milliseconds."""
        return self.total.p50_ms / self.batch


@dataclass(frozen=True, slots=True)
class Besides:
    """Processor time in milliseconds of one frame, client and server together (``frame_ms``), and
    the part of it that the network takes (``network_ms``). The frame's request carries an audio
    window, not the audio."""

    frame_ms: float
    network_ms: float
    """Of the network in it, as it was run there."""

    @property
    def besides_ms(self) -> float:
        """Processor time of a frame without its network, in milliseconds."""
        return self.frame_ms - self.network_ms


class _TimedEngine(Engine):
    """Knows the processor time of each of its runs.

    Taken where it is spent: side by side, and a few frames at a time, a network costs more than
    alone (a quarter more on cores that are halves of one). Servers give each run one thread.
    """

    def __init__(self) -> None:
        super().__init__(threads=1)
        self.spent_ns: list[int] = []

    def infer(self, model: Model, crops: UInt8Array, windows: Float32Array) -> UInt8Array:
        begun_ns = time.thread_time_ns()
        try:
            return super().infer(model, crops, windows)
        finally:
            self.spent_ns.append(time.thread_time_ns() - begun_ns)


def run_table(
    rounds: int = 6,
    *,
    batches: Sequence[int] = BATCHES,
    clients: Sequence[int] = CLIENTS,
    size: tuple[int, int] = SIZE,
    widths: Widths | None = MOBILE_WIDTHS,
) -> list[Load]:
    """Measure a table of response times, and return a row for each number in ``clients`` with each
    batch size in ``batches`` (frames).

    In each row every client sends ``rounds`` requests that carry audio windows, for an avatar of
    its own, to one ``lipwire serve``, a process. Frames are of ``size`` (width, height), networks
    have layers of ``widths`` channels (None: the smallest network). Raises RuntimeError where the
    server does not start.
    """
    with tempfile.TemporaryDirectory(prefix="lipwire-serve-") as folder, ExitStack() as stack:
        names = [f"avatar-{number}" for number in range(max(clients))]
        _write_avatars(Path(folder), names, size, widths)
        server = stack.enter_context(serving(Path(folder)))
        connection = stack.enter_context(CompositingConnection(f"127.0.0.1:{server.port}"))
        for name in names:
            connection.load(name, _TIMEOUT_S)
        return [
            _load(connection, names[:count], batch, rounds)
            for count in clients
            for batch in batches
        ]


def run(rounds: int = 9, *, size: tuple[int, int] = SIZE) -> list[Comparison]:
    """Compare sending large requests to ``lipwire serve`` with sending them to a bare gRPC server,
    which answers with as many bytes; return a list of one result. A request carries the crops of 24
    frames as the network takes them, (24, 6, 320, 320) float32, 59 MB; the answer has the frames,
    of ``size`` (width, height). The time that network and compositing take is not counted.

    Requests are serialised beforehand. Both servers are processes, asked in turns, ``rounds`` times
    (1 or more). Raises RuntimeError where one does not start or answers with an error.
    """
    with tempfile.TemporaryDirectory(prefix="lipwire-serve-") as folder, ExitStack() as stack:
        _write_avatars(Path(folder), ["tiny"], size, None)
        random = np.random.default_rng(0)
        visual = random.random((_GUIDES_BATCH, 6, 320, 320), np.float32)
        request = CompositeBatchRequest(
            model_id="tiny",
            visual_frames=visual.tobytes(),
            audio_features=_window(),
            batch_size=_GUIDES_BATCH,
        ).SerializeToString()
        lipwire = stack.enter_context(_raw(stack.enter_context(serving(Path(folder))).port))
        sample = lipwire(request)
        echoing = _process(["-c", _ECHO, str(len(sample))], {})
        echo = stack.enter_context(_raw(stack.enter_context(echoing).port))

        def ours_ms() -> float:
            begun_s = time.perf_counter()
            data = lipwire(request)
            elapsed_ms = (time.perf_counter() - begun_s) * 1000
            answer = CompositeBatchResponse.FromString(data)
            if not answer.success:
                raise RuntimeError(answer.error)
            return elapsed_ms - answer.inference_time_ms - answer.composite_time_ms

        def theirs_ms() -> float:
            begun_s = time.perf_counter()
            if len(echo(request)) != len(sample):
                raise RuntimeError("the echo answered something else")
            return (time.perf_counter() - begun_s) * 1000

        ours: list[float] = []
        theirs: list[float] = []
        for number in range(rounds + 2):
            turns = ((ours, ours_ms), (theirs, theirs_ms))
            for times, ask in turns if number % 2 else turns[::-1]:
                times.append(ask())
    ours, theirs = ours[2:], theirs[2:]  # the first two rounds warm up
    return [
        Comparison(
            name=f"the guide's form, {len(request) / 1e6:.0f} MB, besides network and compositing",
            label_a="lipwire serve",
            label_b="bare gRPC echo",
            median_a_ms=statistics.median(ours),
            median_b_ms=statistics.median(theirs),
            p99_a_ms=percentile(ours, 99),
            p99_b_ms=percentile(theirs, 99),
            ratio=statistics.median(b / a for a, b in zip(ours, theirs, strict=True)),
            rounds=rounds,
            notes=f"{statistics.median(a / b for a, b in zip(ours, theirs, strict=True)):.2f} times"
            " the echo's time",
        )
    ]


def run_besides(rounds: int = 9, *, size: tuple[int, int] = SIZE) -> Besides:
    """Measure the processor time that a frame of ``size`` (width, height) costs besides its
    network, with server and client in this process. Requests carry 24 frames' audio windows; the
    result has the medians of ``rounds`` requests."""
    with tempfile.TemporaryDirectory(prefix="lipwire-serve-") as folder, ExitStack() as stack:
        _write_avatars(Path(folder), ["tiny"], size, None)
        environ = {
            "LIPWIRE_MODELS_ROOT": folder,
            "LIPWIRE_SERVER__HOST": "127.0.0.1",
            "LIPWIRE_SERVER__PORT": "0",
            "LIPWIRE_LOGGING__LOG_COMPOSITING_TIMES": "false",
        }
        engine = _TimedEngine()
        server = stack.enter_context(
            open_serve(
                load_compositing_config(None, environ),
                load_inference_config(None, {"LIPWIRE_ONNX__USE_CUDA": "false"}),
                tell=lambda _heading, _facts: None,
                make_engine=lambda _device: engine,
            )
        )
        connection = stack.enter_context(CompositingConnection(f"127.0.0.1:{server.port}"))
        windows = np.random.default_rng(0).standard_normal(
            (_GUIDES_BATCH, *AUDIO_WINDOW_SHAPE), np.float32
        )
        request = CompositeBatchRequest(
            model_id="tiny", audio_features=windows.tobytes(), batch_size=_GUIDES_BATCH
        )
        whole: list[float] = []
        network: list[float] = []
        for _ in range(rounds + 2):
            engine.spent_ns.clear()
            begun_ns = time.process_time_ns()
            connection.composite(request, _TIMEOUT_S)
            whole.append((time.process_time_ns() - begun_ns) / 1e6 / _GUIDES_BATCH)
            network.append(sum(engine.spent_ns) / 1e6 / _GUIDES_BATCH)
        apart = [all_ms - some_ms for all_ms, some_ms in zip(whole, network, strict=True)]
        frame_ms = statistics.median(whole[2:])
        return Besides(frame_ms, frame_ms - statistics.median(apart[2:]))


@dataclass(frozen=True, slots=True)
class Process:
    """A server process that is ready: the ``port`` it listens on and its process id (``pid``)."""

    port: int
    pid: int


@contextmanager
def serving(models_root: Path | str, **environ: str) -> Iterator[Process]:
    """Start ``lipwire serve`` with the avatars in ``models_root``, a folder or a store's URL, as a
    process on a free port; give the ``with`` block its port and process id when it is ready, and
    end it afterwards. A context manager. ``environ`` are environment variables (``LIPWIRE_...``)
    that override its configuration. Raises RuntimeError where it does not start."""
    command = ["-m", "lipwire", "serve", "--models-root", str(models_root), "--host", "127.0.0.1"]
    quiet = {"LIPWIRE_LOGGING__LOG_COMPOSITING_TIMES": "false"}
    with _process([*command, "--port", "0", "--json-logs"], quiet | environ) as process:
        yield process


@contextmanager
def _process(arguments: list[str], environ: dict[str, str]) -> Iterator[Process]:
    """A Python process that logs JSON lines and says so when it is ready."""
    with subprocess.Popen(
        python_command(*arguments),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environ},
    ) as process:
        assert process.stdout is not None  # as asked for
        giving_up = threading.Timer(_START_S, process.kill)
        giving_up.start()
        try:
            port = _port(process.stdout)
            giving_up.cancel()  # that was for starting alone
            yield Process(port, process.pid)
        finally:
            giving_up.cancel()
            process.terminate()
            process.communicate()


def _port(lines: Iterator[str]) -> int:
    seen = ""
    for line in lines:
        seen += line
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if entry.get("message") == "ready":
            return int(entry["facts"]["port"])
    raise RuntimeError(f"the server did not start: {seen[-500:]}")


@contextmanager
def _raw(port: int) -> Iterator[Callable[[bytes], bytes]]:
    """InferBatchComposite with messages as they are on the wire."""
    with open_channel(f"127.0.0.1:{port}", max_message_bytes=UNLIMITED_BYTES) as channel:
        call: Any = channel.unary_unary("/compositing.CompositingService/InferBatchComposite")
        yield lambda data: call(data, timeout=_TIMEOUT_S)


def _load(connection: CompositingConnection, names: Sequence[str], batch: int, rounds: int) -> Load:
    """``rounds`` requests of each client, all at the same time, after one that does not count."""
    answers: list[Composited] = []
    failures: list[BaseException] = []
    together = threading.Barrier(len(names) + 1)

    def speak(name: str) -> None:
        request = CompositeBatchRequest(
            model_id=name, audio_features=_window(), batch_size=batch, start_frame_idx=7
        )
        try:
            connection.composite(request, _TIMEOUT_S)
            together.wait()
            answers.extend(connection.composite(request, _TIMEOUT_S) for _ in range(rounds))
        except BaseException as error:
            failures.append(error)
            together.abort()

    threads = [threading.Thread(target=speak, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    with suppress(threading.BrokenBarrierError):  # what failed is raised below
        together.wait()
    begun_s = time.perf_counter()
    for thread in threads:
        thread.join()
    elapsed_s = time.perf_counter() - begun_s
    if failures:
        raise failures[0]
    return Load(
        clients=len(names),
        batch=batch,
        requests=len(answers),
        inference=Spread.of([answer.inference_ms for answer in answers]),
        compositing=Spread.of([answer.composite_ms for answer in answers]),
        overhead=Spread.of([answer.overhead_ms for answer in answers]),
        total=Spread.of([answer.elapsed_ms for answer in answers]),
        fps=len(answers) * batch / elapsed_s,
    )


def _window() -> bytes:
    random = np.random.default_rng(0)
    return random.standard_normal(AUDIO_WINDOW_SHAPE).astype(np.float32).tobytes()


def _write_avatars(
    root: Path, names: Sequence[str], size: tuple[int, int], widths: Widths | None
) -> None:
    """Packages in ``root``, compiled, so that no server has to; without ``widths`` their networks
    take about a millisecond."""
    for seed, name in enumerate(names):
        write_package(root / name, _FRAMES, size, widths or _NARROW, seed)
        if widths is None:
            write_tiny_unet(root / name / "checkpoint" / "model_best.onnx", seed=seed)
        Avatar.open(root / name, parts=frozenset({"jpeg"})).close()
