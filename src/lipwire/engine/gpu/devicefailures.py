"""What follows when a device is full, or fails."""

import logging
from collections.abc import Callable
from typing import Final, TypeVar

from lipwire.domain import AvatarInvalid, Overloaded
from lipwire.engine.device import DeviceLost
from lipwire.engine.gpu.gpustreams import GpuStream
from lipwire.engine.gpu.memory.crops import Crops
from lipwire.engine.gpu.memory.devicememory import DeviceOutOfMemory, Memory
from lipwire.engine.gpu.memory.weightscache import WeightsCache
from lipwire.engine.gpu.onnx.errormessages import is_device_lost, is_out_of_memory
from lipwire.engine.gpu.programs import KernelsUnavailable
from lipwire.engine.runtime import RUNTIME_ERRORS, first_line

AT_LEAST_BYTES: Final = 1 << 28
"""Freed for what runs out of memory: activations come in such sizes."""
_FAILURES: Final[tuple[type[Exception], ...]] = (KernelsUnavailable, *RUNTIME_ERRORS)
_LOG: Final = logging.getLogger(__name__)
_RETRY_S: Final = 0.25
_MOST_TRIES: Final = 64
"""After which 16 GiB were given up, or what an action brings itself again and again."""

T = TypeVar("T")


class FailureHandler:
    """Calls functions that work on a GPU, and does what is needed when they fail: makes room when
    its memory is full, and remembers when it is lost. Thread-safe."""

    def __init__(self, memory: Memory, crops: Crops, weights_cache: WeightsCache) -> None:
        """``memory`` is that of the device. ``crops`` and ``weights_cache`` hold what may be
        evicted from it."""
        self._memory = memory
        self._crops = crops
        self._weights = weights_cache
        self._failure: str | None = None

    def check(self) -> None:
        """Raise DeviceLost where an earlier call of ``run`` found that the device has failed for
        good. The device itself is not looked at."""
        if self._failure is not None:
            raise DeviceLost(self._failure)

    def run(self, action: Callable[[], T], stream: GpuStream | None = None) -> T:
        """Call ``action()`` and return its result; when the device's memory runs out, evict
        something and call it again.

        Crops are evicted first; then weights, the least used first; then everything that ``stream``
        keeps for itself. ``stream`` is the one that the action runs in; None for none. Raises
        Overloaded where nothing is left to evict, and DeviceLost where the device has failed, now
        or in an earlier call. Where ``action`` raises KernelsUnavailable, an error of ONNX Runtime
        or another of ``RUNTIME_ERRORS`` (such as ValueError) for another reason than these two,
        AvatarInvalid is raised in its place. Any other error of ``action`` is raised unchanged.
        """
        cleared = stream is None
        tries = 0
        while True:
            self.check()
            try:
                return action()
            except DeviceOutOfMemory as error:
                reason = str(error)
            except DeviceLost as error:
                self._failure = str(error)
                raise
            except _FAILURES as error:
                reason = first_line(error)
                if is_device_lost(error):
                    self._failure = f"{self._memory.device} has failed: {reason}"
                    raise DeviceLost(self._failure) from None
                if not is_out_of_memory(error):
                    raise AvatarInvalid(f"the network failed: {reason}") from None
            _LOG.warning("%s is full (%s): crops or networks go", self._memory.device, reason)
            tries += 1
            if tries < _MOST_TRIES and (
                self._crops.give_up(AT_LEAST_BYTES) or self._weights.give_up(AT_LEAST_BYTES)
            ):
                continue
            if cleared or stream is None:
                raise Overloaded(
                    f"{self._memory.device} is full, and all that is there is in use",
                    retry_after_s=_RETRY_S,
                )
            stream.clear()
            cleared = True
