"""Networks that were loaded for a device."""

import weakref
from typing import Final

from lipwire.engine.architectures import Architecture
from lipwire.engine.batching import BATCH_SIZES, split
from lipwire.engine.crops import AvatarCrops
from lipwire.engine.faces import Frames
from lipwire.engine.gpugraphs import Precision
from lipwire.engine.kernelruns import Program
from lipwire.engine.residents import Resident
from lipwire.engine.wrapping import Form

MOST_FRAMES: Final = BATCH_SIZES[-1]


class GpuNetwork:
    """Kept by its ``Model``."""

    __slots__ = (
        "__weakref__",
        "architecture",
        "crops",
        "finalizers",
        "frames",
        "precision",
        "program",
        "resident",
        "sizes",
    )

    def __init__(
        self,
        architecture: Architecture,
        resident: Resident,
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
        self.resident = resident
        self.frames = frames
        self.crops = crops
        """What is kept of ``frames``; None where nothing is."""
        self.finalizers: list[weakref.finalize[..., GpuNetwork]] = []
        self.precision: Final = precision
        self.sizes: Final = sizes
        """Batch sizes that ONNX Runtime runs it in."""

    def batches(self, frames: int, form: Form) -> tuple[int, ...]:
        """What so many frames are run in. Kernels of our own take any number, up to the largest."""
        if self.program is None or form != "pixels":
            return split(frames, self.sizes)
        whole, rest = divmod(frames, MOST_FRAMES)
        return (*[MOST_FRAMES] * whole, *([rest] if rest else []))
