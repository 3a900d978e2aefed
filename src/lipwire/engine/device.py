"""The processor or a GPU, by name, and the error of one that has failed."""

from dataclasses import dataclass
from typing import Final, Literal

from lipwire.domain import InvalidInput, Unavailable

MAX_DEVICES: Final = 64


class DeviceLost(Unavailable):
    """A GPU has failed, and this process cannot use it any more."""


@dataclass(frozen=True, slots=True)
class Device:
    """What networks run on: ``kind`` is "cpu" for the processor, "cuda" for a GPU, whose number, in
    CUDA's order from 0, is ``index`` (0 for the processor). ``str`` of it is ``cpu``, ``cuda:0``,
    ``cuda:1``, ..."""

    kind: Literal["cpu", "cuda"]
    index: int

    def __post_init__(self) -> None:
        if self.kind not in ("cpu", "cuda"):
            raise InvalidInput(f"device is {self.kind!r}, allowed are 'cpu' and 'cuda'")
        most = MAX_DEVICES - 1 if self.kind == "cuda" else 0
        if not isinstance(self.index, int) or not 0 <= self.index <= most:
            raise InvalidInput(f"device index is {self.index!r}, allowed are 0 to {most}")

    @classmethod
    def cpu(cls) -> "Device":
        """Return the device that is the processor."""
        return cls("cpu", 0)

    @classmethod
    def cuda(cls, index: int) -> "Device":
        """Return the device that is GPU number ``index``, in CUDA's order, 0 to 63. Raises
        InvalidInput for another number. Whether there is such a GPU is not checked."""
        return cls("cuda", index)

    def __str__(self) -> str:
        return "cpu" if self.kind == "cpu" else f"cuda:{self.index}"


CPU: Final = Device.cpu()
FIRST_GPU: Final = Device.cuda(0)
