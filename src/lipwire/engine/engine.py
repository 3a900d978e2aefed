"""Running networks: shared sessions, mapped weights, uint8 in and out.

An avatar's weights are never read into memory of their own: they are views of a mapped file, bound
to the inputs of a session that all avatars of the architecture share. So a second avatar costs the
pages of its weights that the system keeps in its page cache, and those are shared by every process
that maps the file.
"""

import threading
import weakref
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnxruntime

from lipwire.domain import (
    AUDIO_WINDOW_SHAPE,
    AvatarInvalid,
    DependencyMissing,
    Float32Array,
    InvalidInput,
    UInt8Array,
    Unavailable,
    ping_pong,
)
from lipwire.engine.crops import CropStats, Frames
from lipwire.engine.devices import (
    CPU,
    RUNTIME_ERRORS,
    Device,
    Optimisation,
    cuda_problem,
    open_session,
    session_options,
)
from lipwire.engine.gpu import Gpu, GpuMemoryUse
from lipwire.engine.gpunetworks import GpuNetwork
from lipwire.engine.gpustorage import read_gpu_manifest
from lipwire.engine.inspection import OUTPUT_SHAPE, VISUAL_SHAPE
from lipwire.engine.memory import Memory
from lipwire.engine.optimising import runtime_key
from lipwire.engine.residency import ResidencyStats
from lipwire.engine.sessions import SessionPool, SharedSession
from lipwire.engine.source import first_line
from lipwire.engine.storage import Manifest, map_weights, read_graph, read_manifest, weight_views
from lipwire.engine.tuning import Tuning
from lipwire.engine.wrapping import FACE, MOUTH, PIXELS_SHAPE, SPEECH, Form

FRAMES_PER_RUN: Final = 1
"""Frames in one run of a session whose batch is open. On a processor one is quickest, because its
activations stay nearest (per frame, one core: batches of 2, 4 and 8 take 4, 5 and 12 % longer at
the published widths, 7, 10 and 20 % at the mobile ones), and it holds the least memory."""

MAX_THREADS: Final = 256

_Array = npt.NDArray[Any]


class _Lane:
    """One call's place: a session with a model's weights bound. Used by one thread at a time."""

    __slots__ = ("_binding", "_session")

    def __init__(self, session: SharedSession, weights: Mapping[str, Any]) -> None:
        self._session = session
        self._binding = session.new_binding()
        for name, value in weights.items():
            self._binding.bind_ortvalue_input(name, value)

    def run(self, face: _Array, speech: Float32Array, mouth: _Array) -> None:
        """Fill ``mouth``; all three are contiguous and of the session's shapes."""
        binding = self._binding
        for name, array in ((FACE, face), (SPEECH, speech)):
            binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        binding.bind_output(MOUTH, "cpu", 0, mouth.dtype, mouth.shape, mouth.ctypes.data)
        self._session.run(binding)


class _ReadyForm:
    """One form of one model: its session, its weights, and the lanes that are free."""

    __slots__ = ("_free", "_session", "_weights")

    def __init__(self, session: SharedSession, weights: Mapping[str, Any]) -> None:
        self._session = session
        self._weights = weights
        self._free: deque[_Lane] = deque()

    def run(self, face: _Array, speech: Float32Array, mouth: _Array, step: int) -> None:
        """Run ``face`` and ``speech`` in pieces of ``step`` frames into ``mouth``."""
        try:
            lane = self._free.pop()
        except IndexError:
            lane = _Lane(self._session, self._weights)
        for start in range(0, len(face), step):
            piece = slice(start, start + step)
            lane.run(face[piece], speech[piece], mouth[piece])
        # A lane that failed is not used again.
        self._free.append(lane)


class Model:
    """An avatar's network, ready to run. Made by ``Engine.load``; used with that engine only."""

    def __init__(
        self,
        folder: Path,
        manifest: Manifest,
        owner: object,
        on_gpu: GpuNetwork | None,
        frames: Frames | None,
    ) -> None:
        self.fixed_batch: Final = manifest.fixed_batch
        """Frames that the network takes at once, no more and no fewer; None where any number."""
        self.parameters: Final = manifest.parameters
        self.shared: Final = all(graph.shared for graph in manifest.graphs.values())
        """Whether avatars of the same architecture share its sessions."""
        self.weights_bytes: Final = (
            manifest.weights_bytes if on_gpu is None else on_gpu.resident.size_bytes
        )
        """Size of the mapped weights; on a GPU, of what they take of its memory."""
        self.device_bytes: Final = 0 if on_gpu is None else on_gpu.resident.size_bytes
        """What the weights take of a GPU; 0 where it runs on the processor."""
        self.precision: Final = "single" if on_gpu is None else on_gpu.precision
        """``half`` only on a GPU."""
        self.on_gpu: Final = on_gpu is not None
        """Whether it runs there; what has no form for GPUs runs on the processor."""
        self.keeps_crops: Final = on_gpu is not None and on_gpu.crops is not None
        """Whether ``Engine.infer_frames`` finds crops on the GPU that were used before."""
        self._frames = frames
        self._unloaded = False
        self._owner = owner
        self._folder = folder
        self._stored = dict(manifest.graphs)
        self._on_gpu = on_gpu
        # A GPU's weights come from files of their own; these are not even read ahead.
        self._mapped = map_weights(folder, manifest) if on_gpu is None else None
        self._forms: dict[Form, _ReadyForm] = {}
        self._lock = threading.Lock()


class Engine:
    """Runs the networks of many avatars; a context manager, safe to use from several threads.

    >>> with Engine(threads=2) as engine:
    ...     model = engine.load(compiled_folder)
    ...     mouths = engine.infer(model, crops, windows)
    """

    def __init__(
        self,
        *,
        threads: int | None = None,
        device: Device = CPU,
        tuning: Tuning | None = None,
        memory: Memory | None = None,
    ) -> None:
        """``threads`` is how many cores one call may use; None for all of them.

        ``tuning`` is for GPUs. ``memory`` is that of ``device`` where it is to be another than its
        own: given ``HostMemory``, the processor runs what a GPU would. Raises InvalidInput;
        DependencyMissing where CUDA cannot be used, Unavailable where there is no such GPU.
        """
        if threads is not None and (
            not isinstance(threads, int) or not 1 <= threads <= MAX_THREADS
        ):
            raise InvalidInput(f"threads is {threads!r}, allowed are 1 to {MAX_THREADS}")
        self._threads = threads
        self._device = device
        self._sessions = SessionPool()
        self._models: weakref.WeakSet[Model] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._closed = False
        self._mark = object()
        if memory is None and device.kind == "cuda":
            memory = _cuda_memory(device)
        self._gpu = None if memory is None else Gpu(memory, tuning or Tuning(), threads=threads)

    @property
    def session_count(self) -> int:
        """ONNX Runtime sessions alive on the processor: one for each architecture and form in
        use."""
        return len(self._sessions)

    @property
    def device(self) -> Device:
        return self._device

    @property
    def on_gpu(self) -> bool:
        """Whether networks run on a GPU, those that have a form for it."""
        return self._gpu is not None

    @property
    def resident_bytes(self) -> int:
        """Device memory that weights of networks take now; 0 on the processor."""
        return 0 if self._gpu is None else self._gpu.stats.device_bytes

    @property
    def residency(self) -> ResidencyStats | None:
        """Whose weights are on the GPU and what came and went; None on the processor."""
        return None if self._gpu is None else self._gpu.stats

    @property
    def crops(self) -> CropStats | None:
        """Which crops are on the GPU and what came and went; None on the processor."""
        return None if self._gpu is None else self._gpu.crop_stats

    @property
    def memory_use(self) -> GpuMemoryUse | None:
        """What is taken of the GPU now, and for what; None on the processor."""
        return None if self._gpu is None else self._gpu.memory_use

    def load(self, compiled: Path, frames: Frames | None = None) -> Model:
        """Open a folder that ``compile_model`` filled; takes milliseconds and copies no weights.

        On a GPU they are copied there, where there is room for them. Models may come and go there
        at any time; they are brought back when they are used. ``frames`` are those of the avatar,
        for ``infer_frames``.

        The files must stay as they are while the model is in use. Raises NotFound where the folder
        holds no compiled model, AvatarInvalid where it is damaged or was compiled for another
        machine or version.
        """
        manifest = read_manifest(compiled)
        if manifest.runtime != runtime_key():
            raise AvatarInvalid(
                f"compiled for {manifest.runtime[:80]!r}, needed is {runtime_key()!r}: compile the"
                " avatar again"
            )
        on_gpu = None
        if self._gpu is not None:
            gpu_manifest = read_gpu_manifest(compiled, manifest.weights_bytes)
            on_gpu = self._gpu.load(compiled, gpu_manifest, manifest.fixed_batch, frames)
        model = Model(compiled, manifest, self._mark, on_gpu, frames)
        with self._lock:
            self._check_open()
            self._models.add(model)
        if on_gpu is None:
            self._form(model, "pixels")
        return model

    def unload(self, model: Model) -> None:
        """Give up what ``model`` takes: at once, or when the last run of it is over. Later runs
        raise Unavailable. Twice is fine; a model that is merely forgotten is given up later."""
        if model._unloaded:
            return
        model._unloaded = True
        with self._lock:
            self._models.discard(model)
        with model._lock:
            model._forms.clear()
            model._mapped = None
        if model._on_gpu is not None and self._gpu is not None:
            self._gpu.unload(model._on_gpu)

    def prefetch(self, model: Model) -> bool:
        """Bring ``model`` to where it runs, before it is asked for; False where there is no room.

        Worth a call when somebody begins to listen. On the processor there is nothing to do.
        Raises Unavailable where the GPU has failed.
        """
        self._check_usable(model)
        if model._on_gpu is None or self._gpu is None:
            return True
        return self._gpu.prefetch(model._on_gpu)

    def infer(self, model: Model, crops: UInt8Array, windows: Float32Array) -> UInt8Array:
        """Mouths (N, 320, 320, 3) uint8 from the avatar's crops and the speech, N at least 1.

        ``crops`` (N, 320, 320, 3) uint8 in the avatar's colour order, which is also that of the
        result; ``windows`` (N, 32, 16, 16) float32. Rounded to the nearest, ties to even. Raises
        InvalidInput for anything else, AvatarInvalid where the network fails.
        """
        batch = _check("crops", crops, PIXELS_SHAPE, np.dtype(np.uint8))
        _check("windows", windows, AUDIO_WINDOW_SHAPE, np.dtype(np.float32), batch)
        _check_finite("windows", windows)
        mouths = np.empty((batch, *PIXELS_SHAPE), np.uint8)
        self._run(model, "pixels", crops, windows, mouths)
        return mouths

    def infer_frames(
        self, model: Model, numbers: Sequence[int], windows: Float32Array
    ) -> UInt8Array:
        """As ``infer``, for the crops of frames ``numbers`` of the avatar whose ``frames`` the
        model was loaded with; past its last frame they run back and forth.

        On a GPU a crop is brought there when it is first used and kept while there is room. Raises
        InvalidInput where there are no frames or a number is below 0, what ``Frames.crop`` raises,
        and as ``infer``.
        """
        frames = model._frames
        if frames is None:
            raise InvalidInput("the network was loaded without its avatar's frames")
        if len(numbers) < 1 or min(numbers) < 0:
            raise InvalidInput(
                f"frame numbers are {list(numbers)[:4]}; wanted are one and more, from 0 on"
            )
        shown = [ping_pong(int(number), frames.frame_count) for number in numbers]
        if not model.on_gpu or self._gpu is None:
            return self.infer(model, np.stack([frames.crop(number) for number in shown]), windows)
        _check("windows", windows, AUDIO_WINDOW_SHAPE, np.dtype(np.float32), len(shown))
        _check_finite("windows", windows)
        self._check_usable(model)
        assert model._on_gpu is not None  # as on_gpu says
        mouths = np.empty((len(shown), *PIXELS_SHAPE), np.uint8)
        self._gpu.run_frames(model._on_gpu, shown, windows, mouths)
        return mouths

    def infer_float(
        self, model: Model, visual: Float32Array, windows: Float32Array
    ) -> Float32Array:
        """The guide's form: what the network itself takes and makes, N at least 1.

        ``visual`` (N, 6, 320, 320) float32, by custom in [0, 1]: the crop, and the crop with the
        mask black; ``windows`` (N, 32, 16, 16) float32. Returns (N, 3, 320, 320) float32. Raises
        InvalidInput for anything else, AvatarInvalid where the network fails.
        """
        batch = _check("visual", visual, VISUAL_SHAPE, np.dtype(np.float32))
        _check("windows", windows, AUDIO_WINDOW_SHAPE, np.dtype(np.float32), batch)
        _check_finite("visual", visual)
        _check_finite("windows", windows)
        mouths = np.empty((batch, *OUTPUT_SHAPE), np.float32)
        self._run(model, "floats", visual, windows, mouths)
        return mouths

    def close(self) -> None:
        """Let go of all sessions and weights. Calls under way finish; later ones raise."""
        with self._lock:
            self._closed = True
            models = list(self._models)
            self._models.clear()
        for model in models:
            with model._lock:
                model._forms.clear()
                model._mapped = None
        if self._gpu is not None:
            self._gpu.close()

    def __enter__(self) -> "Engine":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _run(
        self, model: Model, form: Form, face: _Array, windows: Float32Array, mouth: _Array
    ) -> None:
        if model._on_gpu is not None and self._gpu is not None:
            self._check_usable(model)
            self._gpu.run(model._on_gpu, form, face, windows, mouth)
            return
        ready = self._form(model, form)
        face, windows = np.ascontiguousarray(face), np.ascontiguousarray(windows)
        batch = len(face)
        step = model.fixed_batch or FRAMES_PER_RUN
        try:
            whole = batch if model.fixed_batch is None else batch - batch % step
            if whole:
                ready.run(face[:whole], windows[:whole], mouth[:whole], step)
            if whole < batch:
                padded = np.empty((step, *mouth.shape[1:]), mouth.dtype)
                ready.run(_padded(face[whole:], step), _padded(windows[whole:], step), padded, step)
                mouth[whole:] = padded[: batch - whole]
        except RUNTIME_ERRORS as error:
            raise AvatarInvalid(f"the network failed: {first_line(error)}") from None

    def _form(self, model: Model, form: Form) -> _ReadyForm:
        """The form of ``model`` that is asked for, made ready on the first call."""
        self._check_usable(model)
        ready = model._forms.get(form)
        if ready is not None:
            return ready
        with model._lock:
            ready = model._forms.get(form)
            if ready is None:
                self._check_usable(model)
                ready = self._make_ready(model, form)
                model._forms[form] = ready
                del model._stored[form]  # for thousands of avatars, 50 KB each
        return ready

    def _make_ready(self, model: Model, form: Form) -> _ReadyForm:
        stored = model._stored[form]
        graph = read_graph(model._folder, stored)

        def make() -> Any:
            optimisation: Optimisation = "none" if stored.shared else "full"
            options = session_options(threads=self._threads, optimisation=optimisation)
            try:
                return open_session(graph, options, self._device)
            except RUNTIME_ERRORS as error:
                raise AvatarInvalid(
                    f"compiled model: {stored.file} cannot be loaded: {first_line(error)}"
                ) from None

        # Graphs of equal content share a session; a graph with its weights inside equals no other.
        session = self._sessions.get(f"{form}-{stored.shared}-{stored.sha256}", make)
        weights = {} if model._mapped is None else weight_views(model._mapped, stored)
        values = {
            name: onnxruntime.OrtValue.ortvalue_from_numpy(view) for name, view in weights.items()
        }
        return _ReadyForm(session, values)

    def _check_usable(self, model: Model) -> None:
        self._check_open()
        if model._owner is not self._mark:
            raise RuntimeError("the model was loaded by another engine")
        if model._unloaded:
            raise Unavailable("the network was unloaded")

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("the engine is closed")


def _cuda_memory(device: Device) -> Memory:
    from lipwire.engine.cuda import CudaMemory

    problem = cuda_problem(device)
    if problem is None:
        return CudaMemory(device)
    with suppress(DependencyMissing):
        CudaMemory(device)  # raises DeviceLost where it is this GPU alone
    raise DependencyMissing(f"{device} cannot be used: {problem}")


def _check(
    name: str,
    array: _Array,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    batch: int | None = None,
) -> int:
    """Refuse an array of another shape or type; returns its batch."""
    first = "N" if batch is None else str(batch)
    wanted = f"({', '.join((first, *map(str, shape)))}) {dtype}"
    if not isinstance(array, np.ndarray):
        raise InvalidInput(f"{name} is a {type(array).__name__}, wanted is {wanted}")
    if array.dtype != dtype or array.ndim != len(shape) + 1 or array.shape[1:] != shape:
        raise InvalidInput(f"{name} is {array.shape} {array.dtype}, wanted is {wanted}")
    if len(array) < 1 or (batch is not None and len(array) != batch):
        raise InvalidInput(f"{name} holds {len(array)} frames, wanted is {wanted}")
    return len(array)


def _check_finite(name: str, values: Float32Array) -> None:
    # The largest and the smallest say it all, without an array of booleans: NaN wins in both.
    if not (np.isfinite(values.max()) and np.isfinite(values.min())):
        raise InvalidInput(f"{name} holds NaN or infinite values, wanted are finite ones")


def _padded(array: _Array, frames: int) -> _Array:
    """``array`` with its last frame repeated until there are ``frames``."""
    return np.concatenate([array, np.repeat(array[-1:], frames - len(array), axis=0)])
