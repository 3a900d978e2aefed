"""Running networks on a device: its lanes, its resident weights, and what happens when it is full.

Written over ``Memory``: the same code runs on a GPU, and on the processor in the tests.
"""

import logging
import threading
import weakref
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np

from lipwire.domain import (
    AvatarInvalid,
    Float32Array,
    InvalidInput,
    Overloaded,
    UInt8Array,
    Unavailable,
)
from lipwire.engine.batching import BATCH_SIZES, split
from lipwire.engine.budget import Budget
from lipwire.engine.crops import AvatarCrops, Crops, CropStats, Face, Frames
from lipwire.engine.devices import (
    RUNTIME_ERRORS,
    CudaOptions,
    Optimisation,
    open_session,
    read_on_processor,
    session_options,
)
from lipwire.engine.failures import is_device_lost, is_out_of_memory
from lipwire.engine.gpugraphs import Precision
from lipwire.engine.gpustorage import GpuManifest, GpuModel, ImageSource, read_gpu_graph
from lipwire.engine.kernelruns import Program
from lipwire.engine.kernelshelf import KernelShelf
from lipwire.engine.lanes import Architecture, Array, Faces, Input, Lane
from lipwire.engine.memory import DeviceLost, DeviceOutOfMemory, Memory
from lipwire.engine.residency import Residency, ResidencyStats, Resident
from lipwire.engine.source import first_line
from lipwire.engine.wrapping import BATCH, Form

_LOG: Final = logging.getLogger(__name__)
_SHARE: Final = 0.75
"""Of a device's free memory that weights and crops may take unless told otherwise: lanes need the
rest."""
_SPARE_SHARE: Final = 0.125
"""Of a device's free memory at the start, up to _AT_LEAST_BYTES, that crops leave free."""
_AT_LEAST_BYTES: Final = 1 << 28
"""Freed for a lane that runs out of memory: activations come in such sizes."""
_RETRY_S: Final = 0.25
_MAX_LANES: Final = 8
_MOST_FRAMES: Final = BATCH_SIZES[-1]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Tuning:
    """How a GPU is used. What is here changes speed and memory; results as far as stated."""

    lanes: int = 2
    """Runs at a time: copies of one go on while another computes."""
    precision: Precision = "half"
    """Half where the avatar has it: at most 2 of 255 apart, 0.2 in the mean (``halving``)."""
    batch_sizes: tuple[int, ...] = BATCH_SIZES
    kernels: bool = True
    """Run what can be run in kernels of our own in half precision (``kerneltrial``)."""
    cuda: CudaOptions = field(default_factory=CudaOptions)
    device_bytes: int | None = None
    """For weights and crops; None for three quarters of what is free at the start."""
    crop_bytes: int | None = None
    """For crops (``crops``), at most; None for whatever weights leave, 0 to keep none."""
    host_bytes: int = 1 << 30
    """Pinned memory for weights, from which they come to the device without the disk."""
    max_models: int | None = None
    """On the device at a time."""

    def __post_init__(self) -> None:
        if not 1 <= self.lanes <= _MAX_LANES:
            raise InvalidInput(f"lanes is {self.lanes}, allowed are 1 to {_MAX_LANES}")
        if not self.batch_sizes or list(self.batch_sizes) != sorted(set(self.batch_sizes)):
            raise InvalidInput(f"batch_sizes are {self.batch_sizes}; they have to rise")
        if self.batch_sizes[0] < 1:
            raise InvalidInput(f"batch_sizes begin with {self.batch_sizes[0]}, the least is 1")


@dataclass(frozen=True, slots=True)
class GpuMemoryUse:
    """Bytes that this process has allocated on one device, and pinned of the host's memory for it.

    What ONNX Runtime takes for its sessions is not in here: nobody counts it by process but the
    device's driver.
    """

    weights: int
    crops: int
    slots: int
    """Of lanes, one for each architecture in use: what a network reads its weights from."""
    staging: int
    """Of lanes: inputs and outputs."""
    pinned_weights: int
    pinned_staging: int

    @property
    def device(self) -> int:
        """All that is on the device."""
        return self.weights + self.crops + self.slots + self.staging


class GpuNetwork:
    """A network that was loaded for a device; kept by its ``Model``."""

    __slots__ = (
        "__weakref__",
        "architecture",
        "crops",
        "finalizers",
        "frames",
        "precision",
        "program",
        "resident",
        "sizes",
    )

    def __init__(
        self,
        architecture: Architecture,
        resident: Resident,
        precision: Precision,
        sizes: tuple[int, ...],
        frames: Frames | None,
        crops: AvatarCrops | None,
        program: Program | None,
    ) -> None:
        self.architecture: Architecture | None = architecture
        """None once it is unloaded."""
        self.program = program
        """Where pixels are run in kernels of our own; None where they are in ONNX Runtime."""
        self.resident = resident
        self.frames = frames
        self.crops = crops
        """What is kept of ``frames``; None where nothing is."""
        self.finalizers: list[weakref.finalize[..., GpuNetwork]] = []
        self.precision: Final = precision
        self.sizes: Final = sizes
        """Batch sizes that ONNX Runtime runs it in."""

    def batches(self, frames: int, form: Form) -> tuple[int, ...]:
        """What so many frames are run in. Kernels of our own take any number, up to the largest."""
        if self.program is None or form != "pixels":
            return split(frames, self.sizes)
        whole, rest = divmod(frames, _MOST_FRAMES)
        return (*[_MOST_FRAMES] * whole, *([rest] if rest else []))


class Gpu:
    """One device with its lanes. Thread-safe; ``close`` it.

    Raises Unavailable from the first time on that the device fails for good.
    """

    def __init__(self, memory: Memory, tuning: Tuning, *, threads: int | None = None) -> None:
        """``threads`` is for what runs on the processor."""
        self._memory = memory
        self._tuning = tuning
        self._threads = threads
        free_bytes = memory.free_bytes()
        share_bytes = int(free_bytes * _SHARE)
        budget = Budget(share_bytes if tuning.device_bytes is None else tuning.device_bytes)
        self._crops = Crops(
            memory,
            budget,
            most_bytes=tuning.crop_bytes,
            spare_bytes=min(int(free_bytes * _SPARE_SHARE), _AT_LEAST_BYTES),
        )
        self._residency = Residency(
            memory,
            device_bytes=budget,
            host_bytes=tuning.host_bytes,
            max_items=tuning.max_models,
            give_way=self._crops.give_up,
        )
        self._lanes = [
            Lane(number, memory, self._open_session, record=tuning.cuda.graphs)
            for number in range(tuning.lanes)
        ]
        self._free = threading.Condition()
        self._free_lanes = list(self._lanes)
        self._architectures: weakref.WeakValueDictionary[Hashable, Architecture] = (
            weakref.WeakValueDictionary()
        )
        self._lock = threading.Lock()
        self._kernels = KernelShelf(memory) if tuning.kernels else None
        self._failure: str | None = None
        self._closed = False

    @property
    def stats(self) -> ResidencyStats:
        return self._residency.stats()

    @property
    def crop_stats(self) -> CropStats:
        return self._crops.stats()

    @property
    def memory_use(self) -> GpuMemoryUse:
        weights = self._residency.stats()
        staging = [lane.staging_bytes for lane in self._lanes]
        return GpuMemoryUse(
            weights=weights.device_bytes,
            crops=self._crops.stats().device_bytes,
            slots=sum(lane.slot_bytes for lane in self._lanes),
            staging=sum(on_device for on_device, _ in staging),
            pinned_weights=weights.host_bytes,
            pinned_staging=sum(pinned for _, pinned in staging),
        )

    @property
    def architectures(self) -> int:
        """Kinds of networks in use, each with sessions of its own."""
        return len(self._architectures)

    def load(
        self,
        folder: Path,
        manifest: GpuManifest,
        fixed_batch: int | None,
        frames: Frames | None = None,
    ) -> GpuNetwork | None:
        """The network in ``folder``, on the device where there is room; None where it has no form
        for GPUs. ``frames`` are those of its avatar. Raises AvatarInvalid, Unavailable."""
        self._check_alive()
        wanted = manifest.models.get(self._tuning.precision)
        model = wanted or manifest.models.get("single")
        if model is None:
            return None
        source = ImageSource(folder, model)
        resident = self._residency.add(source)
        sizes = self._tuning.batch_sizes if fixed_batch is None else (fixed_batch,)
        keeps = frames is not None and self._crops.keeps_any
        crops = self._crops.add(frames.frame_count) if frames is not None and keeps else None
        architecture = self._architecture(folder, model)
        program = self._program(folder, model, fixed_batch, source)
        network = GpuNetwork(architecture, resident, model.precision, sizes, frames, crops, program)
        network.finalizers.append(weakref.finalize(network, self._residency.remove, resident))
        if crops is not None:
            network.finalizers.append(weakref.finalize(network, self._crops.remove, crops))
        for finalizer in network.finalizers:
            finalizer.atexit = False
        self._guarded(lambda: self._residency.prefetch(resident))
        return network

    def prefetch(self, network: GpuNetwork) -> bool:
        """Bring a network's weights to the device; False where there is no room for them."""
        return self._guarded(lambda: self._residency.prefetch(network.resident))

    def unload(self, network: GpuNetwork) -> None:
        """Give up what ``network`` takes of the device: at once, or when its last run is over.
        Later runs raise Unavailable."""
        for finalizer in network.finalizers:
            finalizer.detach()
        network.architecture = None
        with suppress(DeviceLost):  # which keeps nothing that is worth giving back
            if network.crops is not None:
                self._crops.unload(network.crops)
            self._residency.unload(network.resident)
            self._tidy()

    def run(
        self, network: GpuNetwork, form: Form, faces: Array, speech: Float32Array, mouths: Array
    ) -> None:
        """Fill ``mouths``. All arrays have N frames.

        Raises Overloaded where the device has no room left, Unavailable where it has failed,
        AvatarInvalid where the network does.
        """
        start = 0
        for batch in network.batches(len(faces), form):
            piece = slice(start, start + batch)
            start += batch
            self._run_batch(network, form, batch, faces[piece], speech[piece], mouths[piece])
        if network.architecture is None:  # unloaded meanwhile: nobody may be left who has it
            self._tidy()

    def run_frames(
        self,
        network: GpuNetwork,
        numbers: Sequence[int],
        speech: Float32Array,
        mouths: UInt8Array,
    ) -> None:
        """As ``run``, for the crops of frames ``numbers`` (0 up to the number of frames) of the
        network's avatar: what is on the device is not brought again. Raises what ``Frames.crop``
        raises, too."""
        start = 0
        for batch in network.batches(len(numbers), "pixels"):
            piece = slice(start, start + batch)
            start += batch
            self._run_batch(network, "pixels", batch, numbers[piece], speech[piece], mouths[piece])
        if network.architecture is None:
            self._tidy()

    def close(self) -> None:
        """Runs under way finish; later ones raise."""
        with self._free:
            if self._closed:
                return
            self._closed = True
            self._free.notify_all()
            self._free.wait_for(lambda: len(self._free_lanes) == len(self._lanes))
        for close in (
            *(lane.close for lane in self._lanes),
            *(() if self._kernels is None else (self._kernels.close,)),
            self._crops.close,
            self._residency.close,
        ):
            with suppress(DeviceLost):  # which keeps nothing that is worth giving back
                close()

    def _run_batch(
        self,
        network: GpuNetwork,
        form: Form,
        batch: int,
        faces: Array | Sequence[int],
        speech: Float32Array,
        mouths: Array,
    ) -> None:
        """``faces`` are pixels, or numbers of frames."""
        architecture = network.architecture
        if architecture is None:
            raise Unavailable("the network was unloaded")
        # Before a lane is taken, for that would wait meanwhile.
        pixels = {} if isinstance(faces, np.ndarray) else self._missing(network, faces)
        lane = self._take_lane(network.resident)

        def run() -> None:
            with self._given(network, faces, pixels) as given:
                self._guarded(
                    lambda: lane.run(
                        self._residency,
                        architecture,
                        network.resident,
                        form,
                        batch,
                        given,
                        speech,
                        mouths,
                        network.program if form == "pixels" else None,
                    ),
                    lane,
                )

        try:
            try:
                run()
            except Overloaded:
                if not self._crops.device_bytes:
                    raise
                # Crops that are in use take what this needs, its own perhaps: it goes without.
                with self._crops.out_of_the_way():
                    run()
        finally:
            self._put_back(lane)

    def _missing(self, network: GpuNetwork, numbers: Sequence[int]) -> dict[int, UInt8Array]:
        """Crops that will have to be uploaded, as it looks now."""
        if network.frames is None:
            raise InvalidInput("the network was loaded without its avatar's frames")
        crops = network.crops
        missing = set(numbers) if crops is None else self._crops.missing(crops, numbers)
        return {number: network.frames.crop(number) for number in missing}

    @contextmanager
    def _given(
        self, network: GpuNetwork, faces: Array | Sequence[int], pixels: dict[int, UInt8Array]
    ) -> Iterator[Faces]:
        """``faces`` as a lane takes them; ``pixels`` has those that were missing a moment ago."""
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

    def _take_lane(self, resident: Resident) -> Lane:
        """A free lane, if possible one that has the weights in place."""
        with self._free:
            self._free.wait_for(lambda: self._closed or bool(self._free_lanes))
            if self._closed:
                raise RuntimeError("the engine is closed")
            for lane in self._free_lanes:
                if lane.holds(resident):
                    break
            else:
                lane = self._free_lanes[0]  # the one that has rested longest
            self._free_lanes.remove(lane)
            return lane

    def _tidy(self) -> None:
        """Have lanes that nobody runs on give back what they keep for networks that are gone."""
        with self._free:
            if self._closed:
                return
            idle = list(self._free_lanes)
            self._free_lanes.clear()
        try:
            for lane in idle:
                lane.tidy()
        finally:
            self._put_back(*idle)

    def _put_back(self, *lanes: Lane) -> None:
        with self._free:
            self._free_lanes.extend(lanes)
            self._free.notify_all()

    def _guarded(self, action: Callable[[], T], lane: Lane | None = None) -> T:
        """``action``, again and again while it runs out of memory and something can be given up.

        Crops go first; then weights, the least worthy ones; then what ``lane`` itself keeps ready.
        """
        cleared = lane is None
        while True:
            self._check_alive()
            try:
                return action()
            except DeviceOutOfMemory as error:
                reason = str(error)
            except DeviceLost as error:
                self._failure = str(error)
                raise
            except RUNTIME_ERRORS as error:
                reason = first_line(error)
                if is_device_lost(error):
                    self._failure = f"{self._memory.device} has failed: {reason}"
                    raise DeviceLost(self._failure) from None
                if not is_out_of_memory(error):
                    raise AvatarInvalid(f"the network failed: {reason}") from None
            _LOG.warning("%s is full (%s): crops or networks go", self._memory.device, reason)
            if self._crops.give_up(_AT_LEAST_BYTES):
                continue
            if not self._residency.give_up(_AT_LEAST_BYTES):
                if cleared or lane is None:
                    raise Overloaded(
                        f"{self._memory.device} is full, and all that is there is in use",
                        retry_after_s=_RETRY_S,
                    )
                lane.clear()
                cleared = True

    def _check_alive(self) -> None:
        if self._failure is not None:
            raise DeviceLost(self._failure)

    def _architecture(self, folder: Path, model: GpuModel) -> Architecture:
        """The architecture of ``model``, found by the content of its graphs and their weights'
        places."""
        inputs = {
            form: tuple(
                Input(weight.name, weight.element_type, weight.shape, weight.place_bytes)
                for weight in graph.weights
            )
            for form, graph in model.graphs.items()
        }
        key = (tuple(graph.sha256 for graph in model.graphs.values()), tuple(inputs.values()))
        with self._lock:
            found = self._architectures.get(key)
            if found is None:
                graphs = {
                    form: read_gpu_graph(folder, graph) for form, graph in model.graphs.items()
                }
                found = Architecture(graphs, inputs, model.image_bytes, model.precision)
                self._architectures[key] = found
        return found

    def _program(
        self, folder: Path, model: GpuModel, fixed_batch: int | None, source: ImageSource
    ) -> Program | None:
        """Kernels that run ``model``; None where ONNX Runtime does."""
        shelf = self._kernels
        if shelf is None or model.precision != "half":
            return None
        pixels = model.graphs["pixels"]
        return self._guarded(lambda: shelf.program(folder, pixels, fixed_batch, source))

    def _open_session(self, architecture: Architecture, form: Form, batch: int, stream: int) -> Any:
        """Called by a lane."""
        level: Optimisation = "full" if self._tuning.cuda.fuse else "basic"
        options = session_options(threads=self._threads, optimisation=level)
        options.add_free_dimension_override_by_name(BATCH, batch)
        cuda = replace(
            self._tuning.cuda,
            stream=stream,
            tf32=self._tuning.cuda.tf32 or architecture.precision == "half",
        )
        with self._memory.gate.together():
            session = open_session(architecture.graphs[form], options, self._memory.device, cuda)
        elsewhere = read_on_processor(session) if self._memory.device.kind == "cuda" else ()
        if elsewhere:
            raise AvatarInvalid(
                f"{self._memory.device} cannot run this network: ONNX Runtime reads"
                f" {', '.join(elsewhere[:4])} ({len(elsewhere)} inputs) on the processor"
            )
        return session
