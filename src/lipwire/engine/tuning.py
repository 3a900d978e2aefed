"""How a GPU is used."""

from dataclasses import dataclass, field
from typing import Final

from lipwire.domain import InvalidInput
from lipwire.engine.batching import BATCH_SIZES
from lipwire.engine.devices import CudaOptions
from lipwire.engine.gpugraphs import Precision

_MAX_LANES: Final = 8


@dataclass(frozen=True, slots=True)
class Tuning:
    """What is here changes speed and memory; results as far as stated."""

    lanes: int = 2
    """Runs at a time: copies of one go on while another computes."""
    precision: Precision = "half"
    """Half where the avatar has it: at most 2 of 255 apart, 0.2 in the mean (``halving``)."""
    batch_sizes: tuple[int, ...] = BATCH_SIZES
    kernels: bool = True
    """Run what can be run in kernels of our own in half precision (``kerneltrial``)."""
    cuda: CudaOptions = field(default_factory=CudaOptions)
    device_bytes: int | None = None
    """For weights and crops; None for three quarters of what is free at the start."""
    crop_bytes: int | None = None
    """For crops (``crops``), at most; None for whatever weights leave, 0 to keep none."""
    host_bytes: int = 1 << 30
    """Pinned memory for weights, from which they come to the device without the disk."""
    max_models: int | None = None
    """On the device at a time."""

    def __post_init__(self) -> None:
        if not 1 <= self.lanes <= _MAX_LANES:
            raise InvalidInput(f"lanes is {self.lanes}, allowed are 1 to {_MAX_LANES}")
        if not self.batch_sizes or list(self.batch_sizes) != sorted(set(self.batch_sizes)):
            raise InvalidInput(f"batch_sizes are {self.batch_sizes}; they have to rise")
        if self.batch_sizes[0] < 1:
            raise InvalidInput(f"batch_sizes begin with {self.batch_sizes[0]}, the least is 1")
