"""Running networks, on the processor or a GPU: uint8 in and out."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np
import numpy.typing as npt

from lipwire.domain import (
    AUDIO_WINDOW_SHAPE,
    AudioWindows,
    AvatarInvalid,
    Crops,
    Float32Array,
    FloatMouths,
    Form,
    InvalidInput,
    Mouths,
    Unavailable,
    ping_pong,
)
from lipwire.domain.arrays import check_array, check_finite
from lipwire.domain.closing import Closing
from lipwire.engine.cpu.processor import Processor, ProcessorNetwork
from lipwire.engine.device import CPU, Device
from lipwire.engine.forms import OUTPUT_SHAPE, PIXELS_SHAPE, VISUAL_SHAPE
from lipwire.engine.model import Model, Request
from lipwire.engine.runner import Frames, Network, NetworkRequest, Runner
from lipwire.engine.special.hot import HotStats, HotTier
from lipwire.engine.store.modelfiles import read_manifest
from lipwire.engine.store.runtimekey import runtime_key
from lipwire.engine.tuning import MOST_FRAMES, Tuning
from lipwire.engine.usage import CropStats, GpuMemoryUse, WeightsStats

if TYPE_CHECKING:
    from lipwire.engine.gpu.gpunetwork import GpuNetwork
    from lipwire.engine.gpu.gpurunner import Gpu
    from lipwire.engine.gpu.memory.devicememory import Memory

MAX_THREADS: Final = 256

_Array = npt.NDArray[Any]


class Engine(Closing):
    """Runs the networks of many avatars on one device; a context manager, safe to use from several
    threads.

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
        memory: "Memory | None" = None,
        hot: HotTier | None = None,
    ) -> None:
        """``device`` is what networks run on, and ``threads`` how many cores one call may use, 1 to
        256; None for all of them. ``tuning`` says how a GPU is used; None for the defaults. ``hot``
        specialises networks that are used much: on the processor they then run in bfloat16, which
        is faster, and their mouths differ a little. It is closed with the engine. With None
        networks run in float32 there, except after ``specialise``. ``memory`` is used in place of
        the memory of ``device``; None for the device's own. It may be an object that keeps
        everything in the host's memory: then the processor computes what a GPU would.

        Raises InvalidInput where ``threads`` is out of range, DependencyMissing where CUDA cannot
        be used, neither by ONNX Runtime nor by Lipwire's own kernels, and Unavailable where there
        is no such GPU.
        """
        if threads is not None and (
            not isinstance(threads, int) or not 1 <= threads <= MAX_THREADS
        ):
            raise InvalidInput(f"threads is {threads!r}, allowed are 1 to {MAX_THREADS}")
        self._device = device
        self._closed = False
        self._mark = object()
        self._processor = Processor(threads=threads, hot=hot)
        self._gpu: Gpu | None = None
        if memory is not None or device.kind == "cuda":
            self._gpu = _open_gpu(device, tuning or Tuning(), memory, threads)

    @property
    def session_count(self) -> int:
        """Number of open ONNX Runtime sessions on the processor: one for each architecture
        (networks with equal graphs) and form ("pixels" or "floats") in use."""
        return self._processor.session_count

    @property
    def device(self) -> Device:
        """The device that the engine was made for. Networks that were not compiled for a GPU run on
        the processor all the same."""
        return self._device

    @property
    def on_gpu(self) -> bool:
        """Whether networks run on a GPU, apart from those that were not compiled for one or cannot
        run there."""
        return self._gpu is not None

    @property
    def weights_bytes(self) -> int:
        """Bytes of the GPU's memory that networks' weights take now, including weights that are
        being copied there; 0 on the processor."""
        return 0 if self._gpu is None else self._gpu.stats.device_bytes

    @property
    def weights(self) -> WeightsStats | None:
        """Numbers about networks' weights: how many are on the GPU and in pinned host memory now,
        and how often they were found there, copied and evicted since the start. None on the
        processor."""
        return None if self._gpu is None else self._gpu.stats

    @property
    def crops(self) -> CropStats | None:
        """Numbers about the crops (the pictures of the face that networks are shown) that are on
        the GPU now, and how often they were found there, uploaded and evicted since the start. None
        on the processor."""
        return None if self._gpu is None else self._gpu.crop_stats

    @property
    def memory_use(self) -> GpuMemoryUse | None:
        """How much of the GPU's memory is in use, and for what; None on the processor."""
        return None if self._gpu is None else self._gpu.memory_use

    @property
    def hot(self) -> HotStats:
        """How many networks run specialised on the processor now, because they are used much
        (``HotTier``), the memory that these take, and counts since the start. All are 0 without a
        ``hot`` tier."""
        return self._processor.hot_stats

    def load(
        self,
        compiled: Path,
        frames: Frames | None = None,
        *,
        for_gpu: Path | None = None,
        source: Path | None = None,
    ) -> Model:
        """Load a network from the folder ``compiled``, which ``compile_model`` filled, and return
        it; takes milliseconds on the processor, where weights are mapped and not copied.

        ``for_gpu`` is the folder that ``compile_for_gpu`` filled for the same network; without it
        the network runs on the processor, whatever the engine's device. On a GPU weights are copied
        there, where there is room for them; they may be evicted at any time, and are copied again
        when they are used. ``frames`` are those of the avatar, for ``infer_frames``. ``source`` is
        the ONNX file that ``compiled`` was made of; without it the network is never specialised.
        The files must stay as they are while the model is in use. Raises NotFound where a folder
        contains no compiled model, AvatarInvalid where a compiled model is damaged or was compiled
        for another machine or version, Overloaded where the GPU is full and everything on it is in
        use, Unavailable (DeviceLost) where the GPU has failed. Once the engine is closed, raises
        RuntimeError, or Unavailable where the network would have run on the GPU.
        """
        manifest = read_manifest(compiled)
        if manifest.runtime != runtime_key():
            raise AvatarInvalid(
                f"compiled for {manifest.runtime[:80]!r}, needed is {runtime_key()!r}: compile the"
                " avatar again"
            )
        on_gpu: GpuNetwork | None = None
        if self._gpu is not None and for_gpu is not None:
            on_gpu = self._gpu.load(for_gpu, manifest.source_sha256, frames)
        self._check_open()
        if on_gpu is None:
            network = self._processor.load(compiled, manifest, source=source)
            return Model(manifest, self._mark, self._processor, network, frames)
        gpu = self._own_gpu()
        floats = None
        if not gpu.runs("floats"):
            floats = self._processor.load(compiled, manifest, "floats")
        return Model(manifest, self._mark, gpu, on_gpu, frames, floats)

    def unload(self, model: Model) -> None:
        """Free the memory that ``model`` takes: at once, or when its last run is over, which is not
        waited for.

        Later runs raise Unavailable. Unloading twice is allowed. A model that was not unloaded is
        freed some time after nobody refers to it any more.
        """
        if model._unloaded:
            return
        model._unloaded = True
        model._runner.unload(model._network)
        if model._floats is not None:
            self._processor.unload(model._floats)

    def prefetch(self, model: Model) -> bool:
        """Copy the weights of ``model`` to the device before they are used; to be called when
        somebody is about to speak.

        Returns True where the weights are on the device in the end, False where there is no room
        for them. On the processor always returns True, and the ``hot`` tier counts the network as
        one that is used much. Raises Unavailable where the GPU has failed or the model was
        unloaded, RuntimeError where the engine is closed or the model is another engine's.
        """
        self._check_usable(model)
        return model._runner.prefetch(model._network)

    def specialise(
        self, model: Model, crops: Crops, windows: AudioWindows, *, lanes: int = 1
    ) -> str | None:
        """Have ``model`` run specialised for this processor from now on, in bfloat16, if that is
        faster and its mouths differ little from those in float32. Then up to ``lanes`` calls, at
        least 1, run at a time, and further ones wait. Not to be called where the engine has a
        ``hot`` tier, which decides itself.

        The network is tried with ``crops``, (N, 320, 320, 3) uint8, and ``windows``, (N, 32, 16,
        16) float32, which takes seconds. The result is remembered on this machine, and no trial is
        made again for the same network and as many lanes. Returns None where the network runs
        specialised, else the reason why it does not, in one line. Raises InvalidInput for arrays of
        other shapes, types or values, or ``lanes`` below 1, Unavailable where the model was
        unloaded, RuntimeError where the engine is closed or the model is another engine's.
        """
        batch = check_array("crops", crops, PIXELS_SHAPE, np.dtype(np.uint8))
        check_array("windows", windows, AUDIO_WINDOW_SHAPE, np.dtype(np.float32), batch)
        check_finite("windows", windows)
        self._check_usable(model)
        if lanes < 1:
            raise InvalidInput(f"lanes is {lanes}; allowed are 1 and more")
        if model.on_gpu:
            return "it runs on a GPU"
        return self._processor.specialise(
            cast(ProcessorNetwork, model._network), crops, windows, lanes
        )

    def infer(self, model: Model, crops: Crops, windows: AudioWindows) -> Mouths:
        """Return mouths, the pictures of the mouth region that the network makes, (N, 320, 320, 3)
        uint8, for N frames, at least 1.

        ``crops``, the pictures of the face in these frames, are (N, 320, 320, 3) uint8 in the
        avatar's colour order, which is also that of the result; ``windows``, the speech around each
        frame, are (N, 32, 16, 16) float32, finite. The values of the result are rounded to the
        nearest, ties to even. Raises InvalidInput for arrays of other shapes, types or values,
        AvatarInvalid where the network fails, Overloaded where the GPU has no room left,
        Unavailable where the GPU has failed or the model was unloaded, RuntimeError where the
        engine is closed or the model is another engine's.
        """
        batch = check_array("crops", crops, PIXELS_SHAPE, np.dtype(np.uint8))
        check_array("windows", windows, AUDIO_WINDOW_SHAPE, np.dtype(np.float32), batch)
        check_finite("windows", windows)
        mouths = np.empty((batch, *PIXELS_SHAPE), np.uint8)
        self._run(model, "pixels", crops, windows, mouths)
        return mouths

    def infer_frames(self, model: Model, numbers: Sequence[int], windows: AudioWindows) -> Mouths:
        """Return the mouths, (N, 320, 320, 3) uint8 in the avatar's colour order, of N frames of
        the avatar, at least 1. ``numbers`` are the numbers of these frames, from 0, and
        ``windows``, (N, 32, 16, 16) float32, finite, the speech around each.

        The model has to be loaded with the avatar's ``frames``. Past the last frame numbers go back
        and forth over the frames: of 4 frames, numbers 0 to 7 stand for 0 1 2 3 2 1 0 1. On a GPU a
        crop is copied there when it is first used and kept while there is room. Raises InvalidInput
        where the model has no frames, there are no numbers, one is below 0, or ``windows`` have
        another shape or are not finite, AvatarInvalid where the network fails, Overloaded where the
        GPU has no room left, Unavailable where the GPU has failed or the model was unloaded,
        RuntimeError where the engine is closed or the model is another engine's, and any error that
        the avatar's ``frames`` raise where a crop cannot be read.
        """
        frames, shown = _shown(model, numbers)
        if not model.on_gpu:
            return self.infer(model, np.stack([frames.crop(number) for number in shown]), windows)
        check_array("windows", windows, AUDIO_WINDOW_SHAPE, np.dtype(np.float32), len(shown))
        check_finite("windows", windows)
        self._check_usable(model)
        mouths = np.empty((len(shown), *PIXELS_SHAPE), np.uint8)
        self._own_gpu().run_frames(_on_gpu(model), shown, windows, mouths)
        return mouths

    def infer_together(self, requests: Sequence[Request]) -> list[Mouths]:
        """Return the mouths of each of ``requests``, at least one, in their order: an array for
        each, (N, 320, 320, 3) uint8. They are computed in one batch on the GPU.

        Each ``Request`` has a model, N crops or numbers of the avatar's frames, and N audio
        windows. Numbers are from 0; past the last frame they go back and forth over the frames: of
        4 frames, numbers 0 to 7 stand for 0 1 2 3 2 1 0 1. The models of all requests have to have
        the same ``Model.together``, not None (None is for a model that has to run alone), and all
        requests together at most 50 frames. Raises InvalidInput where that is not so, an array has
        another shape or values, a number is below 0, or there are numbers of frames for a model
        that was loaded without frames; AvatarInvalid where a network fails, Overloaded where the
        GPU has no room left, Unavailable where the GPU has failed or a model was unloaded,
        RuntimeError where the engine is closed or a model is another engine's, and any error that
        the frames of a model raise where a crop cannot be read. An error of one request fails all.
        """
        numbers = {request.model.together for request in requests}
        if len(numbers) != 1 or None in numbers:
            raise InvalidInput(f"models are of {numbers} and cannot be run together")
        checked: list[Crops | Sequence[int]] = []
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
        made: list[Mouths] = []
        given: list[NetworkRequest[GpuNetwork]] = []
        for request, faces in zip(requests, checked, strict=True):
            made.append(np.empty((len(faces), *PIXELS_SHAPE), np.uint8))
            network = _on_gpu(request.model)  # as together says
            given.append(NetworkRequest(network, faces, request.windows, made[-1]))
        self._own_gpu().run_together(given)
        return made

    def infer_float(self, model: Model, visual: Float32Array, windows: AudioWindows) -> FloatMouths:
        """Return the output of the network itself, not converted to pixels, for N frames, at least
        1: (N, 3, 320, 320) float32, usually in [0, 1], not clipped, in the avatar's colour order.

        ``visual``, (N, 6, 320, 320) float32, finite, usually in [0, 1], is the network's input for
        the face: channels 0 to 2 are the crop, in the avatar's colour order, and 3 to 5 the crop
        with the mouth black, rows 5 to 309 of columns 5 to 314. ``windows``, the speech around each
        frame, are (N, 32, 16, 16) float32, finite. Raises InvalidInput for arrays of other shapes,
        types or values, AvatarInvalid where the network fails, Overloaded where the GPU has no room
        left, Unavailable where the GPU has failed or the model was unloaded, RuntimeError where the
        engine is closed or the model is another engine's.
        """
        batch = check_array("visual", visual, VISUAL_SHAPE, np.dtype(np.float32))
        check_array("windows", windows, AUDIO_WINDOW_SHAPE, np.dtype(np.float32), batch)
        check_finite("visual", visual)
        check_finite("windows", windows)
        mouths = np.empty((batch, *OUTPUT_SHAPE), np.float32)
        self._run(model, "floats", visual, windows, mouths)
        return mouths

    def close(self) -> None:
        """Free all sessions and weights. Calls under way finish; later calls raise RuntimeError
        (``load`` may raise Unavailable). Closing twice is allowed."""
        self._closed = True
        self._processor.close()
        if self._gpu is not None:
            self._gpu.close()

    def _run(
        self, model: Model, form: Form, face: _Array, windows: AudioWindows, mouth: _Array
    ) -> None:
        self._check_usable(model)
        runner: Runner[Any] = model._runner
        network: Network = model._network
        if form == "floats" and model._floats is not None:
            runner, network = self._processor, model._floats
        runner.run(network, form, face, windows, mouth)

    def _own_gpu(self) -> "Gpu":
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


def compile_for_gpu(source: Path, compiled: Path, target: Path) -> None:
    """Compile the ONNX file ``source`` for GPUs into the existing, empty folder ``target``, in half
    precision. A network that is not fit for half precision is compiled in single precision; for one
    that is fit for neither, the files say so, and ``Engine.load`` has it run on the processor.
    ``compiled`` is the folder that ``compile_model`` filled for the same file.

    Needs no GPU. Raises NotFound where ``source`` or ``compiled`` is missing, AvatarInvalid where
    either is damaged or they do not belong together, StorageFailed where ``target`` cannot be
    written; then ``target`` is left as it was.
    """
    from lipwire.engine.gpu.compile import gpucompilation

    gpucompilation.compile_for_gpu(source, compiled, target)


def kernels_problem(device: Device) -> str | None:
    """Return why Lipwire's own kernels cannot run on ``device``, a GPU, in one line; None where
    they can. A missing compiler for the kernels (NVRTC) is such a reason, even where kernels were
    compiled before.

    Starts that GPU and no other. Nothing is remembered: each call looks again. ONNX Runtime is not
    needed.
    """
    from lipwire.engine.gpu.kernels.cuda import cudaprograms

    return cudaprograms.kernels_problem(device)


def _open_gpu(
    device: Device, tuning: Tuning, memory: "Memory | None", threads: int | None
) -> "Gpu":
    # Not at the top: who runs networks on the processor loads nothing that is for GPUs.
    from lipwire.engine.gpu.opengpu import open_gpu

    return open_gpu(device, tuning, memory, threads=threads)


def _on_gpu(model: Model) -> "GpuNetwork":
    """The network of a model that is on the GPU."""
    assert model.on_gpu
    return cast("GpuNetwork", model._network)


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
