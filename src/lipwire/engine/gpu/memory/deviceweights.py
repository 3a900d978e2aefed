"""Weights that may be on a device."""

from typing import Final, Protocol

from lipwire.engine.gpu.memory.devicememory import Bytes, Region
from lipwire.registry.eviction import NEVER_USED


class Source(Protocol):
    """Where the weights of one avatar are read from, when they are copied to a device."""

    @property
    def size_bytes(self) -> int:
        """How many bytes the weights take on the device."""

    def write(self, image: Bytes) -> None:
        """Write the weights into ``image``, (size_bytes,) uint8, as the bytes that the device is to
        have. May raise an error where they cannot be read."""
        ...


class DeviceWeights:
    """Stands for one avatar's weights in the ``WeightsCache`` that made it (``WeightsCache.add``),
    whether they are on the device or not."""

    __slots__ = (
        "closed",
        "host",
        "loading",
        "pins",
        "region",
        "size_bytes",
        "source",
        "worth",
    )

    def __init__(self, source: Source) -> None:
        """``source`` is where the weights are read from."""
        self.source = source
        self.size_bytes: Final = source.size_bytes
        self.worth = NEVER_USED
        self.pins = 0
        self.loading = False
        self.closed = False
        self.region: Region | None = None
        self.host: Bytes | None = None
