"""How a GPU is used."""

from dataclasses import dataclass, field
from typing import Final

from lipwire.domain import InvalidInput
from lipwire.engine.graphs import Precision
from lipwire.engine.runtime import CudaOptions

BATCH_SIZES: Final = (1, 2, 4, 8, 16, 24, 32, 50)
"""24 and 50 are the guide's: a second of speech, and two."""
MOST_FRAMES: Final = BATCH_SIZES[-1]
"""The most frames of one batch."""
_MAX_STREAMS: Final = 8


@dataclass(frozen=True, slots=True)
class Tuning:
    """How a GPU is used. What is set here changes speed and memory; of results only what
    ``precision`` and ``kernels`` say.

    ``streams`` is how many runs are under way at a time, 1 to 8. ``precision`` is "half" or
    "single"; mouths in half precision differ by at most 2 of 255, 0.2 in the mean. ``batch_sizes``
    are the sizes of batches, in frames and rising, that ONNX Runtime is opened for. With
    ``kernels`` Lipwire's own kernels run networks in half precision, where they can. ``cuda`` is
    for sessions of ONNX Runtime. ``device_bytes`` is the most bytes of the device that weights and
    crops together may take (None: three quarters of what is free at the start), ``crop_bytes`` the
    most that crops may take (None: what weights leave; 0 keeps none), ``host_bytes`` the pinned
    memory of the host in which copies of weights are kept, and ``max_models`` the most networks on
    the device at a time (None: no limit). Raises InvalidInput for a value out of range.
    """

    streams: int = 2
    """Runs at a time: copies of one go on while another computes."""
    precision: Precision = "half"
    """The precision in which networks run that are compiled for GPUs in both. Mouths in half
    precision differ by at most 2 of 255, 0.2 in the mean (``halfprecision``)."""
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
    """The most networks that are on the device at a time."""

    def __post_init__(self) -> None:
        if not 1 <= self.streams <= _MAX_STREAMS:
            raise InvalidInput(f"streams is {self.streams}, allowed are 1 to {_MAX_STREAMS}")
        if not self.batch_sizes or list(self.batch_sizes) != sorted(set(self.batch_sizes)):
            raise InvalidInput(f"batch_sizes are {self.batch_sizes}; they have to rise")
        if self.batch_sizes[0] < 1:
            raise InvalidInput(f"batch_sizes begin with {self.batch_sizes[0]}, the least is 1")
