"""An avatar's network as callers hold it, and what they ask of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from lipwire.domain import AudioWindows, UInt8Array
from lipwire.engine.cpu.processor import ProcessorNetwork
from lipwire.engine.graphs import RunPrecision
from lipwire.engine.runner import Frames, Network, Runner
from lipwire.engine.store.modelfiles import Manifest


class Model:
    """An avatar's network that ``Engine.load`` has loaded, to be given to that engine to be run or
    unloaded; no other engine takes it."""

    def __init__(
        self,
        manifest: Manifest,
        owner: object,
        runner: Runner[Any],
        network: Network,
        frames: Frames | None,
        floats: ProcessorNetwork | None = None,
    ) -> None:
        """``manifest`` describes the compiled network, and ``owner`` is an object that stands for
        the engine which loaded it. ``network`` was loaded by ``runner``, which runs it. ``frames``
        are those of the avatar; None where crops are given. ``floats`` is the same network on the
        processor, for ``Engine.infer_float``, where ``runner`` is a GPU that takes only pixels;
        else None."""
        self.fixed_batch: Final = manifest.fixed_batch
        """Frames that the network takes at once, no more and no fewer; None where any number."""
        self.parameters: Final = manifest.parameters
        self.shared: Final = all(graph.shared for graph in manifest.graphs.values())
        """Whether avatars of the same architecture share its sessions."""
        self.weights_bytes: Final = (
            network.device_bytes if network.on_gpu else manifest.weights_bytes
        )
        """Size of the mapped weights; on a GPU, of what they take of its memory."""
        self.device_bytes: Final = network.device_bytes
        """What the weights take of a GPU; 0 where it runs on the processor."""
        self.on_gpu: Final = network.on_gpu
        """Whether it runs there; what has no form for GPUs runs on the processor."""
        self.in_kernels: Final = network.in_kernels
        """Whether pixels run in kernels of our own there; else ONNX Runtime runs all of it."""
        self.keeps_crops: Final = network.keeps_crops
        """Whether ``Engine.infer_frames`` finds crops on the GPU that were used before."""
        self.together: Final = network.together
        """Models with the same number here can be run by one ``Engine.infer_together``; None where
        there is no such other."""
        self._frames = frames
        self._unloaded = False
        self._owner = owner
        self._runner = runner
        self._network = network
        self._floats = floats

    @property
    def unloaded(self) -> bool:
        """Whether ``Engine.unload`` was called for the model; then the model cannot be run any
        more."""
        return self._unloaded

    @property
    def precision(self) -> RunPrecision:
        """The precision in which the network runs now: "single" (float32), "half" (float16, only on
        a GPU), or "bfloat16" (only on a processor, where the network runs specialised)."""
        return self._network.precision

    @property
    def warm(self) -> bool:
        """Whether the network's weights are on its device now, so that a run need not wait for a
        copy of them; always True on the processor."""
        return self._network.warm


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """Some frames of one avatar for ``Engine.infer_together``: its ``model``; its ``faces``, which
    are crops, (N, 320, 320, 3) uint8, or numbers of the avatar's frames; and the audio ``windows``,
    (N, 32, 16, 16) float32."""

    model: Model
    faces: UInt8Array | Sequence[int]
    """Crops, or numbers of frames."""
    windows: AudioWindows
