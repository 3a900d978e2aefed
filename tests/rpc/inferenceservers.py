"""Inference servers on loopback ports, whose networks are replaced by something predictable."""

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
from tests.rpc.plainbackend import PlainBackend
from tests.support.waiting import WAIT_S

from lipwire.domain import ANY_REVISION, Call, CropsNeeded, Float32Array, Revision, UInt8Array
from lipwire.rpc.backends import RemoteBackend, RetryPolicy
from lipwire.rpc.server.server import RpcServer, ServerOptions, inference_service, mouth_service
from lipwire.rpc.services.inference import InferenceServicer, MouthServicer
from lipwire.serving import BackendHealth, DrawnMouths, GpuStatus, MakeCrops, ModelStatus

QUICK = RetryPolicy(3, first_pause_s=0.02, longest_pause_s=0.1)


def shade(model_id: str, frame: int) -> int:
    return (sum(model_id.encode()) + 3 * frame) % 256


def drawn(model_id: str, first: int, count: int) -> UInt8Array:
    pixels = np.empty((count, 320, 320, 3), np.uint8)
    for index in range(count):
        pixels[index] = shade(model_id, first + index)
    return pixels


class Network(PlainBackend):
    """A backend in the server: draws one shade a frame, counts what it is asked for, and dawdles
    when told to."""

    def __init__(self) -> None:
        super().__init__(gpu_id=2)
        self.delay_s = 0.0
        self.asked: list[str] = []
        self.left_early = threading.Event()
        self.held: dict[str, int] = {}
        self.crops: list[UInt8Array | None] = []
        """What came with each request for mouths."""
        self.needs_crops = False
        self.live = (0, 0)
        """Live sessions, and how many would fit."""

    def _work(self, model_id: str, call: Call | None) -> None:
        self.asked.append(model_id)
        self.held[model_id] = self.held.get(model_id, 0) + 1
        super()._work(model_id, call)
        if self.delay_s:
            gone = threading.Event()
            assert call is not None
            call.on_end(gone.set)
            if gone.wait(self.delay_s):
                self.left_early.set()

    def mouths(
        self,
        model_id: str,
        first: int,
        windows: Float32Array,
        *,
        revision: Revision = ANY_REVISION,
        crops: MakeCrops | None = None,
        call: Call | None = None,
    ) -> DrawnMouths:
        self.revisions.append(revision)
        given = None if crops is None else crops()
        self.crops.append(given)
        if self.needs_crops and given is None:
            raise CropsNeeded("none of its frames are here")
        self._work(model_id, call)
        return DrawnMouths(drawn(model_id, first, len(windows)), self.gpu_id, 1.5)

    def load(self, model_id: str, *, call: Call | None = None) -> ModelStatus:
        self._work(model_id, call)
        return ModelStatus(model_id, self.gpu_id, 1000, 0, 0.0)

    def unload(self, model_id: str, *, call: Call | None = None) -> bool:
        return self.held.pop(model_id, None) is not None

    def models(self, model_id: str = "", *, call: Call | None = None) -> tuple[ModelStatus, ...]:
        return tuple(
            ModelStatus(name, self.gpu_id, 1000, uses, 0.5)
            for name, uses in self.held.items()
            if model_id in ("", name)
        )

    def health(self, *, call: Call | None = None) -> BackendHealth:
        gpu = GpuStatus(2, "NVIDIA H200", len(self.held), 150_000_000_000, 9_000_000_000, 0.25)
        return BackendHealth(True, 1, len(self.held), 100, "1.0", "", (gpu,), *self.live)


class Server:
    """An inference server on a loopback port."""

    def __init__(self, port: int = 0) -> None:
        self.network = Network()
        services = [
            inference_service(InferenceServicer(self.network, names=lambda: ())),
            mouth_service(MouthServicer(self.network)),
        ]
        options = ServerOptions(host="127.0.0.1", port=port, share_port=port != 0)
        self.rpc = RpcServer(services, options)
        self.rpc.start()
        self.url = f"127.0.0.1:{self.rpc.port}"

    def kill(self) -> None:
        self.rpc.stop()


@contextmanager
def backend_over(*servers: Server | str, **options: object) -> Iterator[RemoteBackend]:
    urls = [server if isinstance(server, str) else server.url for server in servers]
    options.setdefault("retries", QUICK)
    options.setdefault("check_every_s", 0.1)
    options.setdefault("timeout_s", WAIT_S)
    with RemoteBackend(urls, **options) as backend:  # type: ignore[arg-type]
        yield backend


def windows(count: int = 1) -> Float32Array:
    return np.zeros((count, 32, 16, 16), np.float32)


def ask(backend: RemoteBackend, model_id: str = "anna", call: Call | None = None) -> DrawnMouths:
    mouths = backend.mouths(model_id, 4, windows(2), call=call)
    np.testing.assert_array_equal(mouths.pixels, drawn(model_id, 4, 2))
    return mouths


def up(backend: RemoteBackend) -> int:
    """How many servers it knows to be there: before that, models do not go to their own."""
    return len(backend._servers.fleet.up())


@contextmanager
def black_hole() -> Iterator[str]:
    """An address that takes connections into its queue, and never says a word."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        with ExitStack() as stack:
            for _ in range(2):  # the queue is full: further connections get no answer at all
                filler = stack.enter_context(socket.socket())
                filler.setblocking(False)
                filler.connect_ex(listener.getsockname())
            yield f"127.0.0.1:{listener.getsockname()[1]}"
