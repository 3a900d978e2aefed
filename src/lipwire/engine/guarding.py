"""What follows when a device is full, or fails."""

import logging
from collections.abc import Callable
from typing import Final, TypeVar

from lipwire.domain import AvatarInvalid, Overloaded
from lipwire.engine.crops import Crops
from lipwire.engine.devices import RUNTIME_ERRORS
from lipwire.engine.failures import is_device_lost, is_out_of_memory
from lipwire.engine.lanes import Lane
from lipwire.engine.memory import DeviceLost, DeviceOutOfMemory, Memory
from lipwire.engine.programs import KernelsUnavailable
from lipwire.engine.residency import Residency
from lipwire.engine.source import first_line

AT_LEAST_BYTES: Final = 1 << 28
"""Freed for what runs out of memory: activations come in such sizes."""
_FAILURES: Final[tuple[type[Exception], ...]] = (KernelsUnavailable, *RUNTIME_ERRORS)
_LOG: Final = logging.getLogger(__name__)
_RETRY_S: Final = 0.25
_MOST_TRIES: Final = 64
"""After which 16 GiB were given up, or what an action brings itself again and again."""

T = TypeVar("T")


class Guard:
    """Stands between a device and what is done there. Thread-safe."""

    def __init__(self, memory: Memory, crops: Crops, residency: Residency) -> None:
        self._memory = memory
        self._crops = crops
        self._residency = residency
        self._failure: str | None = None

    def check(self) -> None:
        """Raises DeviceLost from the first time on that the device failed for good."""
        if self._failure is not None:
            raise DeviceLost(self._failure)

    def run(self, action: Callable[[], T], lane: Lane | None = None) -> T:
        """``action``, again and again while it runs out of memory and something can be given up.

        Crops go first; then weights, the least worthy ones; then what ``lane`` itself keeps ready.
        Raises Overloaded where nothing is left to give up, DeviceLost where the device has failed,
        AvatarInvalid where the network does.
        """
        cleared = lane is None
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
                self._crops.give_up(AT_LEAST_BYTES) or self._residency.give_up(AT_LEAST_BYTES)
            ):
                continue
            if cleared or lane is None:
                raise Overloaded(
                    f"{self._memory.device} is full, and all that is there is in use",
                    retry_after_s=_RETRY_S,
                )
            lane.clear()
            cleared = True
