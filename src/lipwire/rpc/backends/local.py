"""Mouths from networks on one device of this process: loaded when asked for, run in fair turns.

One registry entry is a network and the crops of its avatar, because neither is of use without the
other here:

    mouths ──▶ registry: pin the network (load it where it is not) ──▶ its crops of the frames
           ──▶ scheduler: a worker's turn ──▶ engine ──▶ mouths; the pin goes when the job is done

On a GPU that keeps crops it is the frames' numbers that go to the scheduler and the engine.
"""

import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, cast

import numpy as np
import numpy.typing as npt

import lipwire
from lipwire.avatars import Avatar
from lipwire.avatars.holdings import ItemStats, Loaded
from lipwire.avatars.registry import Registry
from lipwire.domain import (
    MOUTH_PX,
    AvatarChanged,
    DeadlineExceeded,
    Float32Array,
    InvalidInput,
    Unavailable,
    ping_pong,
)
from lipwire.engine import DeviceLost, Engine, Model, Request
from lipwire.engine.jobs import Job
from lipwire.engine.scheduler import Across, Scheduler
from lipwire.engine.wrapping import Form
from lipwire.rpc.backends.protocol import BackendHealth, FloatMouths, ModelStatus, Mouths
from lipwire.rpc.calls import Call, Cancelled, current


class Network:
    """A loaded network and the frames it draws on. Its crops are computed, its weights mapped."""

    __slots__ = (
        "__weakref__",
        "_engine",
        "_keeps_crops",
        "_model",
        "avatar",
        "device_bytes",
        "key",
        "size_bytes",
    )

    def __init__(self, avatar: Avatar, model: Model, engine: Engine) -> None:
        self._model: Model | None = model
        self._engine = engine
        self._keeps_crops = model.keeps_crops
        self.avatar: Final = avatar
        self.key: Final = NetworkKey(self, model.together)
        self.size_bytes: Final = model.weights_bytes + avatar.mapped_bytes
        """What is mapped for it: the weights, and the patches of the frames round the mouth.

        Pages of both come and go with use; this is what they come to when all are in memory. The
        session that avatars of one architecture share is not counted.
        """
        self.device_bytes: Final = model.device_bytes if engine.on_gpu else self.size_bytes
        """What it takes of the device where it runs: of a GPU the weights. Crops that are kept
        there are not counted: they take what is left."""

    @property
    def closed(self) -> bool:
        return self._model is None

    @property
    def warm(self) -> bool:
        """Whether a run need not wait for weights."""
        model = self._model
        return model is not None and model.warm

    @property
    def model(self) -> Model:
        """Raises Unavailable once it is closed."""
        model = self._model
        if model is None:
            raise Unavailable("the network was unloaded")
        return model

    def faces(self, first: int, count: int) -> npt.NDArray[Any]:
        """Frames ``first`` and on, as ``run_on`` takes them: their crops, or (count,) int64 numbers
        where the engine keeps crops."""
        if not self._keeps_crops:
            return self.crops(first, count)
        frames = self.avatar.frame_count
        return np.array([ping_pong(first + index, frames) for index in range(count)], np.int64)

    def crops(self, first: int, count: int) -> npt.NDArray[np.uint8]:
        """What it sees of frames ``first`` and on: (count, 320, 320, 3) uint8."""
        crops = np.empty((count, MOUTH_PX, MOUTH_PX, 3), np.uint8)
        for index in range(count):
            crops[index] = self.avatar.crop(first + index)
        return crops

    def close(self) -> None:
        """Let go of weights and frames, whoever still holds this. Runs under way finish."""
        model, self._model = self._model, None
        if model is not None:
            self._engine.unload(model)
        self.avatar.close()


class NetworkKey:
    """What a scheduler knows a network by. It remembers keys for long, so they hold nothing."""

    __slots__ = ("__weakref__", "_network", "together")

    def __init__(self, network: Network, together: int | None) -> None:
        self._network = weakref.ref(network)
        self.together: Final = together
        """As that of its model."""

    def network(self) -> Network:
        """Raises Unavailable where it is gone, which only happens when nobody waits for it."""
        network = self._network()
        if network is None:
            raise Unavailable("the network was unloaded")
        return network

    @property
    def group(self) -> int | None:
        """Networks of the same number can be run together now; None for one that cannot be, as one
        whose weights are on their way: nobody else is to wait for them."""
        network = self._network()
        return None if network is None or not network.warm else self.together


def load_network(engine: Engine, package: Path) -> Loaded[Network]:
    """The network of the avatar package in folder ``package``, compiled first where it has to be.

    Raises NotFound, AvatarInvalid, InvalidInput, StorageFailed, DeviceLost.
    """
    with ExitStack() as stack:
        avatar = stack.enter_context(Avatar.open(package))
        network = Network(avatar, engine.load(avatar.model_path, avatar), engine)
        stack.pop_all()
    return Loaded(network, network.size_bytes, network.close)


def run_on(engine: Engine) -> "Run":
    """What a scheduler of networks is to run."""

    def run(key: NetworkKey, faces: Any, windows: Float32Array) -> Any:
        network = key.network()
        if faces.ndim == 1:
            try:
                return engine.infer_frames(network.model, faces.tolist(), windows)
            except InvalidInput:
                if network.closed:  # meanwhile, and its avatar with it
                    raise Unavailable("the network was unloaded") from None
                raise
        infer = engine.infer if faces.dtype == np.uint8 else engine.infer_float
        return infer(network.model, faces, windows)

    return run


def run_across(engine: Engine) -> Across[NetworkKey]:
    """How a scheduler is to run frames of several networks at once."""

    def run(parts: list[tuple[NetworkKey, Any, Float32Array]]) -> list[Any]:
        networks = [key.network() for key, _, _ in parts]
        requests = [
            Request(network.model, faces.tolist() if faces.ndim == 1 else faces, windows)
            for network, (_, faces, windows) in zip(networks, parts, strict=True)
        ]
        return list(engine.infer_together(requests))

    return Across(lambda key: key.group, run)


Run = Callable[[NetworkKey, Any, Float32Array], Any]


class LocalBackend:
    """A backend over networks on one device of this process; a context manager.

        with (
            Engine(threads=1) as engine,
            Registry(lambda name: load_network(engine, catalog.path(name))) as networks,
            Scheduler(run_on(engine), workers=2, queue_size=50) as scheduler,
            LocalBackend(networks, scheduler, max_models=1000) as backend,
        ):
            mouths = backend.mouths("anna", 0, windows)

    It closes none of the three. A scheduler takes in more work than it has threads, so whoever
    calls bounds the calls. Raises DeviceLost, besides what a backend raises, where the device has
    gone.
    """

    def __init__(
        self,
        networks: Registry[Network],
        scheduler: Scheduler[NetworkKey],
        *,
        max_models: int,
        gpu_id: int = 0,
        gpu_count: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``clock`` is that of ``networks`` and of ``scheduler``; ``gpu_id`` is the device's number
        in answers, ``max_models`` and ``gpu_count`` are for people."""
        self._networks = networks
        self._scheduler = scheduler
        self._max_models = max_models
        self._gpu_id = gpu_id
        self._gpu_count = gpu_count
        self._clock = clock
        self._closed = False
        self._lost = ""
        """Why the device is given up; empty while it is not."""
        self._jobs: set[Job[NetworkKey]] = set()
        """Those that somebody waits for."""
        self._lock = threading.Lock()

    def mouths(
        self,
        model_id: str,
        first: int,
        windows: Float32Array,
        *,
        revision: str = "",
        timeout_s: float | None = None,
    ) -> Mouths:
        """See ``Backend.mouths``."""
        if first < 0:
            raise InvalidInput(f"first frame is {first}, allowed are 0 and above")
        pixels, inference_ms = self._run(
            model_id,
            "pixels",
            lambda network: network.faces(first, len(windows)),
            windows,
            revision,
            timeout_s,
        )
        return Mouths(pixels, self._gpu_id, inference_ms)

    def mouths_of(
        self,
        model_id: str,
        visual: Float32Array,
        windows: Float32Array,
        *,
        revision: str = "",
        timeout_s: float | None = None,
    ) -> FloatMouths:
        """See ``Backend.mouths_of``."""
        values, inference_ms = self._run(
            model_id, "floats", lambda _: visual, windows, revision, timeout_s
        )
        return FloatMouths(values, self._gpu_id, inference_ms)

    def load(self, model_id: str, *, timeout_s: float | None = None) -> ModelStatus:
        """See ``Backend.load``."""
        self._check_open()
        left_s = _left_s(timeout_s, current())
        self._networks.load(model_id, timeout_s=left_s)
        with self._networks.use(model_id, timeout_s=left_s) as network:
            size_bytes = network.size_bytes
        rows = (item for item in self._networks.stats().items if item.name == model_id)
        found = next(rows, None)
        if found is None:  # evicted again already
            return ModelStatus(model_id, self._gpu_id, size_bytes, 0, 0.0)
        return self._status(found)

    def unload(self, model_id: str, *, timeout_s: float | None = None) -> bool:
        """See ``Backend.unload``. Waits for nothing."""
        self._check_open()
        return self._networks.unload(model_id)

    def models(self, *, timeout_s: float | None = None) -> tuple[ModelStatus, ...]:
        """See ``Backend.models``."""
        self._check_open()
        items = sorted(self._networks.stats().items, key=lambda item: item.name)
        return tuple(self._status(item) for item in items)

    def health(self, *, timeout_s: float | None = None) -> BackendHealth:
        """See ``Backend.health``. A full queue is healthy: it says when to come back."""
        loaded = len(self._networks.stats().items)
        return BackendHealth(
            healthy=not self._closed and not self._lost,
            gpu_count=self._gpu_count,
            loaded_models=loaded,
            max_models=self._max_models,
            version=lipwire.__version__,
            detail="the server is stopping" if self._closed else self._lost,
        )

    def abandon(self, reason: str) -> None:
        """The device has gone: calls under way, whatever they wait for, and later ones raise
        DeviceLost with ``reason``. Waits for nothing."""
        with self._lock:
            self._lost = reason
            jobs = list(self._jobs)
        for job in jobs:
            job.cancel()

    def close(self) -> None:
        """See ``Backend.close``. Calls under way finish."""
        self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _run(
        self,
        model_id: str,
        form: Form,
        faces_of: Callable[[Network], npt.NDArray[Any]],
        windows: Float32Array,
        revision: str,
        timeout_s: float | None,
    ) -> tuple[Any, float]:
        """Mouths and the milliseconds that the network ran for them."""
        self._check_open()
        call = current()
        left_s = _left_s(timeout_s, call)
        deadline = None if left_s is None else self._clock() + left_s
        with ExitStack() as pinned:
            network = pinned.enter_context(
                self._networks.use(
                    model_id,
                    timeout_s=left_s,
                    suits=(lambda held: held.avatar.revision == revision) if revision else None,
                )
            )
            if revision not in ("", network.avatar.revision):
                raise AvatarChanged(
                    f"avatar {model_id} is here in revision {network.avatar.revision}; asked for is"
                    f" {revision}"
                )
            job = self._scheduler.submit(
                network.key, faces_of(network), windows, deadline=deadline, form=form
            )
            # Whoever is last lets go of the network: a run may outlast the one who asked for it.
            let_go = _once(pinned.pop_all().close)
            job.add_done_callback(lambda _: let_go())
        self._keep(job)
        if call is not None:
            call.on_end(lambda: _cancel(job))
        try:
            mouths = job.result(None if deadline is None else max(0.0, deadline - self._clock()))
        except CancelledError:
            if self._lost and not (call is not None and call.ended):
                raise DeviceLost(self._lost) from None
            raise Cancelled("the caller has gone") from None
        except TimeoutError:
            job.cancel()
            raise DeadlineExceeded(
                f"{len(windows)} frames were not done within {left_s:.3g} s"
            ) from None
        finally:
            # A future wakes who waits for it before it calls back: whoever has an answer may count
            # on the network being free to go.
            if job.done():
                let_go()
        return mouths, _ran_s(job) * 1000

    def _keep(self, job: Job[NetworkKey]) -> None:
        """Have ``abandon`` reach the job until it is done."""
        with self._lock:
            self._jobs.add(job)
            lost = self._lost
        job.add_done_callback(self._forget)
        if lost:
            job.cancel()

    def _forget(self, job: Future[Any]) -> None:
        with self._lock:
            self._jobs.discard(cast(Job[NetworkKey], job))

    def _status(self, item: ItemStats) -> ModelStatus:
        return ModelStatus(
            model_id=item.name,
            gpu_id=self._gpu_id,
            memory_bytes=item.bytes,
            use_count=item.uses,
            idle_s=0.0 if item.pins else max(0.0, self._clock() - item.last_used_s),
            in_use=item.pins,
        )

    def _check_open(self) -> None:
        if self._closed:
            raise Unavailable("the server is stopping")
        if self._lost:
            raise DeviceLost(self._lost)


def _cancel(job: Job[NetworkKey]) -> None:
    job.cancel()


def _once(action: Callable[[], None]) -> Callable[[], None]:
    """Does ``action`` when it is called first; whoever calls returns when it has been done."""
    lock = threading.Lock()
    done = False

    def act() -> None:
        nonlocal done
        with lock:
            if not done:
                action()
                done = True

    return act


def _ran_s(job: Job[NetworkKey]) -> float:
    """How long the network ran: on several workers side by side no longer than it took."""
    if job.started_s is None or job.finished_s is None:
        return job.service_s
    return min(job.service_s, job.finished_s - job.started_s)


def _left_s(timeout_s: float | None, call: Call | None) -> float | None:
    """What the caller has left, where it has a limit."""
    return call.remaining_s() if timeout_s is None and call is not None else timeout_s
