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
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final

import numpy.typing as npt

from lipwire.domain import Float32Array
from lipwire.engine.architectures import Architecture, OpenSession
from lipwire.engine.boundsession import BoundSession
from lipwire.engine.faces import Faces
from lipwire.engine.kernelruns import KernelRuns, Part, Program
from lipwire.engine.memory import Memory, Region
from lipwire.engine.residency import Residency
from lipwire.engine.residents import Resident
from lipwire.engine.wrapping import Form

_Array = npt.NDArray[Any]

_ROOM_WAIT_S: Final = 2.0
"""For weights in use by other lanes to be free: their runs take milliseconds."""


@dataclass(frozen=True, slots=True, eq=False)
class LanePart:
    """Frames of one avatar in a batch for kernels of our own, at least 1."""

    resident: Resident
    faces: Faces
    speech: Float32Array
    mouths: _Array


@dataclass(eq=False, slots=True)
class _Place:
    """What a lane has for one architecture."""

    architecture: weakref.ref[Architecture]
    slot: Region | None = None
    """Made when ONNX Runtime is first to run it: kernels of our own need none."""
    owner: Resident | None = None
    """Whose weights are in the slot."""
    ready: dict[tuple[Form, int], BoundSession] = field(default_factory=dict)
    kernels: KernelRuns | None = None

    def all_ready(self) -> "list[BoundSession | KernelRuns]":
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
        mouths: _Array,
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
        mouths: _Array,
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
            ready = BoundSession(
                self._memory, session, form, batch, slot, weights, record=self._record
            )
            place.ready[form, batch] = ready
        if place.owner is resident:
            residency.touch(resident)
            with self._waited_for():
                ready.run(self._stream, faces, speech, mouths)
            return
        # Whatever happens now, the slot is nobody's until it is known to be whole.
        place.owner = None
        with residency.use(resident, wait_s=_ROOM_WAIT_S) as region, self._waited_for():
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
            given: list[Part] = []
            for part in parts:
                using = residency.use(part.resident, wait_s=_ROOM_WAIT_S, beside=bool(given))
                region = stack.enter_context(using)
                given.append(Part(region.address, part.faces, part.speech, part.mouths))
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
