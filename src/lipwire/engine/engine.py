"""Running networks, on the processor or a GPU: uint8 in and out."""

import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import numpy as np
import numpy.typing as npt

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
from lipwire.engine.checking import check_array, check_finite
from lipwire.engine.crops import CropStats
from lipwire.engine.devices import CPU, Device, cuda_problem
from lipwire.engine.faces import Frames
from lipwire.engine.gpu import Gpu, GpuMemoryUse, GpuRequest
from lipwire.engine.gpunetworks import MOST_FRAMES, GpuNetwork
from lipwire.engine.gpustorage import read_gpu_manifest
from lipwire.engine.inspection import OUTPUT_SHAPE, VISUAL_SHAPE
from lipwire.engine.memory import Memory
from lipwire.engine.optimising import runtime_key
from lipwire.engine.processor import Processor, ProcessorNetwork
from lipwire.engine.residency import ResidencyStats
from lipwire.engine.storage import Manifest, read_manifest
from lipwire.engine.tuning import Tuning
from lipwire.engine.wrapping import PIXELS_SHAPE, Form

MAX_THREADS: Final = 256

_Array = npt.NDArray[Any]
_LOG: Final = logging.getLogger(__name__)


class Model:
    """An avatar's network, ready to run. Made by ``Engine.load``; used with that engine only."""

    def __init__(
        self,
        manifest: Manifest,
        owner: object,
        network: GpuNetwork | ProcessorNetwork,
        frames: Frames | None,
        floats: ProcessorNetwork | None = None,
    ) -> None:
        """``floats`` runs the guide's form of a network whose GPU does not."""
        on_gpu = network if isinstance(network, GpuNetwork) else None
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
        self.in_kernels: Final = on_gpu is not None and on_gpu.program is not None
        """Whether pixels run in kernels of our own there; else ONNX Runtime runs all of it."""
        self.keeps_crops: Final = on_gpu is not None and on_gpu.crops is not None
        """Whether ``Engine.infer_frames`` finds crops on the GPU that were used before."""
        program = None if on_gpu is None else on_gpu.program
        self.together: Final = None if program is None else program.number
        """Models with the same number here can be run by one ``Engine.infer_together``; None where
        there is no such other."""
        self._resident = None if on_gpu is None else on_gpu.resident
        self._frames = frames
        self._unloaded = False
        self._owner = owner
        self._network = network
        self._floats = floats

    @property
    def warm(self) -> bool:
        """Whether its weights are where it runs, so that a run need not wait for them."""
        return self._resident is None or self._resident.region is not None


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """What ``Engine.infer`` or ``Engine.infer_frames`` is given."""

    model: Model
    faces: UInt8Array | Sequence[int]
    """Crops, or numbers of frames."""
    windows: Float32Array


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
        DependencyMissing where CUDA cannot be used, neither by ONNX Runtime nor by kernels of our
        own, Unavailable where there is no such GPU.
        """
        if threads is not None and (
            not isinstance(threads, int) or not 1 <= threads <= MAX_THREADS
        ):
            raise InvalidInput(f"threads is {threads!r}, allowed are 1 to {MAX_THREADS}")
        self._device = device
        self._closed = False
        self._mark = object()
        if memory is None and device.kind == "cuda":
            memory = _cuda_memory(device, tuning or Tuning())
        self._processor = Processor(threads=threads)
        self._gpu = None if memory is None else Gpu(memory, tuning or Tuning(), threads=threads)

    @property
    def session_count(self) -> int:
        """ONNX Runtime sessions alive on the processor: one for each architecture and form in
        use."""
        return self._processor.session_count

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
        network: GpuNetwork | ProcessorNetwork | None = None
        if self._gpu is not None:
            gpu_manifest = read_gpu_manifest(compiled, manifest.weights_bytes)
            network = self._gpu.load(compiled, gpu_manifest, manifest.fixed_batch, frames)
        self._check_open()
        floats = None
        if network is None:
            network = self._processor.load(compiled, manifest)
        elif not self._own_gpu().runs("floats"):
            floats = self._processor.load(compiled, manifest, "floats")
        return Model(manifest, self._mark, network, frames, floats)

    def unload(self, model: Model) -> None:
        """Give up what ``model`` takes: at once, or when the last run of it is over. Later runs
        raise Unavailable. Twice is fine; a model that is merely forgotten is given up later."""
        if model._unloaded:
            return
        model._unloaded = True
        for network in (model._network, model._floats):
            if isinstance(network, ProcessorNetwork):
                self._processor.unload(network)
            elif network is not None:
                self._own_gpu().unload(network)

    def prefetch(self, model: Model) -> bool:
        """Bring ``model`` to where it runs, before it is asked for; False where there is no room.

        Worth a call when somebody begins to listen. On the processor there is nothing to do.
        Raises Unavailable where the GPU has failed.
        """
        self._check_usable(model)
        network = model._network
        return isinstance(network, ProcessorNetwork) or self._own_gpu().prefetch(network)

    def infer(self, model: Model, crops: UInt8Array, windows: Float32Array) -> UInt8Array:
        """Mouths (N, 320, 320, 3) uint8 from the avatar's crops and the speech, N at least 1.

        ``crops`` (N, 320, 320, 3) uint8 in the avatar's colour order, which is also that of the
        result; ``windows`` (N, 32, 16, 16) float32. Rounded to the nearest, ties to even. Raises
        InvalidInput for anything else, AvatarInvalid where the network fails.
        """
        batch = check_array("crops", crops, PIXELS_SHAPE, np.dtype(np.uint8))
        check_array("windows", windows, AUDIO_WINDOW_SHAPE, np.dtype(np.float32), batch)
        check_finite("windows", windows)
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
        frames, shown = _shown(model, numbers)
        network = model._network
        if isinstance(network, ProcessorNetwork):
            return self.infer(model, np.stack([frames.crop(number) for number in shown]), windows)
        check_array("windows", windows, AUDIO_WINDOW_SHAPE, np.dtype(np.float32), len(shown))
        check_finite("windows", windows)
        self._check_usable(model)
        mouths = np.empty((len(shown), *PIXELS_SHAPE), np.uint8)
        self._own_gpu().run_frames(network, shown, windows, mouths)
        return mouths

    def infer_together(self, requests: Sequence[Request]) -> list[UInt8Array]:
        """The mouths of each of ``requests``, of models that are the same ``together``, made in one
        batch on the GPU. There are at most MOST_FRAMES frames in all.

        Raises as ``infer`` and ``infer_frames`` do, for whichever request it is.
        """
        numbers = {request.model.together for request in requests}
        if len(numbers) != 1 or None in numbers:
            raise InvalidInput(f"models are of {numbers} and cannot be run together")
        checked: list[UInt8Array | Sequence[int]] = []
        for request in requests:
            faces = request.faces
            if isinstance(faces, np.ndarray):
                count = check_array("crops", faces, PIXELS_SHAPE, np.dtype(np.uint8))
            else:
                faces = _shown(request.model, faces)[1]
                count = len(faces)
            windows = request.windows
            check_array("windows", windows, AUDIO_WINDOW_SHAPE, np.dtype(np.float32), count)
            check_finite("windows", windows)
            self._check_usable(request.model)
            checked.append(faces)
        frames = sum(len(faces) for faces in checked)
        if frames > MOST_FRAMES:
            raise InvalidInput(f"there are {frames} frames, allowed together are {MOST_FRAMES}")
        made: list[UInt8Array] = []
        given: list[GpuRequest] = []
        for request, faces in zip(requests, checked, strict=True):
            made.append(np.empty((len(faces), *PIXELS_SHAPE), np.uint8))
            network = request.model._network
            assert isinstance(network, GpuNetwork)  # as together says
            given.append(GpuRequest(network, faces, request.windows, made[-1]))
        self._own_gpu().run_together(given)
        return made

    def infer_float(
        self, model: Model, visual: Float32Array, windows: Float32Array
    ) -> Float32Array:
        """The guide's form: what the network itself takes and makes, N at least 1.

        ``visual`` (N, 6, 320, 320) float32, by custom in [0, 1]: the crop, and the crop with the
        mask black; ``windows`` (N, 32, 16, 16) float32. Returns (N, 3, 320, 320) float32. Raises
        InvalidInput for anything else, AvatarInvalid where the network fails.
        """
        batch = check_array("visual", visual, VISUAL_SHAPE, np.dtype(np.float32))
        check_array("windows", windows, AUDIO_WINDOW_SHAPE, np.dtype(np.float32), batch)
        check_finite("visual", visual)
        check_finite("windows", windows)
        mouths = np.empty((batch, *OUTPUT_SHAPE), np.float32)
        self._run(model, "floats", visual, windows, mouths)
        return mouths

    def close(self) -> None:
        """Let go of all sessions and weights. Calls under way finish; later ones raise."""
        self._closed = True
        self._processor.close()
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
        self._check_usable(model)
        network = model._network
        if form == "floats" and model._floats is not None:
            network = model._floats
        if isinstance(network, ProcessorNetwork):
            self._processor.run(network, form, face, windows, mouth)
        else:
            self._own_gpu().run(network, form, face, windows, mouth)

    def _own_gpu(self) -> Gpu:
        assert self._gpu is not None  # a network that is on a GPU was loaded by it
        return self._gpu

    def _check_usable(self, model: Model) -> None:
        self._check_open()
        if model._owner is not self._mark:
            raise RuntimeError("the model was loaded by another engine")
        if model._unloaded:
            raise Unavailable("the network was unloaded")

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("the engine is closed")


def _cuda_memory(device: Device, tuning: Tuning) -> Memory:
    from lipwire.engine.cuda import CudaMemory
    from lipwire.engine.cudaprograms import kernels_problem

    problem = cuda_problem(device)
    if problem is None:
        return CudaMemory(device)
    if tuning.kernels and tuning.precision == "half" and kernels_problem(device) is None:
        _LOG.warning(
            "%s: networks that kernels of Lipwire's own do not run, and floats instead of pixels,"
            " run on the processor: %s",
            device,
            problem,
        )
        return CudaMemory(device)
    with suppress(DependencyMissing):
        CudaMemory(device)  # raises DeviceLost where it is this GPU alone
    raise DependencyMissing(f"{device} cannot be used: {problem}")


def _shown(model: Model, numbers: Sequence[int]) -> tuple[Frames, list[int]]:
    """The frames that ``numbers`` are shown by. Raises InvalidInput."""
    frames = model._frames
    if frames is None:
        raise InvalidInput("the network was loaded without its avatar's frames")
    if len(numbers) < 1 or min(numbers) < 0:
        raise InvalidInput(
            f"frame numbers are {list(numbers)[:4]}; wanted are one and more, from 0 on"
        )
    return frames, [ping_pong(int(number), frames.frame_count) for number in numbers]
