"""Runs of a network in kernels of our own: no session, no slot, and one launch for all of it.

    numbers, speech ─▶ pinned ─▶ device ─┐
    crops that are kept, where they are ─┼─▶ a recording ─▶ device ─▶ pinned ─▶ mouths
    the avatar's weights, likewise ──────┘

A recording has the addresses of two tables in it, and they say where each frame's weights and crop
are. So one recording serves every avatar, and what is on the device is not copied there.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from lipwire.domain import AUDIO_WINDOW_SHAPE, Float32Array, UInt8Array
from lipwire.engine.forms import PIXELS_SHAPE
from lipwire.engine.gpu.kernels.lowering.lowered import Lowered
from lipwire.engine.gpu.kernels.lowering.operations import Addresses
from lipwire.engine.gpu.memory.buffers import Buffers
from lipwire.engine.gpu.memory.cropplaces import CROP_BYTES, Face, stretches
from lipwire.engine.gpu.memory.devicememory import Memory
from lipwire.engine.gpu.programs import Module, Programs, Recording

Faces = UInt8Array | Sequence[Face]
"""Of a batch: all their pixels, or for each where they are."""

_SPEECH_BYTES: Final = int(np.prod(AUDIO_WINDOW_SHAPE)) * 4
_ADDRESS_BYTES: Final = 8


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """N frames of one avatar, at least 1, in a batch: the address of the avatar's weights on the
    device (``image``), its ``faces`` (crops, or a ``Face`` for each frame, which says where its
    crop is on the device), the audio windows (``speech``), (N, 32, 16, 16) float32, and the array
    into which the ``mouths`` are written, (N, 320, 320, 3) uint8."""

    image: int
    """The address of the avatar's weights on the device."""
    faces: Faces
    speech: Float32Array
    mouths: UInt8Array
    """(N, 320, 320, 3) uint8, into which the mouths are written."""


@dataclass(frozen=True, slots=True, eq=False)
class Program:
    """The compiled kernels of one architecture (networks with equal graphs), loaded on one device:
    ``lowered`` says how they are launched, ``module`` is the loaded kernels, and ``programs`` runs
    them. ``number`` is different for each program of the process."""

    lowered: Lowered
    programs: Programs
    module: Module
    number: int = field(default_factory=itertools.count().__next__)
    """No other program of the process has it."""


class KernelRuns:
    """Runs the kernels of one architecture in one stream of a device, with buffers and recorded
    launches of its own. For one thread at a time, which also closes it."""

    def __init__(self, memory: Memory, program: Program, stream: int) -> None:
        """``memory`` is that of the device, ``program`` the kernels to run, ``stream`` the handle
        of the stream to run them in."""
        self._memory = memory
        self._program = program
        self._stream = stream
        self._batch_memory: _BatchMemory | None = None
        self._recordings: dict[int, Recording] = {}
        """By the number of frames."""

    @property
    def device_bytes(self) -> int:
        """Bytes of the device that inputs, outputs and intermediate tensors take."""
        return 0 if self._batch_memory is None else self._batch_memory.device_bytes

    @property
    def host_bytes(self) -> int:
        """Bytes of the host's pinned memory that inputs and outputs take."""
        return 0 if self._batch_memory is None else self._batch_memory.host_bytes

    def prepare(self, frames: int) -> None:
        """Allocate buffers and record launches for runs of ``frames`` frames, so that ``run`` need
        not do so. Raises DeviceOutOfMemory where there is no room, DeviceLost where the device has
        failed, KernelsUnavailable where the kernels cannot run on it."""
        self._ready(frames)

    def run(self, parts: Sequence[Part]) -> None:
        """Make the mouths of all ``parts`` in one batch, write them into the parts' arrays
        (``Part.mouths``), and wait for the end.

        By then, crops that are to be kept on the device (``Face.place``) are copied to their
        places. Raises DeviceOutOfMemory where there is no room, DeviceLost where the device has
        failed, KernelsUnavailable where the kernels cannot run on it, RuntimeError where launches
        could not be recorded because something else used the device meanwhile.
        """
        frames = sum(len(part.mouths) for part in parts)
        batch, recording = self._ready(frames)
        memory, stream = self._memory, self._stream
        batch.bring(stream, parts)
        self._program.programs.run(recording, stream)
        made = batch.mouths_block[: frames * CROP_BYTES]
        memory.download(stream, made, batch.mouths.address)
        memory.wait(stream)
        mouths = made.reshape(frames, *PIXELS_SHAPE)
        for part, place in _places(parts):
            part.mouths[:] = mouths[place]

    def close(self) -> None:
        """Free buffers and recordings; the next run makes them again. Raises DeviceLost where the
        device has failed."""
        while self._recordings:
            _, recording = self._recordings.popitem()
            self._program.programs.drop(recording)
        if self._batch_memory is not None:
            self._batch_memory.close()
            self._batch_memory = None

    def _ready(self, frames: int) -> tuple["_BatchMemory", Recording]:
        batch = self._batch_memory_for(frames)
        recording = self._recordings.get(frames)
        if recording is None:
            launches = self._program.lowered.launches(frames, batch.addresses)
            recording = self._program.programs.record(self._program.module, launches, self._stream)
            self._recordings[frames] = recording
        return batch, recording

    def _batch_memory_for(self, frames: int) -> "_BatchMemory":
        if self._batch_memory is None or self._batch_memory.frames < frames:
            self.close()  # recordings have its addresses
            self._batch_memory = _BatchMemory(self._memory, self._program.lowered, frames)
        return self._batch_memory


class _BatchMemory:
    """Memory for batches of up to ``frames``."""

    def __init__(self, memory: Memory, lowered: Lowered, frames: int) -> None:
        self._memory = memory
        self._buffers = buffers = Buffers(memory)
        self.frames: Final = frames
        tables_bytes = 2 * frames * _ADDRESS_BYTES
        tables_bytes += -tables_bytes % 16
        self._tables_bytes = tables_bytes
        inputs_bytes = tables_bytes + frames * _SPEECH_BYTES
        try:
            self._inputs = buffers.region(inputs_bytes)
            self._pixels = buffers.region(frames * CROP_BYTES)
            self.mouths = buffers.region(frames * CROP_BYTES)
            scratch = buffers.region(lowered.scratch_bytes(frames))
            self._inputs_block = buffers.block(inputs_bytes)
            self._pixels_block = buffers.block(frames * CROP_BYTES)
            self.mouths_block = buffers.block(frames * CROP_BYTES)
        except BaseException:
            self.close()
            raise
        tables = self._inputs_block[: 2 * frames * _ADDRESS_BYTES].view(np.uint64)
        self._weights, self._crops = tables[:frames], tables[frames:]
        self._speech = (
            self._inputs_block[tables_bytes:].view(np.float32).reshape(frames, *AUDIO_WINDOW_SHAPE)
        )
        tables[:] = 0
        self._speech[:] = 0
        self.addresses = Addresses(
            self._inputs.address,
            self._inputs.address + frames * _ADDRESS_BYTES,
            self._inputs.address + tables_bytes,
            self.mouths.address,
            scratch.address,
        )

    @property
    def device_bytes(self) -> int:
        return self._buffers.device_bytes

    @property
    def host_bytes(self) -> int:
        return self._buffers.host_bytes

    def bring(self, stream: int, parts: Sequence[Part]) -> None:
        """Send what a batch needs. Crops that are not on the device yet are uploaded, and copied to
        where they are to be kept."""
        brought: list[Face] = []
        addresses: list[int] = []
        for part, place in _places(parts):
            self._weights[place] = part.image
            self._speech[place] = part.speech
            for face in part.faces:
                if isinstance(face, Face) and face.place is not None and face.place.there:
                    addresses.append(face.place.address)
                    continue
                pixels = face.pixels if isinstance(face, Face) else face
                assert pixels is not None  # it is not there
                start = len(brought) * CROP_BYTES
                self._pixels_block[start : start + CROP_BYTES] = pixels.reshape(-1)
                brought.append(face if isinstance(face, Face) else Face(None, face))
                addresses.append(self._pixels.address + start)
        self._crops[: len(addresses)] = addresses
        memory, base = self._memory, self._pixels.address
        if brought:
            memory.upload(stream, base, self._pixels_block[: len(brought) * CROP_BYTES])
        for first, kept, count in stretches(brought):
            memory.copy(stream, kept.address, base + first * CROP_BYTES, count * CROP_BYTES)
        size_bytes = self._tables_bytes + len(addresses) * _SPEECH_BYTES
        memory.upload(stream, self._inputs.address, self._inputs_block[:size_bytes])

    def close(self) -> None:
        self._buffers.close()


def _places(parts: Sequence[Part]) -> Iterator[tuple[Part, slice]]:
    """Where each part's frames are in the batch."""
    start = 0
    for part in parts:
        yield part, slice(start, start + len(part.mouths))
        start += len(part.mouths)
