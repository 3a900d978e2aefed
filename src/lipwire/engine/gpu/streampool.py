"""A device's streams, each given to one run at a time."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from lipwire.engine.device import DeviceLost
from lipwire.engine.gpu.gpustreams import GpuStream
from lipwire.engine.gpu.memory.deviceweights import DeviceWeights


class StreamPool:
    """Gives ``streams``, those of a GPU, to threads that have something to run, each stream to one
    thread at a time. Thread-safe; whoever makes it calls ``close``, which closes the streams."""

    def __init__(self, streams: Sequence[GpuStream]) -> None:
        self._streams = tuple(streams)
        self._free = list(streams)
        """Those that have rested longest come first."""
        self._changed = threading.Condition()
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether the pool was closed, so that no stream is given any more."""
        return self._closed

    @property
    def slot_bytes(self) -> int:
        """Bytes of the device that the slots of all streams take, the places from which ONNX
        Runtime reads an avatar's weights."""
        return sum(stream.slot_bytes for stream in self._streams)

    @property
    def staging_bytes(self) -> tuple[int, int]:
        """Bytes that inputs, outputs and intermediate tensors of all streams take: (of the device,
        of the host's pinned memory)."""
        staging = [stream.staging_bytes for stream in self._streams]
        return sum(on_device for on_device, _ in staging), sum(pinned for _, pinned in staging)

    @contextmanager
    def taken(self, weights: DeviceWeights | None) -> Iterator[GpuStream]:
        """Context manager: give a stream that is the caller's alone during the block. Waits while
        all streams are in use.

        A stream that has ``weights`` in its slot, the place from which ONNX Runtime reads them, is
        preferred; None where the choice does not matter. Raises RuntimeError where the pool is
        closed.
        """
        stream = self._take(weights)
        try:
            yield stream
        finally:
            self._put_back(stream)

    def tidy(self) -> None:
        """Have streams that are not in use free what they keep for networks that are unloaded, and
        wait for that; nobody is given these streams meanwhile. Does nothing once the pool is
        closed. Raises DeviceLost where the device has failed."""
        with self._changed:
            if self._closed:
                return
            idle = list(self._free)
            self._free.clear()
        try:
            for stream in idle:
                stream.tidy()
        finally:
            self._put_back(*idle)

    def close(self) -> bool:
        """Wait until runs under way have finished, and close all streams; later calls of ``taken``
        raise RuntimeError.

        Returns True where this call closed them, False where an earlier call has closed them or is
        closing them.
        """
        with self._changed:
            if self._closed:
                return False
            self._closed = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: len(self._free) == len(self._streams))
        for stream in self._streams:
            with suppress(DeviceLost):  # which keeps nothing that is worth giving back
                stream.close()
        return True

    def _take(self, weights: DeviceWeights | None) -> GpuStream:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or bool(self._free))
            if self._closed:
                raise RuntimeError("the engine is closed")
            for stream in self._free:
                if weights is not None and stream.holds(weights):
                    break
            else:
                stream = self._free[0]
            self._free.remove(stream)
            return stream

    def _put_back(self, *streams: GpuStream) -> None:
        with self._changed:
            self._free.extend(streams)
            self._changed.notify_all()
