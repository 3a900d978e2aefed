"""Networks on the devices of this process: each is on one device, and requests for it run in fair
turns.

    a request's crops, or its frames' numbers ──▶ the device's scheduler: a worker's turn ──▶ engine

On a GPU that keeps crops the scheduler and the engine are given the frames' numbers. A network
whose device is lost is loaded on another one, and its requests go on there.
"""

import contextlib
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError, Future
from typing import Any, Final, NamedTuple

import numpy as np

from lipwire.avatars import Avatar
from lipwire.domain import (
    AUDIO_WINDOW_SHAPE,
    MOUTH_PX,
    AudioWindows,
    Call,
    Cancelled,
    DeadlineExceeded,
    Faces,
    Form,
    FrameNumbers,
    InvalidInput,
    LipwireError,
    Unavailable,
    Visual,
    ping_pong,
)
from lipwire.domain.tracing import current_trace, span_passed
from lipwire.engine import DeviceLost, Engine, GpuInfo, HotStats, Model
from lipwire.scheduling import Job, Scheduler
from lipwire.serving.backend import DrawnFloatMouths, DrawnMouths, MakeCrops
from lipwire.serving.networkfacts import CompiledNetwork, Running, Speed

_MEASURED_ROUNDS: Final = 4
"""Runs by which a network is measured that is asked for the first time; the first of them may
have to wait for weights, and a median leaves it out."""


class ServerDevice:
    """One device of a server, the processor or a GPU: an engine, and a scheduler whose workers run
    networks with it. Thread-safe. It closes neither engine nor scheduler. A scheduler accepts more
    requests than it has threads, so the caller has to limit how many requests there are at a time.
    """

    def __init__(
        self,
        engine: Engine,
        scheduler: "Scheduler[NetworkKey]",
        *,
        index: int = 0,
        gpu: GpuInfo | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``engine`` runs on the device. ``scheduler`` was made with ``run_on(engine)`` and the
        same ``clock``, which gives seconds. ``index`` is the device's number in answers, as CUDA
        counts, and ``gpu`` what is known of the GPU; for the processor they are 0 and None."""
        self.index: Final = index
        self.gpu: Final = gpu
        self._engine = engine
        self._scheduler = scheduler
        self._clock = clock
        self.lost = ""
        """Why the device is given up; empty while it is not."""
        self._waiting: set[Future[Any]] = set()
        """Loads and runs that somebody waits for."""
        self._on_unload: dict[Model, Callable[[], None]] = {}
        """Of each network that is here."""
        self._lock = threading.Lock()

    @property
    def on_gpu(self) -> bool:
        """Whether networks run on a GPU here, and have to be compiled for it beforehand."""
        return self._engine.on_gpu

    def load(
        self, compiled: CompiledNetwork, frames: Avatar | None, on_unload: Callable[[], None]
    ) -> Model:
        """Load the network in the folders of ``compiled``, and return it, ready to be run on this
        device.

        ``frames`` are its avatar's; None where this process has none. ``on_unload()`` is called
        once, when ``unload`` has freed the network. Raises NotFound or AvatarInvalid where the
        files are missing or damaged, Overloaded where a GPU is full, and DeviceLost where the
        device is lost, now or meanwhile.
        """
        if self.gpu is None:
            return self._load(compiled, frames, on_unload)
        # In a thread of its own: the driver of a GPU that fails may not come back.
        loading: Future[Model] = Future()

        def load() -> None:
            try:
                model = self._load(compiled, frames, on_unload)
            except BaseException as error:
                if loading.set_running_or_notify_cancel():
                    loading.set_exception(error)
                return
            if loading.set_running_or_notify_cancel():
                loading.set_result(model)
            else:
                self.unload(model)

        self._keep(loading)
        name = f"lipwire-load-gpu-{self.index}"
        threading.Thread(target=load, name=name, daemon=True).start()
        try:
            return loading.result()
        except CancelledError:
            raise DeviceLost(self.lost) from None

    def held_bytes(self, model: Model) -> int:
        """Return how many bytes the weights of ``model`` take: of the GPU, or of mapped memory
        where the device is the processor. Crops that a GPU keeps are not counted, since they take
        only what weights leave."""
        return model.device_bytes if self.on_gpu else model.weights_bytes

    def run(
        self,
        key: "NetworkKey",
        form: Form,
        faces: Faces,
        windows: AudioWindows,
        call: Call | None,
    ) -> tuple[Any, float]:
        """Have the scheduler run a network, and return (mouths, milliseconds that the network ran).

        ``key`` stands for the network. ``form`` says what goes in and comes out: "pixels" takes
        ``faces`` as crops, (N, 320, 320, 3) uint8, or as numbers of the avatar's frames, (N,)
        int64, and makes mouths of (N, 320, 320, 3) uint8; "floats" takes ``faces`` of (N, 6, 320,
        320) float32 and makes mouths of (N, 3, 320, 320) float32. ``windows``, (N, 32, 16, 16)
        float32, are the audio windows. ``call`` is the request that this is for: its deadline, its
        ``service`` ("live", "batch" or "render") and its tenant decide when the network is run, and
        when it ends the work is cancelled. None is as a request without a deadline, with the
        service "batch" and an empty tenant.

        Raises InvalidInput for arrays of another shape, AvatarInvalid where the network fails,
        Overloaded where too many requests wait, Unavailable where the network was unloaded,
        DeadlineExceeded and Cancelled where ``call`` ends before, and DeviceLost where the device
        is lost meanwhile, even where its driver hangs.
        """
        left_s = None if call is None else call.remaining_s()
        deadline = None if left_s is None else self._clock() + left_s
        job = self._scheduler.submit(
            key,
            faces,
            windows,
            deadline=deadline,
            form=form,
            service="batch" if call is None else call.service,
            tenant="" if call is None else call.tenant,
        )
        self._keep(job)
        if call is not None:
            call.on_end(lambda: job.cancel())
        try:
            mouths = job.result(None if deadline is None else max(0.0, deadline - self._clock()))
        except CancelledError:
            if self.lost and not (call is not None and call.ended):
                raise DeviceLost(self.lost) from None
            raise Cancelled("the caller has gone") from None
        except TimeoutError:
            raise DeadlineExceeded(
                f"{len(windows)} frames were not done within {left_s:.3g} s"
            ) from None
        finally:
            job.cancel()  # nothing where it is done
        ran_s = _ran_s(job)
        span_passed(
            "network",
            current_trace(),
            ran_s,
            device=self.index,
            frames=len(windows),
            queue_ms=(job.queue_s or 0.0) * 1000,
        )
        return mouths, ran_s * 1000

    def speed(self, key: "NetworkKey") -> Speed | None:
        """Return how fast the network of ``key`` was here: the median seconds for a frame in its
        runs of the last 60 s that were of class live or of one frame; None where there was none."""
        frame_s = self._scheduler.live_frame_s(key)
        return None if frame_s is None else Speed(self.index, frame_s, self.side_by_side)

    @property
    def loaded(self) -> Mapping[Running, int]:
        """How many networks are loaded here, by how they are run now."""
        with self._lock:
            models = list(self._on_unload)
        return Counter(map(Running.of, models))

    @property
    def hot(self) -> HotStats:
        """Statistics of the networks that run specialised here (by OpenVINO); all 0 on a GPU."""
        return self._engine.hot

    @property
    def side_by_side(self) -> int:
        """How many frames it computes at a time: a processor one with each worker, a GPU one."""
        return self._scheduler.side_by_side

    def expect_live(self, for_s: float) -> None:
        """Limit runs that are not for live sessions to about 40 ms each for ``for_s`` seconds from
        now, or for as long as is left from an earlier call."""
        self._scheduler.expect_live(for_s)

    def expect_use(self, model: Model) -> None:
        """Have ``model``, which a session is about to use, specialised soon: compiled by OpenVINO
        for this processor. Waits for nothing; does nothing on a GPU, or once it is unloaded."""
        if not self.on_gpu and not model.unloaded:
            with contextlib.suppress(Unavailable):  # unloaded meanwhile
                self._engine.prefetch(model)

    def abandon(self, reason: str) -> None:
        """Mark the device as lost: loads and runs under way, and later ones, raise DeviceLost with
        ``reason``. Waits for nothing."""
        with self._lock:
            self.lost = reason
            waiting = list(self._waiting)
        for future in waiting:
            future.cancel()

    def unload(self, model: Model) -> None:
        """Free what ``model`` takes of the device, then call the ``on_unload`` that ``load`` was
        given. Does not wait for runs under way, which finish. Unloading twice is allowed."""
        with self._lock:
            on_unload = self._on_unload.pop(model, None)
        if on_unload is not None:
            try:
                self._engine.unload(model)
            finally:
                on_unload()

    def give_up(self) -> None:
        """Stop the scheduler and unload all networks; to be called after ``abandon``. May take
        long, or never return where the device's driver hangs."""
        self._scheduler.drain(0.0)
        with self._lock:
            models = list(self._on_unload)
        for model in models:
            self.unload(model)

    def _load(
        self, compiled: CompiledNetwork, frames: Avatar | None, on_unload: Callable[[], None]
    ) -> Model:
        model = self._engine.load(
            compiled.folder, frames, for_gpu=compiled.for_gpu, source=compiled.source
        )
        with self._lock:
            self._on_unload[model] = on_unload
        return model

    def _keep(self, future: Future[Any]) -> None:
        """Have ``abandon`` reach it until it is done."""
        with self._lock:
            self._waiting.add(future)
            lost = self.lost
        future.add_done_callback(self._forget)
        if lost:
            future.cancel()

    def _forget(self, future: Future[Any]) -> None:
        with self._lock:
            self._waiting.discard(future)


class NetworkKey:
    """Stands for a loaded network in a scheduler's queue, which keeps keys for long: a key does not
    keep its network in memory."""

    __slots__ = ("__weakref__", "_model", "together")

    def __init__(self, model: Model) -> None:
        """``model`` is the network, which the key refers to weakly."""
        self._model = weakref.ref(model)
        self.together: Final = model.together
        """``Model.together``: networks that share it can be run in one batch; None for none."""

    def model(self) -> Model:
        """Return the network that the key stands for. Raises Unavailable where it was unloaded and
        nothing else refers to it any more."""
        model = self._model()
        if model is None:
            raise Unavailable("the network was unloaded")
        return model

    @property
    def group(self) -> int | None:
        """A number that is equal for networks which can be run in one batch now. None where this
        one cannot be run with others or was unloaded, or its weights are not on its device now."""
        model = self._model()
        return None if model is None or model.unloaded or not model.warm else self.together


class Placed(NamedTuple):
    """A network (``model``) that is loaded on a ``device``, the ``key`` that stands for it in the
    device's scheduler, and the ``revision`` of its file, as ``Revision.model`` has it."""

    device: ServerDevice
    model: Model
    key: NetworkKey
    revision: str = ""


class DeviceNetwork:
    """An avatar's network on one of a server's devices; when that device is lost, it is loaded on
    another. Thread-safe."""

    __slots__ = ("__weakref__", "_frames", "_lock", "_move", "_placed", "revision", "weights_bytes")

    def __init__(
        self,
        placed: Placed,
        frames: Avatar | None,
        move: Callable[[Placed, LipwireError], Placed],
    ) -> None:
        """``placed`` is the network on its first device. ``frames`` are the avatar's, where this
        process has them. ``move(placed, error)`` is called when a run has raised ``error``: it
        returns the network on another device where the device was lost, and raises ``error``
        otherwise."""
        self._placed: Placed | None = placed
        """None once it is closed."""
        self._frames = frames
        self._move = move
        self._lock = threading.Lock()
        self.revision: Final = placed.revision
        """The hash of the network's file, as ``Revision.model`` has it; empty where not known."""
        self.weights_bytes: Final = placed.model.weights_bytes
        """Size of the mapped weights, or what they take of a GPU. Their pages come and go with use;
        this is what they come to when all are in memory. The session that avatars of one
        architecture share is not counted."""

    def mouths(
        self,
        first: int,
        windows: AudioWindows,
        *,
        crops: MakeCrops | None = None,
        call: Call | None = None,
    ) -> DrawnMouths:
        """Return mouths for frames ``first``, ``first + 1`` and so on, one for each of ``windows``,
        (N, 32, 16, 16) float32.

        The network is shown the avatar's own frames, or what ``crops()`` returns where it is given,
        (N, 320, 320, 3) uint8. ``call`` is the request: its deadline, class and tenant count.
        Raises InvalidInput where there are neither frames nor ``crops``, or an array has another
        shape, AvatarInvalid where the network fails, Overloaded where too many requests wait,
        Unavailable once it is closed or no device is left, DeadlineExceeded and Cancelled where
        ``call`` ends before.
        """

        def faces(placed: Placed) -> Faces:
            if crops is not None:
                return crops()
            return self._own_faces(first, len(windows), placed.model.keeps_crops)

        pixels, index, inference_ms = self._run("pixels", faces, windows, call)
        return DrawnMouths(pixels, index, inference_ms, self.revision)

    def mouths_of(
        self, visual: Visual, windows: AudioWindows, *, call: Call | None = None
    ) -> DrawnFloatMouths:
        """Return the network's own output, (N, 3, 320, 320) float32, for its own input: ``visual``,
        (N, 6, 320, 320), the crop and the crop with the mouth blacked out, and ``windows``, (N, 32,
        16, 16), both float32.

        ``call`` is the request: its deadline, class and tenant count. Raises InvalidInput for
        arrays of another shape, AvatarInvalid where the network fails, Overloaded where too many
        requests wait, Unavailable once it is closed or no device is left, DeadlineExceeded and
        Cancelled where ``call`` ends before.
        """
        values, index, inference_ms = self._run("floats", lambda _: visual, windows, call)
        return DrawnFloatMouths(values, index, inference_ms)

    def speed(self) -> Speed | None:
        """Return how fast the network was on its device: the median seconds for a frame in its runs
        of the last 60 s that were live or of one frame; None without any, and once closed."""
        placed = self._placed
        return None if placed is None else placed.device.speed(placed.key)

    def measure(self, call: Call) -> Speed:
        """Run the network four times for windows of zeros, and return how fast that was. ``call``
        is the request that this is for, and has to be of class live. Each run is of as many frames
        as the device computes side by side: it is as busy as with all sessions that it carries.

        Raises Unavailable once it is closed or where nothing was measured, AvatarInvalid where the
        network fails, Overloaded where too many requests wait, DeadlineExceeded and Cancelled where
        ``call`` ends before.
        """
        for _ in range(_MEASURED_ROUNDS):
            placed = self._placed
            count = 1 if placed is None else placed.device.side_by_side
            windows = np.zeros((count, *AUDIO_WINDOW_SHAPE), np.float32)
            crops = np.zeros((count, MOUTH_PX, MOUTH_PX, 3), np.uint8)
            given = crops.copy if self._frames is None else None
            self.mouths(0, windows, crops=given, call=call)
        speed = self.speed()
        if speed is None:
            raise Unavailable("the network was unloaded while it was measured")
        return speed

    @property
    def running(self) -> Running | None:
        """How the network is run now; None once it is closed."""
        placed = self._placed
        return None if placed is None else Running.of(placed.model)

    def expect_use(self) -> None:
        """Have the network, which a session is about to use, specialised soon: compiled by OpenVINO
        for this processor. Waits for nothing; does nothing on a GPU, and once this is closed."""
        placed = self._placed
        if placed is not None:
            placed.device.expect_use(placed.model)

    def close(self) -> None:
        """Unload the network, and wait for nothing: runs under way finish, later ones raise
        Unavailable. Closing twice is allowed."""
        with self._lock:
            placed, self._placed = self._placed, None
        if placed is not None:
            placed.device.unload(placed.model)

    def _own_faces(self, first: int, count: int, by_number: bool) -> Faces:
        frames = self._frames
        if frames is None:
            raise InvalidInput("the network was loaded without its avatar's frames")
        if not by_number:
            return frames.crops(first, count)
        shown = [ping_pong(first + index, frames.frame_count) for index in range(count)]
        return np.array(shown, np.int64).view(FrameNumbers)

    def _run(
        self,
        form: Form,
        faces_on: Callable[[Placed], Faces],
        windows: AudioWindows,
        call: Call | None,
    ) -> tuple[Any, int, float]:
        """Mouths, the number of the device that made them, and the milliseconds of its runs."""
        while True:
            placed = self._placed
            if placed is None:
                raise Unavailable("the network was unloaded")
            try:
                mouths, ran_ms = placed.device.run(
                    placed.key, form, faces_on(placed), windows, call
                )
                return mouths, placed.device.index, ran_ms
            except LipwireError as error:
                self._go_on_elsewhere(placed, error)

    def _go_on_elsewhere(self, placed: Placed, error: LipwireError) -> None:
        with self._lock:
            if self._placed is placed:  # else it has moved meanwhile, or was closed
                self._placed = self._move(placed, error)


def run_on(engine: Engine) -> Callable[[NetworkKey, Any, AudioWindows], Any]:
    """Return the function that a scheduler calls to run a network with ``engine``.

    It takes (key, faces, windows): the key of the network, N faces, and windows of (N, 32, 16, 16)
    float32. The type of ``faces`` says what they are: ``FrameNumbers``, (N,) int64, are numbers of
    the avatar's frames, ``Visual``, (N, 6, 320, 320) float32, the network's own input, and any
    other array is crops, (N, 320, 320, 3) uint8. It returns mouths of (N, 3, 320, 320) float32 for
    ``Visual``, else of (N, 320, 320, 3) uint8. It raises InvalidInput for other shapes,
    AvatarInvalid where the network fails, Overloaded where a GPU has no room, Unavailable where the
    network was unloaded or the GPU failed, and RuntimeError where the engine is closed.
    """

    def run(key: NetworkKey, faces: Faces, windows: AudioWindows) -> Any:
        model = key.model()
        if isinstance(faces, Visual):
            return engine.infer_float(model, faces, windows)
        if not isinstance(faces, FrameNumbers):
            return engine.infer(model, faces, windows)
        try:
            return engine.infer_frames(model, faces.tolist(), windows)
        except InvalidInput:
            if model.unloaded:  # meanwhile, and its avatar with it
                raise Unavailable("the network was unloaded") from None
            raise

    return run


def _ran_s(job: Job[NetworkKey]) -> float:
    """How long the network ran: on several workers side by side no longer than it took."""
    if job.started_s is None or job.finished_s is None:
        return job.service_s
    return min(job.service_s, job.finished_s - job.started_s)
