"""A CUDA stream with what its runs need: a thread, sessions, recorded kernels, buffers.

    faces, speech ─▶ pinned ─▶ device ─┐
    crops that are kept (``crops``) ───┼─▶ the graph ─▶ device ─▶ pinned ─▶ mouths
    the avatar's weights ─▶ the slot ──┘

The graph of an architecture reads its weights from one place, the stream's *slot*. Another avatar's
weights come there by a copy within the device, which takes microseconds (24 MB at 4 TB/s: 12), so
an avatar that is on the device needs no bindings, no recorded kernels and no session of its own.
The slot keeps an avatar's weights until another avatar is run.

Copies and kernels of a run stand in the stream in this order, and are waited for once. Other
streams compute meanwhile. Each has a thread of its own: ONNX Runtime keeps a GPU's handles, and the
kernels it recorded, by thread.
"""

import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final

import numpy.typing as npt

from lipwire.domain import Float32Array, Form
from lipwire.engine.gpu.kernels.running.kernelruns import KernelRuns, Part, Program
from lipwire.engine.gpu.memory.cropplaces import Faces
from lipwire.engine.gpu.memory.devicememory import Memory, Region
from lipwire.engine.gpu.memory.deviceweights import DeviceWeights
from lipwire.engine.gpu.memory.weightscache import WeightsCache
from lipwire.engine.gpu.onnx.architectures import Architecture, OpenSession
from lipwire.engine.gpu.onnx.boundsession import BoundSession

_Array = npt.NDArray[Any]

_ROOM_WAIT_S: Final = 2.0
"""For weights in use by other streams to be free: their runs take milliseconds."""


@dataclass(frozen=True, slots=True, eq=False)
class StreamPart:
    """N frames of one avatar, at least 1, in a batch for Lipwire's own kernels: the avatar's
    ``weights``, its ``faces`` (crops, or a ``Face`` for each frame, which says where its crop is on
    the device), the audio windows (``speech``), (N, 32, 16, 16) float32, and the array into which
    the ``mouths`` are written, (N, 320, 320, 3) uint8."""

    weights: DeviceWeights
    faces: Faces
    speech: Float32Array
    mouths: _Array


@dataclass(eq=False, slots=True)
class _Prepared:
    """What a stream has ready for one architecture."""

    architecture: weakref.ref[Architecture]
    slot: Region | None = None
    """Made when ONNX Runtime is first to run it: kernels of our own need none."""
    owner: DeviceWeights | None = None
    """Whose weights are in the slot."""
    ready: dict[tuple[Form, int], BoundSession] = field(default_factory=dict)
    kernels: KernelRuns | None = None

    def all_ready(self) -> "list[BoundSession | KernelRuns]":
        return [*tuple(self.ready.values()), *([self.kernels] if self.kernels else [])]


class GpuStream:
    """A stream of a GPU: runs batches one after another, in a thread of its own, and keeps the
    sessions, weights and buffers that the runs need.

    Methods hand their work to that thread and wait for it. ``run`` and ``run_kernels`` are for one
    caller at a time, which got the stream from ``StreamPool``; the properties and ``holds`` may be
    used from any thread.
    """

    def __init__(
        self, number: int, memory: Memory, open_session: OpenSession, *, record: bool = False
    ) -> None:
        """``memory`` is that of the device. ``number`` is a part of the name of the stream's
        thread. ``open_session`` opens sessions of ONNX Runtime (``session_opener``). With
        ``record`` a session's kernels are recorded and launched together (CUDA graphs). Raises
        DeviceOutOfMemory where there is no room for a stream, DeviceLost where the device has
        failed."""
        self._memory = memory
        self._open_session = open_session
        self._record = record
        self._stream = memory.open_stream()
        self._prepared: list[_Prepared] = []
        self._thread = ThreadPoolExecutor(1, f"lipwire-stream-{memory.device}-{number}")

    def run(
        self,
        weights_cache: WeightsCache,
        architecture: Architecture,
        weights: DeviceWeights,
        form: Form,
        batch: int,
        faces: Faces,
        speech: Float32Array,
        mouths: _Array,
    ) -> None:
        """Write the mouths of N ``faces`` into ``mouths``, in the stream's thread, with ONNX
        Runtime, and wait for the end.

        ``weights`` are the avatar's, copied to the device by ``weights_cache``; ``architecture`` is
        that of its network. ``batch`` is the batch size of the session that is run, N or more. For
        the ``form`` "pixels" ``faces`` are crops (or a ``Face`` for each frame) and ``mouths``
        mouths, (N, 320, 320, 3) uint8; for "floats" they are (N, 6, 320, 320) and (N, 3, 320, 320)
        float32; ``speech`` is the audio windows, (N, 32, 16, 16) float32.

        Raises DeviceOutOfMemory where the device is full, Overloaded where there is no room for the
        weights beside those in use, Unavailable where the network was unloaded or the device has
        failed, AvatarInvalid where ONNX Runtime would read an input on the processor, and one of
        ``RUNTIME_ERRORS`` where ONNX Runtime fails.
        """
        self._thread.submit(
            self._run, weights_cache, architecture, weights, form, batch, faces, speech, mouths
        ).result()

    def run_kernels(
        self,
        weights_cache: WeightsCache,
        architecture: Architecture,
        program: Program,
        parts: Sequence[StreamPart],
    ) -> None:
        """Make the mouths of all ``parts`` in one batch, in the stream's thread, write them into
        the parts' arrays (``StreamPart.mouths``), and wait for the end.

        ``program`` has the kernels for ``architecture``, which all avatars' networks have;
        ``weights_cache`` copies the avatars' weights to the device. Raises DeviceOutOfMemory where
        the device is full, Overloaded where there is no room for the weights beside those in use,
        Unavailable where a network was unloaded or the device has failed, KernelsUnavailable where
        the kernels cannot run.
        """
        self._thread.submit(self._run_kernels, weights_cache, architecture, program, parts).result()

    def holds(self, weights: DeviceWeights) -> bool:
        """Return whether ``weights`` are in one of the stream's slots now, the places from which
        ONNX Runtime reads weights, so that a run with them need not copy them there."""
        return any(prepared.owner is weights for prepared in self._prepared)

    @property
    def slot_bytes(self) -> int:
        """Bytes of the device that the stream's slots take, the places from which ONNX Runtime
        reads an avatar's weights."""
        slots = [prepared.slot for prepared in tuple(self._prepared)]
        return sum(slot.size_bytes for slot in slots if slot is not None)

    @property
    def staging_bytes(self) -> tuple[int, int]:
        """Bytes that inputs, outputs and intermediate tensors take: (of the device, of the host's
        pinned memory)."""
        ready = [each for prepared in tuple(self._prepared) for each in prepared.all_ready()]
        return sum(each.device_bytes for each in ready), sum(each.host_bytes for each in ready)

    def tidy(self) -> None:
        """Free what the stream keeps for architectures (networks with equal graphs) of which no
        network is loaded any more. Waits for a run under way. Raises DeviceLost where the device
        has failed."""
        if self._prepared:
            self._thread.submit(self._drop_unused).result()

    def clear(self) -> None:
        """Free everything the stream keeps on the device (sessions, slots, buffers), to make room;
        later runs make it anew and are slow at first. Waits for a run under way. Raises DeviceLost
        where the device has failed."""
        self._thread.submit(self._drop, list(self._prepared)).result()

    def close(self) -> None:
        """Wait until a run under way is over, free everything the stream keeps, and end its thread.
        Raises DeviceLost where the device has failed; the stream's thread is ended then too."""
        try:
            self._thread.submit(self._drop, list(self._prepared)).result()
        finally:
            self._thread.shutdown()
            self._memory.close_stream(self._stream)

    def _run(
        self,
        weights_cache: WeightsCache,
        architecture: Architecture,
        weights: DeviceWeights,
        form: Form,
        batch: int,
        faces: Faces,
        speech: Float32Array,
        mouths: _Array,
    ) -> None:
        self._drop_unused()
        prepared = self._prepared_for(architecture)
        if prepared.slot is None:
            with self._memory.allocation_lock.shared():
                prepared.slot = self._memory.allocate(architecture.image_bytes)
        slot = prepared.slot
        ready = prepared.ready.get((form, batch))
        if ready is None:
            session = self._open_session(architecture, form, batch, self._stream)
            inputs = architecture.weights[form]
            ready = BoundSession(
                self._memory, session, form, batch, slot, inputs, record=self._record
            )
            prepared.ready[form, batch] = ready
        if prepared.owner is weights:
            weights_cache.touch(weights)
            with self._waited_for():
                ready.run(self._stream, faces, speech, mouths)
            return
        # Whatever happens now, the slot is nobody's until it is known to be whole.
        prepared.owner = None
        with weights_cache.use(weights, wait_s=_ROOM_WAIT_S) as region, self._waited_for():
            size_bytes = weights.size_bytes
            self._memory.copy(self._stream, slot.address, region.address, size_bytes)
            ready.run(self._stream, faces, speech, mouths)
        prepared.owner = weights

    def _run_kernels(
        self,
        weights_cache: WeightsCache,
        architecture: Architecture,
        program: Program,
        parts: Sequence[StreamPart],
    ) -> None:
        self._drop_unused()
        prepared = self._prepared_for(architecture)
        if prepared.kernels is None:
            prepared.kernels = KernelRuns(self._memory, program, self._stream)
        # Before weights are brought: where there is room for them alone, they would be given up for
        # this and brought again.
        prepared.kernels.prepare(sum(len(part.mouths) for part in parts))
        with ExitStack() as stack:
            given: list[Part] = []
            for part in parts:
                using = weights_cache.use(part.weights, wait_s=_ROOM_WAIT_S, beside=bool(given))
                region = stack.enter_context(using)
                given.append(Part(region.address, part.faces, part.speech, part.mouths))
            stack.enter_context(self._waited_for())
            prepared.kernels.run(given)

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

    def _prepared_for(self, architecture: Architecture) -> _Prepared:
        for prepared in self._prepared:
            if prepared.architecture() is architecture:
                return prepared
        prepared = _Prepared(weakref.ref(architecture))
        self._prepared.append(prepared)
        return prepared

    def _drop_unused(self) -> None:
        self._drop([prepared for prepared in self._prepared if prepared.architecture() is None])

    def _drop(self, given_up: list[_Prepared]) -> None:
        for prepared in given_up:
            self._prepared.remove(prepared)
            for ready in prepared.all_ready():
                ready.close()
            if prepared.slot is not None:
                with self._memory.allocation_lock.shared():
                    self._memory.free(prepared.slot)
