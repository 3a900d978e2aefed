"""A GPU's lane: one stream of work, with all that a run in it needs kept ready.

    faces, speech ─▶ pinned ─▶ device ─┐
    crops that are kept (``crops``) ───┼─▶ the graph ─▶ device ─▶ pinned ─▶ mouths
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
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from lipwire.domain import AUDIO_WINDOW_SHAPE, Float32Array
from lipwire.engine.devices import not_waited_for
from lipwire.engine.faces import CROP_BYTES, Face, stretches
from lipwire.engine.gpugraphs import Precision
from lipwire.engine.inspection import OUTPUT_SHAPE, VISUAL_SHAPE
from lipwire.engine.kernelruns import KernelRuns, Part, Program
from lipwire.engine.memory import Bytes, Memory, Region
from lipwire.engine.residency import Residency
from lipwire.engine.residents import Resident
from lipwire.engine.wrapping import FACE, MOUTH, PIXELS_SHAPE, SPEECH, Form

Array = npt.NDArray[Any]
Faces = Array | Sequence[Face]
"""Of a batch: all their pixels, or for each where they are."""

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


@dataclass(frozen=True, slots=True, eq=False)
class LanePart:
    """Frames of one avatar in a batch for kernels of our own, at least 1."""

    resident: Resident
    faces: Faces
    speech: Float32Array
    mouths: Array


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

    @property
    def device_bytes(self) -> int:
        return sum(region.size_bytes for region in self._regions)

    @property
    def host_bytes(self) -> int:
        return sum(block.nbytes for block in self._blocks)

    def run(self, stream: int, faces: Faces, speech: Float32Array, mouths: Array) -> None:
        """Fill ``mouths``, as many as there are ``faces``: at most the batch."""
        memory = self._memory
        frames = len(faces)
        if isinstance(faces, np.ndarray):
            self._send(stream, self._face, self._face_block, faces)
        else:
            self._gather(stream, faces)
        self._send(stream, self._speech, self._speech_block, speech)
        if self._runs_to_record:
            with memory.gate.alone():
                self._session.run_with_iobinding(self._binding, self._options)
                memory.wait(stream)
            self._runs_to_record -= 1
        else:
            with memory.gate.together():
                self._session.run_with_iobinding(self._binding, self._options)
        made = self._mouth_block[:frames]
        memory.download(stream, _bytes(made), self._mouth.address)
        memory.wait(stream)
        mouths[:] = made

    def _send(self, stream: int, region: Region, block: Array, values: Array) -> None:
        frames = len(values)
        block[:frames] = values
        block[frames:] = values[-1:]  # not what another request left there
        self._memory.upload(stream, region.address, _bytes(block))

    def _gather(self, stream: int, faces: Sequence[Face]) -> None:
        """Put ``faces`` in their places in the input: those on the device from there, the others
        from their pixels, of which those that are to be kept are copied on from the input."""
        memory, block, base = self._memory, self._face_block, self._face.address
        for there, run in groupby(range(len(faces)), key=lambda index: faces[index].there):
            if there:
                continue
            indices = list(run)
            for index in indices:
                block[index] = faces[index].pixels
            piece = block[indices[0] : indices[-1] + 1]
            memory.upload(stream, base + indices[0] * CROP_BYTES, _bytes(piece))
        for first, place, frames in stretches(faces):
            of_input, size_bytes = base + first * CROP_BYTES, frames * CROP_BYTES
            if place.there:
                memory.copy(stream, of_input, place.address, size_bytes)
            else:
                memory.copy(stream, place.address, of_input, size_bytes)
        last = base + (len(faces) - 1) * CROP_BYTES
        for index in range(len(faces), len(block)):  # not what another request left there
            memory.copy(stream, base + index * CROP_BYTES, last, CROP_BYTES)

    def close(self) -> None:
        self._session = self._binding = None
        with self._memory.gate.together():
            while self._regions:
                self._memory.free(self._regions.pop())
            while self._blocks:
                self._memory.free_host(self._blocks.pop())


def _bytes(array: Array) -> Bytes:
    return array.reshape(-1).view(np.uint8)


@dataclass(eq=False, slots=True)
class _Place:
    """What a lane has for one architecture."""

    architecture: weakref.ref[Architecture]
    slot: Region | None = None
    """Made when ONNX Runtime is first to run it: kernels of our own need none."""
    owner: Resident | None = None
    """Whose weights are in the slot."""
    ready: dict[tuple[Form, int], _Ready] = field(default_factory=dict)
    kernels: KernelRuns | None = None

    def all_ready(self) -> "list[_Ready | KernelRuns]":
        return [*tuple(self.ready.values()), *([self.kernels] if self.kernels else [])]


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
        faces: Faces,
        speech: Float32Array,
        mouths: Array,
    ) -> None:
        """Fill ``mouths`` for at most ``batch`` frames, in the lane's thread.

        Raises DeviceOutOfMemory, Overloaded, Unavailable, and whatever ONNX Runtime raises.
        """
        self._thread.submit(
            self._run, residency, architecture, resident, form, batch, faces, speech, mouths
        ).result()

    def run_kernels(
        self,
        residency: Residency,
        architecture: Architecture,
        program: Program,
        parts: Sequence[LanePart],
    ) -> None:
        """Fill the mouths of ``parts`` in ``program``, which is that of ``architecture``.

        As ``run``; of one avatar each.
        """
        self._thread.submit(self._run_kernels, residency, architecture, program, parts).result()

    def holds(self, resident: Resident) -> bool:
        """Whether the weights of ``resident`` are in place already."""
        return any(place.owner is resident for place in self._places)

    @property
    def slot_bytes(self) -> int:
        """What its slots take of the device."""
        slots = [place.slot for place in tuple(self._places)]
        return sum(slot.size_bytes for slot in slots if slot is not None)

    @property
    def staging_bytes(self) -> tuple[int, int]:
        """What inputs and outputs take: of the device, and of the host's pinned memory."""
        ready = [each for place in tuple(self._places) for each in place.all_ready()]
        return sum(each.device_bytes for each in ready), sum(each.host_bytes for each in ready)

    def tidy(self) -> None:
        """Give back what is kept ready for architectures that nobody has any more."""
        if self._places:
            self._thread.submit(self._drop_unused).result()

    def clear(self) -> None:
        """Give back all that is kept ready: the next runs are slow, and room is made."""
        self._thread.submit(self._drop, list(self._places)).result()

    def close(self) -> None:
        """What is under way finishes. The lane is of no use afterwards. Raises DeviceLost."""
        try:
            self._thread.submit(self._drop, list(self._places)).result()
        finally:
            self._thread.shutdown()
            self._memory.close_stream(self._stream)

    def _run(
        self,
        residency: Residency,
        architecture: Architecture,
        resident: Resident,
        form: Form,
        batch: int,
        faces: Faces,
        speech: Float32Array,
        mouths: Array,
    ) -> None:
        self._drop_unused()
        place = self._place_of(architecture)
        if place.slot is None:
            with self._memory.gate.together():
                place.slot = self._memory.allocate(architecture.image_bytes)
        slot = place.slot
        ready = place.ready.get((form, batch))
        if ready is None:
            session = self._open_session(architecture, form, batch, self._stream)
            weights = architecture.weights[form]
            ready = _Ready(self._memory, session, form, batch, slot, weights, record=self._record)
            place.ready[form, batch] = ready
        if place.owner is resident:
            residency.touch(resident)
            with self._waited_for():
                ready.run(self._stream, faces, speech, mouths)
            return
        # Whatever happens now, the slot is nobody's until it is known to be whole.
        place.owner = None
        with residency.use(resident) as region, self._waited_for():
            size_bytes = resident.size_bytes
            self._memory.copy(self._stream, slot.address, region.address, size_bytes)
            ready.run(self._stream, faces, speech, mouths)
        place.owner = resident

    def _run_kernels(
        self,
        residency: Residency,
        architecture: Architecture,
        program: Program,
        parts: Sequence[LanePart],
    ) -> None:
        self._drop_unused()
        place = self._place_of(architecture)
        if place.kernels is None:
            place.kernels = KernelRuns(self._memory, program, self._stream)
        # Before weights are brought: where there is room for them alone, they would be given up for
        # this and brought again.
        place.kernels.prepare(sum(len(part.mouths) for part in parts))
        with ExitStack() as stack:
            given = [
                Part(
                    stack.enter_context(residency.use(part.resident)).address,
                    part.faces,
                    part.speech,
                    part.mouths,
                )
                for part in parts
            ]
            stack.enter_context(self._waited_for())
            place.kernels.run(given)

    @contextmanager
    def _waited_for(self) -> Iterator[None]:
        """A run waits for its copies; one that fails may leave some, to and from memory that is
        somebody else's soon."""
        try:
            yield
        except BaseException:
            with suppress(RuntimeError):  # of a recording that broke off: the first error says why
                self._memory.wait(self._stream)
            raise

    def _place_of(self, architecture: Architecture) -> _Place:
        for place in self._places:
            if place.architecture() is architecture:
                return place
        place = _Place(weakref.ref(architecture))
        self._places.append(place)
        return place

    def _drop_unused(self) -> None:
        self._drop([place for place in self._places if place.architecture() is None])

    def _drop(self, places: list[_Place]) -> None:
        for place in places:
            self._places.remove(place)
            for ready in place.all_ready():
                ready.close()
            if place.slot is not None:
                with self._memory.gate.together():
                    self._memory.free(place.slot)
