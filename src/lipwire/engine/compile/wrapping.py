"""The passes before and after a network, as nodes of its own graph.

Two forms of a network are compiled. In the *pixels* form, what the avatar has goes in and what the
compositor needs comes out, uint8 both; in the *floats* form, inputs and output are the guide's.

crops (N, 320, 320, 3) uint8 ─ transpose ─┬─────────────────────┬─ concat ─ /255 ─▶ network
                                          └─ black in the mask ─┘
network ─ x255 ─ clip ─ round to the nearest, ties to even ─ transpose ─▶ (N, 320, 320, 3) uint8
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from lipwire.domain import (
    AUDIO_WINDOW_SHAPE,
    MASK_COLUMNS,
    MASK_ROWS,
    MOUTH_PX,
    Float32Array,
    Form,
    UInt8Array,
)
from lipwire.engine.compile.canonical import canonicalise
from lipwire.engine.compile.inspection import ModelInfo
from lipwire.engine.compile.shapefolding import fold_shapes
from lipwire.engine.forms import (
    BATCH,
    FACE,
    MOUTH,
    OUTPUT_SHAPE,
    PIXELS_SHAPE,
    SPEECH,
    VISUAL_SHAPE,
)


def wrap(
    model: onnx.ModelProto, info: ModelInfo, form: Form, fixed_batch: int | None
) -> onnx.ModelProto:
    """Return the network ``model`` in canonical form (``canonicalise``), with layers added before
    and after it that convert its inputs and output.

    With ``form`` "pixels" the result takes crops and gives mouths, both (N, 320, 320, 3) uint8
    (``faces_of`` and ``pixels_of`` say how they are converted); with "floats" it takes and gives
    the network's own arrays as float32. The weights stay inside. ``info`` describes the inputs and
    the output of ``model``; ``fixed_batch`` is the only N that the result takes, None where any
    will do.
    """
    network = canonicalise(
        model,
        inputs={info.input_name: "network_face", info.audio_name: "network_speech"},
        outputs={info.output_name: "network_mouth"},
    )
    passes = _Passes()
    face_type, speech_type, mouth_type = info.element_types
    face = passes.visual(FACE) if form == "pixels" else FACE
    passes.cast(face, face_type, "network_face")
    passes.cast(SPEECH, speech_type, "network_speech")
    before, passes.nodes = passes.nodes, []
    if mouth_type != "float32":
        passes.cast("network_mouth", "float32", "mouth_float")
    mouth = "network_mouth" if mouth_type == "float32" else "mouth_float"
    if form == "pixels":
        passes.to_pixels(mouth, MOUTH)
    else:
        passes.node("Identity", mouth, output=MOUTH)

    batch = fixed_batch if fixed_batch is not None else BATCH
    pixels = form == "pixels"
    element = TensorProto.UINT8 if pixels else TensorProto.FLOAT

    def value(name: str, element: int, shape: tuple[int, ...]) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, element, [batch, *shape])

    # In place: weights are most of the model, and each copy of them takes time.
    graph = network.graph
    within = list(graph.node)
    del graph.node[:], graph.input[:], graph.output[:]
    graph.node.extend([*before, *within, *passes.nodes])
    graph.input.append(value(FACE, element, PIXELS_SHAPE if pixels else VISUAL_SHAPE))
    graph.input.append(value(SPEECH, TensorProto.FLOAT, AUDIO_WINDOW_SHAPE))
    graph.output.append(value(MOUTH, element, PIXELS_SHAPE if pixels else OUTPUT_SHAPE))
    graph.initializer.extend(passes.constants)
    fold_shapes(network)
    return canonicalise(network, inputs={FACE: FACE, SPEECH: SPEECH}, outputs={MOUTH: MOUTH})


def faces_of(crops: UInt8Array) -> Float32Array:
    """Return what the layers before a network in the form "pixels" make of ``crops``, (N, 320, 320,
    3) uint8: (N, 6, 320, 320) float32 in [0, 1], which the form "floats" takes. Channels 0 to 2 are
    the crop, in the colour order that it has, and 3 to 5 the same with the mouth black: rows 5 to
    309 of columns 5 to 314."""
    masked = crops.copy()
    masked[:, MASK_ROWS, MASK_COLUMNS] = 0
    both = np.concatenate([crops, masked], axis=3).transpose(0, 3, 1, 2)
    return np.ascontiguousarray(both, np.float32) / np.float32(255)


def pixels_of(mouths: Float32Array) -> UInt8Array:
    """Return what the layers after a network in the form "pixels" make of ``mouths``, (N, 3, 320,
    320) float32 as the form "floats" gives them: times 255, clipped to 0...255 and rounded, ties to
    even, (N, 320, 320, 3) uint8."""
    values: npt.NDArray[Any] = np.rint(np.clip(mouths * np.float32(255), 0, 255))
    return np.ascontiguousarray(values.astype(np.uint8).transpose(0, 2, 3, 1))


class _Passes:
    """Collects the nodes round a network; names are apart from canonical ones by their prefix."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[TensorProto] = []
        self._count = 0

    def node(self, op: str, *inputs: str, output: str | None = None, **attributes: object) -> str:
        self._count += 1
        name = output or f"pass_{self._count}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], **attributes))
        return name

    def _constant(self, values: npt.NDArray[np.generic]) -> str:
        name = f"pass_constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(values, name))
        return name

    def cast(self, x: str, element_type: str, output: str) -> None:
        kind = TensorProto.FLOAT16 if element_type == "float16" else TensorProto.FLOAT
        self.node("Cast", x, output=output, to=kind)

    def visual(self, crops: str) -> str:
        """(N, 320, 320, 3) uint8 -> (N, 6, 320, 320) float32 in [0, 1]: the crop, and it masked."""
        rows, columns = np.zeros((2, MOUTH_PX), np.bool_)
        rows[MASK_ROWS] = True
        columns[MASK_COLUMNS] = True
        planes = self.node("Transpose", crops, perm=[0, 3, 1, 2])
        black = self._constant(np.zeros((), np.uint8))
        # Black where both the row and the column are inside: two small masks, not one large one.
        strip = self.node("Where", self._constant(columns[None, :]), black, planes)
        masked = self.node("Where", self._constant(rows[:, None]), strip, planes)
        both = self.node("Concat", planes, masked, axis=1)
        values = self.node("Cast", both, to=TensorProto.FLOAT)
        # Divided, not multiplied by 1/255: the same bits as the guide's callers make.
        return self.node("Div", values, self._constant(np.array(255, np.float32)))

    def to_pixels(self, x: str, output: str) -> None:
        """(N, 3, 320, 320) float32 -> (N, 320, 320, 3) uint8."""
        most = self._constant(np.array(255, np.float32))
        least = self._constant(np.array(0, np.float32))
        x = self.node("Clip", self.node("Mul", x, most), least, most)
        x = self.node("Cast", self.node("Round", x), to=TensorProto.UINT8)
        self.node("Transpose", x, output=output, perm=[0, 2, 3, 1])
