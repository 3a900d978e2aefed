"""A session of ONNX Runtime whose inputs and output have their places on a device."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from lipwire.domain import AUDIO_WINDOW_SHAPE, Float32Array, Form
from lipwire.engine.forms import FACE, MOUTH, OUTPUT_SHAPE, PIXELS_SHAPE, SPEECH, VISUAL_SHAPE
from lipwire.engine.gpu.memory.buffers import Buffers
from lipwire.engine.gpu.memory.cropplaces import CROP_BYTES, Face, Faces, stretches
from lipwire.engine.gpu.memory.devicememory import Bytes, Memory, Region
from lipwire.engine.runtime import not_waited_for
from lipwire.engine.store.files import StoredWeight

_Array = npt.NDArray[Any]
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


class BoundSession:
    """An ONNX Runtime session for batches of one size, with buffers for its inputs and output on a
    GPU."""

    def __init__(
        self,
        memory: Memory,
        session: Any,
        form: Form,
        batch: int,
        slot: Region,
        weights: Sequence[StoredWeight],
        *,
        record: bool,
    ) -> None:
        """``session`` was opened for ``form``, "pixels" or "floats", and has inputs for ``batch``
        frames. It reads its weights, whose names and offsets are in ``weights``, from ``slot``, a
        region of ``memory``. With ``record`` its kernels are recorded after a few runs and launched
        together from then on (CUDA graphs). Raises DeviceOutOfMemory where there is no room for the
        buffers, DeviceLost where the device has failed."""
        self._memory = memory
        self._session = session
        self._binding = session.io_binding()
        self._options = not_waited_for()
        self._runs_to_record = RECORDED_AFTER if record else 0
        self._buffers = Buffers(memory)
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
                slot.address + weight.offset_bytes,
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
        region, block = self._buffers.region(size_bytes), self._buffers.block(size_bytes)
        return region, block.view(kind).reshape(batch, *shape)

    @property
    def device_bytes(self) -> int:
        """Bytes of the device that the buffers take."""
        return self._buffers.device_bytes

    @property
    def host_bytes(self) -> int:
        """Bytes of pinned host memory that the buffers take."""
        return self._buffers.host_bytes

    def run(self, stream: int, faces: Faces, speech: Float32Array, mouths: _Array) -> None:
        """Write the mouths of N ``faces``, at least 1, into ``mouths``, and wait for the end.

        N is at most the session's batch size; the rest of the batch is filled with the last frame.
        ``stream`` is the handle of the stream that the session computes in. For the session's form
        "pixels" ``faces`` are crops, (N, 320, 320, 3) uint8, or a ``Face`` for each frame, which
        says where its crop is on the device, and ``mouths`` (N, 320, 320, 3) uint8; for "floats"
        they are (N, 6, 320, 320) and (N, 3, 320, 320) float32. ``speech`` is the audio windows, (N,
        32, 16, 16) float32. Raises one of ``RUNTIME_ERRORS`` where ONNX Runtime fails, DeviceLost
        where the device has failed.
        """
        memory = self._memory
        frames = len(faces)
        if isinstance(faces, np.ndarray):
            self._send(stream, self._face, self._face_block, faces)
        else:
            self._gather(stream, faces)
        self._send(stream, self._speech, self._speech_block, speech)
        if self._runs_to_record:
            with memory.allocation_lock.exclusive():
                self._session.run_with_iobinding(self._binding, self._options)
                memory.wait(stream)
            self._runs_to_record -= 1
        else:
            with memory.allocation_lock.shared():
                self._session.run_with_iobinding(self._binding, self._options)
        made = self._mouth_block[:frames]
        memory.download(stream, _bytes(made), self._mouth.address)
        memory.wait(stream)
        mouths[:] = made

    def _send(self, stream: int, region: Region, block: _Array, values: _Array) -> None:
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
        """Free the session and the buffers; ``run`` may not be called any more. Raises DeviceLost
        where the device has failed."""
        with self._memory.allocation_lock.shared():
            # With it go handles of cuBLAS and cuDNN, which wait for the whole device.
            self._session = self._binding = None
        self._buffers.close()


def _bytes(array: _Array) -> Bytes:
    return array.reshape(-1).view(np.uint8)
