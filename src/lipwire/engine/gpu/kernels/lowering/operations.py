"""What a lowered plan is made of: launches that read and write tensors in one piece of memory."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from lipwire.engine.gpu.kernels.cuda.tiling import HALF_BYTES
from lipwire.engine.gpu.kernels.lowering.offsets import Span, arrange
from lipwire.engine.gpu.kernels.planning.plan import Tensor
from lipwire.engine.gpu.programs import Launch


@dataclass(frozen=True, slots=True)
class Addresses:
    """Addresses on the device at which a run of N frames finds its inputs, weights and outputs.

    ``weights`` is a table with the address of an avatar's weights for each frame, ``crops`` one
    with the address of the crop, (320, 320, 3) uint8, of each frame. ``speech`` is the audio
    windows, (N, 32, 16, 16) float32, and ``mouths`` where the mouths are written to, (N, 320, 320,
    3) uint8. ``scratch`` is ``Lowered.scratch_bytes`` bytes for intermediate tensors, which nobody
    else uses meanwhile.
    """

    weights: int
    """A table: the address of the weights' image, for each frame."""
    crops: int
    """A table: the address of the crop (320, 320, 3) uint8, for each frame."""
    speech: int
    """(N, 32, 16, 16) float32."""
    mouths: int
    """(N, 320, 320, 3) uint8."""
    scratch: int
    """``Lowered.scratch_bytes`` that nobody else uses meanwhile."""


class Where:
    """Computes the addresses of tensors for a batch of ``frames`` frames, on a device with
    ``multiprocessors`` multiprocessors.

    ``addresses`` are those of the run. ``offsets`` are those of the tensors of one frame within the
    scratch memory, in bytes, by the tensor's number.
    """

    def __init__(
        self, frames: int, addresses: Addresses, offsets: Mapping[int, int], multiprocessors: int
    ) -> None:
        self.frames = frames
        self.multiprocessors = multiprocessors
        self.addresses = addresses
        self._offsets = offsets

    def __call__(self, tensor: Tensor) -> int:
        return self.addresses.scratch + self._offsets[tensor.number] * self.frames


@dataclass(frozen=True, slots=True)
class Operation:
    """One step of a network's plan as a kernel: the tensors that it reads and the one that it
    ``writes`` (None: it writes the mouth), the function that makes its ``launch`` for a batch, a
    ``label`` for people, and how many bytes it reads and writes for one frame besides tensors and
    weights."""

    reads: tuple[Tensor, ...]
    writes: Tensor | None
    launch: Callable[[Where], Launch]
    label: str
    other_bytes: int = 0
    """What it reads and writes for one frame besides tensors and weights."""

    @property
    def traffic_bytes(self) -> int:
        """Bytes of tensors, crops, windows and mouths that the operation reads and writes for one
        frame."""
        tensors = (*self.reads, *(() if self.writes is None else (self.writes,)))
        return self.other_bytes + sum(tensor_bytes(tensor) for tensor in tensors)


def tensor_bytes(tensor: Tensor) -> int:
    """Return how many bytes ``tensor`` takes for one frame, in float16."""
    return tensor.height * tensor.width * tensor.channels * HALF_BYTES


def arranged(operations: Sequence[Operation]) -> tuple[dict[int, int], int]:
    """Place the tensors that ``operations``, in the order in which they run, make for one frame in
    one piece of memory.

    Returns the offset of each tensor in bytes, by its ``number``, and the size of the piece in
    bytes. Tensors that are not needed at the same time may overlap.
    """
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
