"""Running networks on a device: its lanes, its resident weights, and what happens when it is full.

Written over ``Memory``: the same code runs on a GPU, and on the processor in the tests.
"""

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from lipwire.domain import Float32Array, InvalidInput, Overloaded, UInt8Array, Unavailable
from lipwire.engine.architectures import Architectures
from lipwire.engine.budget import Budget
from lipwire.engine.crops import Crops, CropStats
from lipwire.engine.faces import Face, Faces, Frames
from lipwire.engine.gpunetworks import GpuNetwork
from lipwire.engine.gpusessions import session_opener
from lipwire.engine.gpustorage import GpuManifest, GpuModel, ImageSource
from lipwire.engine.guarding import AT_LEAST_BYTES, Guard
from lipwire.engine.kernelruns import Program
from lipwire.engine.kernelshelf import KernelShelf
from lipwire.engine.lanepool import LanePool
from lipwire.engine.lanes import Lane, LanePart
from lipwire.engine.memory import DeviceLost, Memory
from lipwire.engine.residency import Residency, ResidencyStats
from lipwire.engine.tuning import Tuning
from lipwire.engine.wrapping import Form

_Array = npt.NDArray[Any]
_SHARE: Final = 0.75
"""Of a device's free memory that weights and crops may take unless told otherwise: lanes need the
rest."""
_SPARE_SHARE: Final = 0.125
"""Of a device's free memory at the start, up to AT_LEAST_BYTES, that crops leave free."""


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
    """Of lanes: inputs and outputs, and what kernels of our own have in between."""
    pinned_weights: int
    pinned_staging: int

    @property
    def device(self) -> int:
        """All that is on the device."""
        return self.weights + self.crops + self.slots + self.staging


@dataclass(frozen=True, slots=True, eq=False)
class GpuRequest:
    """Frames of one network."""

    network: GpuNetwork
    faces: _Array | Sequence[int]
    """Pixels, or numbers of frames of its avatar."""
    speech: Float32Array
    mouths: UInt8Array
    """To be filled."""


class Gpu:
    """One device with its lanes. Thread-safe; ``close`` it.

    Raises Unavailable from the first time on that the device fails for good.
    """

    def __init__(self, memory: Memory, tuning: Tuning, *, threads: int | None = None) -> None:
        """``threads`` is for what runs on the processor."""
        self._memory = memory
        self._tuning = tuning
        free_bytes = memory.free_bytes()
        share_bytes = int(free_bytes * _SHARE)
        budget = Budget(share_bytes if tuning.device_bytes is None else tuning.device_bytes)
        self._crops = Crops(
            memory,
            budget,
            most_bytes=tuning.crop_bytes,
            spare_bytes=min(int(free_bytes * _SPARE_SHARE), AT_LEAST_BYTES),
        )
        self._residency = Residency(
            memory,
            device_bytes=budget,
            host_bytes=tuning.host_bytes,
            max_items=tuning.max_models,
            give_way=self._crops.give_up,
        )
        open_session = session_opener(memory, tuning.cuda, threads=threads)
        self._lanes = LanePool(
            [
                Lane(number, memory, open_session, record=tuning.cuda.graphs)
                for number in range(tuning.lanes)
            ]
        )
        self._architectures = Architectures()
        self._kernels = KernelShelf(memory) if tuning.kernels else None
        self._guard = Guard(memory, self._crops, self._residency)

    @property
    def stats(self) -> ResidencyStats:
        return self._residency.stats()

    @property
    def crop_stats(self) -> CropStats:
        return self._crops.stats()

    @property
    def memory_use(self) -> GpuMemoryUse:
        weights = self._residency.stats()
        staging_bytes, pinned_staging_bytes = self._lanes.staging_bytes
        return GpuMemoryUse(
            weights=weights.device_bytes,
            crops=self._crops.stats().device_bytes,
            slots=self._lanes.slot_bytes,
            staging=staging_bytes,
            pinned_weights=weights.host_bytes,
            pinned_staging=pinned_staging_bytes,
        )

    @property
    def architectures(self) -> int:
        """Kinds of networks in use, each with sessions of its own."""
        return len(self._architectures)

    def runs(self, form: Form) -> bool:
        """Whether networks that are on the device run in ``form`` there: kernels of our own, which
        may be all there is, only know pixels."""
        return form == "pixels" or self._memory.onnx_problem() is None

    def load(
        self,
        folder: Path,
        manifest: GpuManifest,
        fixed_batch: int | None,
        frames: Frames | None = None,
    ) -> GpuNetwork | None:
        """The network in ``folder``, on the device where there is room; None where it has no form
        for GPUs, or none that runs on this one. ``frames`` are those of its avatar. Raises
        AvatarInvalid, Unavailable."""
        self._guard.check()
        wanted = manifest.models.get(self._tuning.precision)
        model = wanted or manifest.models.get("single")
        if model is None:
            return None
        source = ImageSource(folder, model)
        program = self._program(folder, model, fixed_batch, source)
        if program is None and self._memory.onnx_problem() is not None:
            return None
        resident = self._residency.add(source)
        sizes = self._tuning.batch_sizes if fixed_batch is None else (fixed_batch,)
        keeps = frames is not None and self._crops.keeps_any
        crops = self._crops.add(frames.frame_count) if frames is not None and keeps else None
        architecture = self._architectures.of(folder, model)
        network = GpuNetwork(architecture, resident, model.precision, sizes, frames, crops, program)
        network.finalizers.append(weakref.finalize(network, self._residency.remove, resident))
        if crops is not None:
            network.finalizers.append(weakref.finalize(network, self._crops.remove, crops))
        for finalizer in network.finalizers:
            finalizer.atexit = False
        self._guard.run(lambda: self._residency.prefetch(resident))
        return network

    def prefetch(self, network: GpuNetwork) -> bool:
        """Bring a network's weights to the device; False where there is no room for them."""
        return self._guard.run(lambda: self._residency.prefetch(network.resident))

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
            self._lanes.tidy()

    def run(
        self, network: GpuNetwork, form: Form, faces: _Array, speech: Float32Array, mouths: _Array
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
            self._lanes.tidy()

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
            self._lanes.tidy()

    def close(self) -> None:
        """Runs under way finish; later ones raise."""
        if not self._lanes.close():
            return
        for close in (
            *(() if self._kernels is None else (self._kernels.close,)),
            self._crops.close,
            self._residency.close,
        ):
            with suppress(DeviceLost):  # which keeps nothing that is worth giving back
                close()

    def run_together(self, requests: Sequence[GpuRequest]) -> None:
        """Fill the mouths of ``requests`` in one batch of at most MOST_FRAMES; all networks have
        the same ``program``. Where there is no room for all their weights at a time they are run
        one after the other. Raises as ``run`` and ``run_frames``; then any may be filled or not.
        """
        program, architecture = requests[0].network.program, requests[0].network.architecture
        assert program is not None  # as asked for
        if architecture is None or any(each.network.architecture is None for each in requests):
            raise Unavailable("the network was unloaded")
        # Before a lane is taken, for that would wait meanwhile.
        pixels = [self._missing(each.network, each.faces) for each in requests]

        def run(lane: Lane) -> None:
            with ExitStack() as stack:
                parts = [
                    LanePart(
                        each.network.resident,
                        stack.enter_context(self._given(each.network, each.faces, found)),
                        each.speech,
                        each.mouths,
                    )
                    for each, found in zip(requests, pixels, strict=True)
                ]
                self._guard.run(
                    lambda: lane.run_kernels(self._residency, architecture, program, parts), lane
                )

        with self._lanes.taken(None) as lane:
            if len(requests) == 1:
                self._without_crops_if_full(lambda: run(lane))
                return
            with suppress(Overloaded):
                run(lane)
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
            self.run_together([GpuRequest(network, faces, speech, mouths)])
            return
        architecture = network.architecture
        if architecture is None:
            raise Unavailable("the network was unloaded")
        pixels = self._missing(network, faces)

        def run(lane: Lane) -> None:
            with self._given(network, faces, pixels) as given:
                self._guard.run(
                    lambda: lane.run(
                        self._residency,
                        architecture,
                        network.resident,
                        form,
                        batch,
                        given,
                        speech,
                        mouths,
                    ),
                    lane,
                )

        with self._lanes.taken(network.resident) as lane:
            self._without_crops_if_full(lambda: run(lane))

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

    def _program(
        self, folder: Path, model: GpuModel, fixed_batch: int | None, source: ImageSource
    ) -> Program | None:
        """Kernels that run ``model``; None where ONNX Runtime does."""
        shelf = self._kernels
        if shelf is None or model.precision != "half":
            return None
        pixels = model.graphs["pixels"]
        return self._guard.run(lambda: shelf.program(folder, pixels, fixed_batch, source))
