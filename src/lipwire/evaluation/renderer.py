"""The part of a network that makes a picture of mouth controls, without the part that hears.

Shows how much of an error is the picture's and how much is the hearing's. It is possible where the
ONNX file calls the tensor between the two ``mouth_controls``.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx.utils import Extractor

from lipwire.domain import MASK_COLUMNS, MASK_ROWS, Float32Array, UInt8Array

CONTROLS_TENSOR = "mouth_controls"

Renderer = Callable[[UInt8Array, Float32Array], UInt8Array]
"""(crop (320, 320, 3) uint8, controls (K,)) -> mouth (320, 320, 3) uint8."""


def controls_renderer(model_path: Path) -> Renderer | None:
    """Return a function that makes a mouth of mouth controls, numbers from 0 to 1 which the network
    computes from the audio: (crop (320, 320, 3) uint8, controls (K,) float32) -> mouth (320, 320,
    3) uint8, both pictures in the package's colour order. The function runs, on the processor, the
    part of the network that follows the computation of mouth controls from audio.

    ``model_path`` is the network's ONNX file, which must have been validated (it is the avatar's
    own, which was compiled). Returns None where no tensor in it is called ``mouth_controls``.
    """
    model = onnx.load(str(model_path))
    if all(CONTROLS_TENSOR not in node.output for node in model.graph.node):
        return None
    crop_name = next(
        value.name
        for value in model.graph.input
        if value.type.tensor_type.shape.dim[1].dim_value == 6
    )
    inferred = onnx.shape_inference.infer_shapes(model)
    part = Extractor(inferred).extract_model(
        [crop_name, CONTROLS_TENSOR], [model.graph.output[0].name]
    )
    session = ort.InferenceSession(part.SerializeToString(), providers=["CPUExecutionProvider"])

    def render(crop: UInt8Array, controls: Float32Array) -> UInt8Array:
        masked = crop.copy()
        masked[MASK_ROWS, MASK_COLUMNS] = 0
        both = np.concatenate([crop, masked], axis=2).transpose(2, 0, 1)[None]
        visual = np.ascontiguousarray(both, np.float32) / np.float32(255)
        (made,) = session.run(None, {crop_name: visual, CONTROLS_TENSOR: controls[None]})
        pixels = np.rint(np.clip(made[0], 0, 1) * 255).astype(np.uint8)
        return np.ascontiguousarray(pixels.transpose(1, 2, 0))

    return render
