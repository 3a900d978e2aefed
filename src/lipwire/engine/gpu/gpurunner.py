"""Running networks on a device: its streams, the weights there, and what happens when it is full.

Written over ``Memory``: the same code runs on a GPU, and on the processor in the tests.
"""

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from lipwire.domain import (
    AvatarInvalid,
    Float32Array,
    Form,
    InvalidInput,
    Overloaded,
    UInt8Array,
    Unavailable,
)
from lipwire.engine.device import DeviceLost
from lipwire.engine.gpu.devicefailures import AT_LEAST_BYTES, FailureHandler
from lipwire.engine.gpu.gpunetwork import GpuNetwork
from lipwire.engine.gpu.gpustreams import GpuStream, StreamPart
from lipwire.engine.gpu.kernels.kernelcache import KernelCache
from lipwire.engine.gpu.kernels.running.kernelruns import Program
from lipwire.engine.gpu.memory.cropplaces import Face, Faces
from lipwire.engine.gpu.memory.crops import Crops
from lipwire.engine.gpu.memory.devicebudget import DeviceBudget
from lipwire.engine.gpu.memory.devicememory import Memory
from lipwire.engine.gpu.memory.weightscache import WeightsCache
from lipwire.engine.gpu.onnx.architectures import Architectures
from lipwire.engine.gpu.onnx.gpusessions import session_opener
from lipwire.engine.gpu.store.gpufiles import GpuManifest, GpuModel, ImageFile, read_gpu_manifest
from lipwire.engine.gpu.streampool import StreamPool
from lipwire.engine.runner import Frames, NetworkRequest
from lipwire.engine.store.runtimekey import gpu_runtime_key
from lipwire.engine.tuning import Tuning
from lipwire.engine.usage import CropStats, GpuMemoryUse, WeightsStats

_Array = npt.NDArray[Any]
_SHARE: Final = 0.75
"""Of a device's free memory that weights and crops may take unless told otherwise: streams need the
rest."""
_SPARE_SHARE: Final = 0.125
"""Of a device's free memory at the start, up to AT_LEAST_BYTES, that crops leave free."""


class Gpu:
    """Runs networks on one GPU, in several streams at a time. Arguments of runs are not checked:
    ``Engine`` does that. Thread-safe; whoever makes it calls ``close``.

    Once the device has failed for good, every load and run raises DeviceLost, which is an
    Unavailable.
    """

    def __init__(self, memory: Memory, tuning: Tuning, *, threads: int | None = None) -> None:
        """``memory`` is that of the device, ``tuning`` how it is used. ``threads`` is how many
        threads a run may use for the parts of a network that are computed on the processor; None
        for one for each core. Raises DeviceOutOfMemory where the device has no room for streams,
        DeviceLost where it has failed."""
        self._memory = memory
        self._tuning = tuning
        free_bytes = memory.free_bytes()
        share_bytes = int(free_bytes * _SHARE)
        budget = DeviceBudget(share_bytes if tuning.device_bytes is None else tuning.device_bytes)
        self._crops = Crops(
            memory,
            budget,
            most_bytes=tuning.crop_bytes,
            spare_bytes=min(int(free_bytes * _SPARE_SHARE), AT_LEAST_BYTES),
        )
        self._weights = WeightsCache(
            memory,
            device_bytes=budget,
            host_bytes=tuning.host_bytes,
            max_items=tuning.max_models,
            evict_others=self._crops.give_up,
        )
        open_session = session_opener(memory, tuning.cuda, threads=threads)
        self._streams = StreamPool(
            [
                GpuStream(number, memory, open_session, record=tuning.cuda.graphs)
                for number in range(tuning.streams)
            ]
        )
        self._architectures = Architectures()
        self._kernels = KernelCache(memory) if tuning.kernels else None
        self._failures = FailureHandler(memory, self._crops, self._weights)

    @property
    def stats(self) -> WeightsStats:
        """Numbers about networks' weights: how many are on the device and in pinned host memory
        now, and how often weights were found there, copied and evicted since the start."""
        return self._weights.stats()

    @property
    def crop_stats(self) -> CropStats:
        """Numbers about the crops (the pictures of the face that networks are shown) that are on
        the device now, and how often they were found there, uploaded and evicted since the start.
        """
        return self._crops.stats()

    @property
    def memory_use(self) -> GpuMemoryUse:
        """How much of the device's memory is in use, and for what."""
        weights = self._weights.stats()
        staging_bytes, pinned_staging_bytes = self._streams.staging_bytes
        return GpuMemoryUse(
            weights=weights.device_bytes,
            crops=self._crops.stats().device_bytes,
            slots=self._streams.slot_bytes,
            staging=staging_bytes,
            pinned_weights=weights.host_bytes,
            pinned_staging=pinned_staging_bytes,
        )

    @property
    def architectures(self) -> int:
        """How many architectures (networks with equal graphs, which share sessions and kernels) are
        in use."""
        return len(self._architectures)

    def runs(self, form: Form) -> bool:
        """Return whether networks can run on the device in ``form``, "pixels" or "floats".

        Always True for "pixels". False for "floats" where ONNX Runtime cannot run on the device,
        because Lipwire's own kernels take only pixels.
        """
        return form == "pixels" or self._memory.onnx_problem() is None

    def load(
        self,
        folder: Path,
        source_sha256: str,
        frames: Frames | None = None,
    ) -> GpuNetwork | None:
        """Load the network that was compiled for GPUs into ``folder``, onto the device where there
        is room.

        ``source_sha256`` is the SHA-256, in hexadecimal digits, of the ONNX file that the network
        has to be compiled from. ``frames`` are those of its avatar; None where crops are sent
        instead. Returns None where the network has no form for GPUs, or none that runs on this one.
        Raises NotFound where the folder holds no such network, AvatarInvalid where the network is
        damaged, or was compiled by another version or from another file, Overloaded where the
        device is full and everything on it is in use, Unavailable where it has failed or this is
        closed.
        """
        self._failures.check()
        manifest = _read_manifest(folder, source_sha256)
        fixed_batch = manifest.fixed_batch
        wanted = manifest.models.get(self._tuning.precision)
        model = wanted or next(iter(manifest.models.values()), None)
        if model is None:
            return None
        source = ImageFile(folder, model)
        program = self._program(folder, model, fixed_batch, source)
        if program is None and self._memory.onnx_problem() is not None:
            return None
        weights = self._weights.add(source)
        sizes = self._tuning.batch_sizes if fixed_batch is None else (fixed_batch,)
        keeps = frames is not None and self._crops.keeps_any
        crops = self._crops.add(frames.frame_count) if frames is not None and keeps else None
        architecture = self._architectures.of(folder, model)
        network = GpuNetwork(architecture, weights, model.precision, sizes, frames, crops, program)
        network.finalizers.append(weakref.finalize(network, self._weights.remove, weights))
        if crops is not None:
            network.finalizers.append(weakref.finalize(network, self._crops.remove, crops))
        for finalizer in network.finalizers:
            finalizer.atexit = False
        self._failures.run(lambda: self._weights.prefetch(weights))
        return network

    def prefetch(self, network: GpuNetwork) -> bool:
        """Copy the weights of ``network`` to the device before they are used. Returns True, or
        False where there is no room for them. Raises Unavailable where the device has failed or the
        network was unloaded."""
        return self._failures.run(lambda: self._weights.prefetch(network.weights))

    def unload(self, network: GpuNetwork) -> None:
        """Free the memory that ``network`` takes on the device: at once, or when its last run is
        over, which is not waited for. Later runs raise Unavailable. Raises nothing where the device
        has failed."""
        for finalizer in network.finalizers:
            finalizer.detach()
        network.architecture = None
        with suppress(DeviceLost):  # which keeps nothing that is worth giving back
            if network.crops is not None:
                self._crops.unload(network.crops)
            self._weights.unload(network.weights)
            self._streams.tidy()

    def run(
        self, network: GpuNetwork, form: Form, faces: _Array, speech: Float32Array, mouths: _Array
    ) -> None:
        """Run ``network`` in ``form`` and write the mouths of N frames, at least 1, into
        ``mouths``.

        For "pixels" ``faces`` is crops and ``mouths`` is mouths, both (N, 320, 320, 3) uint8; for
        "floats" ``faces`` is (N, 6, 320, 320), the crops and then the crops with the mouth black,
        and ``mouths`` (N, 3, 320, 320), both float32, usually in [0, 1]; colours are in the
        avatar's order. ``speech`` is the audio windows, (N, 32, 16, 16) float32. Shapes and types
        are not checked.

        Raises Overloaded where the device has no room left, Unavailable where the device has failed
        or the network was unloaded, AvatarInvalid where the network fails, RuntimeError once this
        is closed.
        """
        start = 0
        for batch in network.batches(len(faces), form):
            piece = slice(start, start + batch)
            start += batch
            self._run_batch(network, form, batch, faces[piece], speech[piece], mouths[piece])
        if network.architecture is None:  # unloaded meanwhile: nobody may be left who has it
            self._streams.tidy()

    def run_frames(
        self,
        network: GpuNetwork,
        numbers: Sequence[int],
        speech: Float32Array,
        mouths: UInt8Array,
    ) -> None:
        """Write the mouths of frames ``numbers`` of the network's avatar into ``mouths``, (N, 320,
        320, 3) uint8, one for each of the audio windows in ``speech``, (N, 32, 16, 16) float32.

        Each number is from 0 to the avatar's number of frames - 1. Crops that are on the device are
        not copied again. Raises InvalidInput where the network was loaded without frames,
        Overloaded where the device has no room left, Unavailable where the device has failed or the
        network was unloaded, AvatarInvalid where the network fails, RuntimeError once this is
        closed, and any error that the network's frames raise where a crop cannot be read.
        """
        start = 0
        for batch in network.batches(len(numbers), "pixels"):
            piece = slice(start, start + batch)
            start += batch
            self._run_batch(network, "pixels", batch, numbers[piece], speech[piece], mouths[piece])
        if network.architecture is None:
            self._streams.tidy()

    def close(self) -> None:
        """Wait until the runs under way have finished, then free everything on the device. Later
        runs raise RuntimeError. Closing twice is allowed."""
        if not self._streams.close():
            return
        for close in (
            *(() if self._kernels is None else (self._kernels.close,)),
            self._crops.close,
            self._weights.close,
        ):
            with suppress(DeviceLost):  # which keeps nothing that is worth giving back
                close()

    def run_together(self, requests: Sequence[NetworkRequest[GpuNetwork]]) -> None:
        """Compute the mouths of all ``requests``, at least one, in one batch, and write them into
        the arrays of the requests (``NetworkRequest.mouths``).

        The requests may have at most 50 frames (MOST_FRAMES) in all, and their networks must have
        the same ``GpuNetwork.together``, not None. Where there is no room for the weights of all
        networks at a time, the requests are run one after the other. Raises InvalidInput where
        frames are given by numbers and a network was loaded without frames, Overloaded where the
        device has no room left, Unavailable where the device has failed or a network was unloaded,
        AvatarInvalid where the kernels fail, RuntimeError once this is closed, and any error that
        a network's frames raise where a crop cannot be read. After an error the mouths of some
        requests may have been written, and those of others not.
        """
        program, architecture = requests[0].network.program, requests[0].network.architecture
        assert program is not None  # as asked for
        if architecture is None or any(each.network.architecture is None for each in requests):
            raise Unavailable("the network was unloaded")
        # Before a stream is taken, for that would wait meanwhile.
        pixels = [self._missing(each.network, each.faces) for each in requests]

        def run(stream: GpuStream) -> None:
            with ExitStack() as stack:
                parts = [
                    StreamPart(
                        each.network.weights,
                        stack.enter_context(self._given(each.network, each.faces, found)),
                        each.speech,
                        each.mouths,
                    )
                    for each, found in zip(requests, pixels, strict=True)
                ]
                self._failures.run(
                    lambda: stream.run_kernels(self._weights, architecture, program, parts), stream
                )

        with self._streams.taken(None) as stream:
            if len(requests) == 1:
                self._without_crops_if_full(lambda: run(stream))
                return
            with suppress(Overloaded):
                run(stream)
                return
        for each in requests:
            self.run_together([each])

    def _run_batch(
        self,
        network: GpuNetwork,
        form: Form,
        batch: int,
        faces: _Array | Sequence[int],
        speech: Float32Array,
        mouths: _Array,
    ) -> None:
        """``faces`` are pixels, or numbers of frames."""
        if form == "pixels" and network.program is not None:
            self.run_together([NetworkRequest(network, faces, speech, mouths)])
            return
        architecture = network.architecture
        if architecture is None:
            raise Unavailable("the network was unloaded")
        pixels = self._missing(network, faces)

        def run(stream: GpuStream) -> None:
            with self._given(network, faces, pixels) as given:
                self._failures.run(
                    lambda: stream.run(
                        self._weights,
                        architecture,
                        network.weights,
                        form,
                        batch,
                        given,
                        speech,
                        mouths,
                    ),
                    stream,
                )

        with self._streams.taken(network.weights) as stream:
            self._without_crops_if_full(lambda: run(stream))

    def _without_crops_if_full(self, run: Callable[[], None]) -> None:
        try:
            run()
        except Overloaded:
            if not self._crops.device_bytes:
                raise
            # Crops that are in use take what this needs, its own perhaps: it goes without.
            with self._crops.out_of_the_way():
                run()

    def _missing(self, network: GpuNetwork, faces: _Array | Sequence[int]) -> dict[int, UInt8Array]:
        """Crops that will have to be uploaded, as it looks now, where ``faces`` are numbers."""
        if isinstance(faces, np.ndarray):
            return {}
        if network.frames is None:
            raise InvalidInput("the network was loaded without its avatar's frames")
        crops = network.crops
        missing = set(faces) if crops is None else self._crops.missing(crops, faces)
        return {number: network.frames.crop(number) for number in missing}

    @contextmanager
    def _given(
        self, network: GpuNetwork, faces: _Array | Sequence[int], pixels: dict[int, UInt8Array]
    ) -> Iterator[Faces]:
        """``faces`` as a stream takes them; ``pixels`` has those that were missing a moment ago."""
        if isinstance(faces, np.ndarray):
            yield faces
        elif network.crops is None:
            yield [Face(None, pixels[number]) for number in faces]
        else:
            with self._crops.use(network.crops, faces) as places:
                given = []
                for number, place in zip(faces, places, strict=True):
                    face = Face(place, pixels.get(number))
                    if not face.there and face.pixels is None:  # it has gone since
                        assert network.frames is not None  # they are those that crops are of
                        pixels[number] = network.frames.crop(number)
                        face = Face(place, pixels[number])
                    given.append(face)
                yield given

    def _program(
        self, folder: Path, model: GpuModel, fixed_batch: int | None, source: ImageFile
    ) -> Program | None:
        """Kernels that run ``model``; None where ONNX Runtime does."""
        cache = self._kernels
        if cache is None or model.precision != "half":
            return None
        pixels = model.graphs["pixels"]
        return self._failures.run(lambda: cache.program(folder, pixels, fixed_batch, source))


def _read_manifest(folder: Path, source_sha256: str) -> GpuManifest:
    manifest = read_gpu_manifest(folder)
    if manifest.runtime != gpu_runtime_key():
        raise AvatarInvalid(
            f"compiled for {manifest.runtime[:80]!r}, needed is {gpu_runtime_key()!r}: compile the"
            " avatar again"
        )
    if manifest.source_sha256 != source_sha256:
        raise AvatarInvalid("what is compiled for GPUs is of another network: compile it again")
    return manifest
