"""A network that was loaded for a GPU."""

import weakref
from typing import Final

from lipwire.domain import Form
from lipwire.engine.gpu.kernels.running.kernelruns import Program
from lipwire.engine.gpu.memory.crops import AvatarCrops
from lipwire.engine.gpu.memory.deviceweights import DeviceWeights
from lipwire.engine.gpu.onnx.architectures import Architecture
from lipwire.engine.gpu.onnx.batching import split
from lipwire.engine.graphs import Precision
from lipwire.engine.runner import Frames
from lipwire.engine.tuning import MOST_FRAMES


class GpuNetwork:
    """A network that ``Gpu.load`` has loaded on a GPU. The ``Model`` that it belongs to owns it;
    its properties mean what ``Network`` says of them."""

    __slots__ = (
        "__weakref__",
        "architecture",
        "crops",
        "finalizers",
        "frames",
        "precision",
        "program",
        "sizes",
        "weights",
    )

    def __init__(
        self,
        architecture: Architecture,
        weights: DeviceWeights,
        precision: Precision,
        sizes: tuple[int, ...],
        frames: Frames | None,
        crops: AvatarCrops | None,
        program: Program | None,
    ) -> None:
        self.architecture: Architecture | None = architecture
        """None once it is unloaded."""
        self.program = program
        """Where pixels are run in kernels of our own; None where they are in ONNX Runtime."""
        self.weights = weights
        self.frames = frames
        self.crops = crops
        """What is kept of ``frames``; None where nothing is."""
        self.finalizers: list[weakref.finalize[..., GpuNetwork]] = []
        self.precision: Final = precision
        self.sizes: Final = sizes
        """Batch sizes that ONNX Runtime runs it in."""

    @property
    def on_gpu(self) -> bool:
        """Always True: the network was loaded for a GPU."""
        return True

    @property
    def device_bytes(self) -> int:
        """How many bytes of the GPU the network's weights take while they are there."""
        return self.weights.size_bytes

    @property
    def in_kernels(self) -> bool:
        """Whether Lipwire's own kernels run the network where its input is crops of uint8; else
        ONNX Runtime runs it."""
        return self.program is not None

    @property
    def keeps_crops(self) -> bool:
        """Whether crops (the pictures of the face that the network is shown) stay on the device
        after they were used."""
        return self.crops is not None

    @property
    def together(self) -> int | None:
        """A number that is the same for networks which can be run in one batch; None where this one
        has to run alone, because ONNX Runtime runs it."""
        return None if self.program is None else self.program.number

    @property
    def warm(self) -> bool:
        """Whether the network's weights are on the GPU now, so that a run need not wait until they
        are copied there."""
        return self.weights.region is not None

    def batches(self, frames: int, form: Form) -> tuple[int, ...]:
        """Return the sizes of the batches in which ``frames`` frames, at least 1, are run in
        ``form``, "pixels" or "floats", in their order.

        Lipwire's own kernels take any number up to 50 (MOST_FRAMES). ONNX Runtime takes certain
        sizes only, so the sum of the sizes may be more than ``frames``.
        """
        if self.program is None or form != "pixels":
            return split(frames, self.sizes)
        whole, rest = divmod(frames, MOST_FRAMES)
        return (*[MOST_FRAMES] * whole, *([rest] if rest else []))
