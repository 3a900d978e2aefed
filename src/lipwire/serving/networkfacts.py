"""What is said of a network: where it lies, how fast it is, and what runs it."""

from pathlib import Path
from typing import Literal, NamedTuple

from lipwire.engine import Model
from lipwire.engine.graphs import FLOAT_TYPES, FloatType


class CompiledNetwork(NamedTuple):
    """The folders of a compiled network: ``folder``, which ``compile_model`` has filled, and
    ``for_gpu``, which ``compile_for_gpu`` has filled, None where no GPU is to run it; and the ONNX
    file ``source`` that they were made of, None where the network is not to run specialised (by
    OpenVINO). ``revision`` is the hash of that file, as ``Revision.model`` has it. No file is kept
    open by this."""

    folder: Path
    for_gpu: Path | None = None
    source: Path | None = None
    revision: str = ""


class Speed(NamedTuple):
    """How fast a network makes the frames of live sessions: a worker of device number ``device``
    takes ``frame_s`` seconds a frame, the median of its latest runs, and the device computes
    ``side_by_side`` frames at a time."""

    device: int
    frame_s: float
    side_by_side: int


class Running(NamedTuple):
    """How a network is run: by ONNX Runtime on the processor (``runner`` "cpu") or a GPU ("cuda"),
    in Lipwire's own kernels ("kernels"), or specialised by OpenVINO on the processor ("openvino");
    in ``precision`` "float32", "float16" or "bfloat16"."""

    runner: Literal["cpu", "openvino", "cuda", "kernels"]
    precision: FloatType

    @classmethod
    def of(cls, model: Model) -> "Running":
        """Return how ``model`` is run now."""
        precision = FLOAT_TYPES[model.precision]
        if not model.on_gpu:
            return cls("openvino" if precision == "bfloat16" else "cpu", precision)
        return cls("kernels" if model.in_kernels else "cuda", precision)
