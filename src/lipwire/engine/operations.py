"""What a lowered plan is made of: launches that read and write tensors in one piece of memory."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from lipwire.engine.arena import Span, arrange
from lipwire.engine.plan import Tensor
from lipwire.engine.programs import Launch
from lipwire.engine.tiling import HALF_BYTES


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where on the device a run finds what it needs."""

    weights: int
    """A table: the address of the weights' image, for each frame."""
    crops: int
    """A table: the address of the crop (320, 320, 3) uint8, for each frame."""
    speech: int
    """(N, 32, 16, 16) float32."""
    mouths: int
    """(N, 320, 320, 3) uint8."""
    arena: int
    """``Lowered.arena_bytes`` that nobody else uses meanwhile."""


class Where:
    """Addresses of one batch size, on a device with so many multiprocessors."""

    def __init__(
        self, frames: int, addresses: Addresses, offsets: Mapping[int, int], multiprocessors: int
    ) -> None:
        self.frames = frames
        self.multiprocessors = multiprocessors
        self.addresses = addresses
        self._offsets = offsets

    def __call__(self, tensor: Tensor) -> int:
        return self.addresses.arena + self._offsets[tensor.number] * self.frames


@dataclass(frozen=True, slots=True)
class Operation:
    reads: tuple[Tensor, ...]
    writes: Tensor | None
    launch: Callable[[Where], Launch]
    label: str
    other_bytes: int = 0
    """What it reads and writes for one frame besides tensors and weights."""

    @property
    def traffic_bytes(self) -> int:
        """What it reads and writes of tensors, crops, speech and mouths for one frame."""
        tensors = (*self.reads, *(() if self.writes is None else (self.writes,)))
        return self.other_bytes + sum(tensor_bytes(tensor) for tensor in tensors)


def tensor_bytes(tensor: Tensor) -> int:
    return tensor.height * tensor.width * tensor.channels * HALF_BYTES


def arranged(operations: Sequence[Operation]) -> tuple[dict[int, int], int]:
    """Offsets of the tensors of one frame, by number, and the bytes that they take together."""
    made: dict[int, int] = {}
    used: dict[int, int] = {}
    sizes: dict[int, int] = {}
    for number, operation in enumerate(operations):
        for tensor in operation.reads:
            used[tensor.number] = number
        out = operation.writes
        if out is not None:
            made[out.number] = number
            used.setdefault(out.number, number)
            sizes[out.number] = tensor_bytes(out)
    spans = [Span(sizes[tensor], first, used[tensor]) for tensor, first in made.items()]
    offsets, size_bytes = arrange(spans)
    return dict(zip(made, offsets, strict=True)), size_bytes
