"""A GPU's lane: one stream of work, with all that a run in it needs kept ready.

    faces, speech ─▶ pinned ─▶ device ─┐
                                       ├─▶ the graph ─▶ device ─▶ pinned ─▶ mouths
    the avatar's weights ─▶ the slot ──┘

The graph of an architecture reads its weights from one place, the lane's *slot*. Whose they are is
a matter of a copy within the device, which takes microseconds (24 MB at 4 TB/s: 12), so an avatar
that is on the device needs no bindings, no recorded kernels and no session of its own. The slot
keeps what it holds until another avatar's turn.

Everything stands in one stream, in this order, and is waited for once. Other lanes compute
meanwhile. A lane has a thread of its own: ONNX Runtime keeps a GPU's handles, and the kernels it
recorded, by thread.
"""

import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from lipwire.domain import AUDIO_WINDOW_SHAPE, Float32Array
from lipwire.engine.devices import not_waited_for
from lipwire.engine.gpugraphs import Precision
from lipwire.engine.inspection import OUTPUT_SHAPE, VISUAL_SHAPE
from lipwire.engine.memory import Bytes, Memory, Region
from lipwire.engine.residency import Residency, Resident
from lipwire.engine.wrapping import FACE, MOUTH, PIXELS_SHAPE, SPEECH, Form

Array = npt.NDArray[Any]

RECORDED_AFTER: Final = 3
"""Runs after which ONNX Runtime has recorded a session's kernels, where it is to."""

_FACES: Final[Mapping[Form, tuple[tuple[int, ...], type]]] = {
    "pixels": (PIXELS_SHAPE, np.uint8),
    "floats": (VISUAL_SHAPE, np.float32),
}
_MOUTHS: Final[Mapping[Form, tuple[tuple[int, ...], type]]] = {
    "pixels": (PIXELS_SHAPE, np.uint8),
    "floats": (OUTPUT_SHAPE, np.float32),
}


@dataclass(frozen=True, slots=True)
class Input:
    """One weight as a graph takes it."""

    name: str
    element_type: str
    shape: tuple[int, ...]
    place_bytes: int
    """Its offset in the image, and in the slot."""


@dataclass(frozen=True, eq=False)
class Architecture:
    """What avatars of equal graphs have in common. Kept alive by them, and by nothing else."""

    graphs: Mapping[Form, bytes]
    weights: Mapping[Form, Sequence[Input]]
    image_bytes: int
    precision: Precision


OpenSession = Callable[[Architecture, Form, int, int], Any]
"""``(architecture, form, batch, stream)``: a session at a batch of so many frames."""


class _Ready:
    """One graph at one batch size: its session, and the places its inputs and output have."""

    def __init__(
        self,
        memory: Memory,
        session: Any,
        form: Form,
        batch: int,
        slot: Region,
        weights: Sequence[Input],
        *,
        record: bool,
    ) -> None:
        self._memory = memory
        self._session = session
        self._binding = session.io_binding()
        self._options = not_waited_for()
        self._runs_to_record = RECORDED_AFTER if record else 0
        self._regions: list[Region] = []
        self._blocks: list[Bytes] = []
        try:
            self._face, self._face_block = self._place(batch, *_FACES[form])
            self._speech, self._speech_block = self._place(batch, AUDIO_WINDOW_SHAPE, np.float32)
            self._mouth, self._mouth_block = self._place(batch, *_MOUTHS[form])
        except BaseException:
            self.close()
            raise
        device = memory.device
        for name, array, region in (
            (FACE, self._face_block, self._face),
            (SPEECH, self._speech_block, self._speech),
        ):
            self._binding.bind_input(
                name, device.kind, device.index, array.dtype, array.shape, region.address
            )
        for weight in weights:
            self._binding.bind_input(
                weight.name,
                device.kind,
                device.index,
                np.dtype(weight.element_type),
                weight.shape,
                slot.address + weight.place_bytes,
            )
        mouth = self._mouth_block
        self._binding.bind_output(
            MOUTH, device.kind, device.index, mouth.dtype, mouth.shape, self._mouth.address
        )

    def _place(
        self, batch: int, shape: tuple[int, ...], kind: type
    ) -> tuple[Region, npt.NDArray[Any]]:
        """Room for an array on the device, and the pinned array that it is copied from or to."""
        size_bytes = batch * int(np.prod(shape)) * np.dtype(kind).itemsize
        with self._memory.gate.together():
            self._regions.append(self._memory.allocate(size_bytes))
            self._blocks.append(self._memory.allocate_host(size_bytes))
        return self._regions[-1], self._blocks[-1].view(kind).reshape(batch, *shape)

    def run(self, stream: int, faces: Array, speech: Float32Array, mouths: Array) -> None:
        """Fill ``mouths``, as many as there are ``faces``: at most the batch."""
        memory = self._memory
        frames = len(faces)
        for block, values, region in (
            (self._face_block, faces, self._face),
            (self._speech_block, speech, self._speech),
        ):
            block[:frames] = values
            block[frames:] = values[-1:]  # not what another request left there
            memory.upload(stream, region.address, block.reshape(-1).view(np.uint8))
        if self._runs_to_record:
            with memory.gate.alone():
                self._session.run_with_iobinding(self._binding, self._options)
                memory.wait(stream)
            self._runs_to_record -= 1
        else:
            with memory.gate.together():
                self._session.run_with_iobinding(self._binding, self._options)
        made = self._mouth_block[:frames]
        memory.download(stream, made.reshape(-1).view(np.uint8), self._mouth.address)
        memory.wait(stream)
        mouths[:] = made

    def close(self) -> None:
        self._session = self._binding = None
        with self._memory.gate.together():
            while self._regions:
                self._memory.free(self._regions.pop())
            while self._blocks:
                self._memory.free_host(self._blocks.pop())


@dataclass(eq=False, slots=True)
class _Place:
    """What a lane has for one architecture."""

    architecture: weakref.ref[Architecture]
    slot: Region
    owner: Resident | None = None
    """Whose weights are in the slot."""
    ready: dict[tuple[Form, int], _Ready] = field(default_factory=dict)


class Lane:
    """Runs batches one after another. ``run`` is called by its own thread, through ``submit``."""

    def __init__(
        self, number: int, memory: Memory, open_session: OpenSession, *, record: bool = False
    ) -> None:
        """``record`` has a session's kernels recorded and launched together."""
        self._memory = memory
        self._open_session = open_session
        self._record = record
        self._stream = memory.open_stream()
        self._places: list[_Place] = []
        self._thread = ThreadPoolExecutor(1, f"lipwire-lane-{memory.device}-{number}")

    def run(
        self,
        residency: Residency,
        architecture: Architecture,
        resident: Resident,
        form: Form,
        batch: int,
        faces: Array,
        speech: Float32Array,
        mouths: Array,
    ) -> None:
        """Fill ``mouths`` for at most ``batch`` frames, in the lane's thread.

        Raises DeviceOutOfMemory, Overloaded, Unavailable, and whatever ONNX Runtime raises.
        """
        self._thread.submit(
            self._run, residency, architecture, resident, form, batch, faces, speech, mouths
        ).result()

    def holds(self, resident: Resident) -> bool:
        """Whether the weights of ``resident`` are in place already."""
        return any(place.owner is resident for place in self._places)

    def clear(self) -> None:
        """Give back all that is kept ready: the next runs are slow, and room is made."""
        self._thread.submit(self._drop, list(self._places)).result()

    def close(self) -> None:
        """What is under way finishes. The lane is of no use afterwards."""
        self._thread.submit(self._drop, list(self._places)).result()
        self._thread.shutdown()
        self._memory.close_stream(self._stream)

    def _run(
        self,
        residency: Residency,
        architecture: Architecture,
        resident: Resident,
        form: Form,
        batch: int,
        faces: Array,
        speech: Float32Array,
        mouths: Array,
    ) -> None:
        self._drop([place for place in self._places if place.architecture() is None])
        place = self._place_of(architecture)
        ready = place.ready.get((form, batch))
        if ready is None:
            session = self._open_session(architecture, form, batch, self._stream)
            weights = architecture.weights[form]
            ready = _Ready(
                self._memory, session, form, batch, place.slot, weights, record=self._record
            )
            place.ready[form, batch] = ready
        if place.owner is resident:
            residency.touch(resident)
            ready.run(self._stream, faces, speech, mouths)
            return
        # Whatever happens now, the slot is nobody's until it is known to be whole.
        place.owner = None
        with residency.use(resident) as region:
            size_bytes = resident.size_bytes
            self._memory.copy(self._stream, place.slot.address, region.address, size_bytes)
            try:
                ready.run(self._stream, faces, speech, mouths)
            except BaseException:
                self._memory.wait(self._stream)  # the copy may still read the region
                raise
        place.owner = resident

    def _place_of(self, architecture: Architecture) -> _Place:
        for place in self._places:
            if place.architecture() is architecture:
                return place
        with self._memory.gate.together():
            slot = self._memory.allocate(architecture.image_bytes)
        place = _Place(weakref.ref(architecture), slot)
        self._places.append(place)
        return place

    def _drop(self, places: list[_Place]) -> None:
        for place in places:
            self._places.remove(place)
            for ready in place.ready.values():
                ready.close()
            with self._memory.gate.together():
                self._memory.free(place.slot)
