"""Recognising the nodes that ``wrapping`` has put around a network."""

from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto

from lipwire.domain import AUDIO_WINDOW_SHAPE, MASK_COLUMNS, MASK_ROWS, MOUTH_PX
from lipwire.engine.forms import FACE, MOUTH, PIXELS_SHAPE, SPEECH
from lipwire.engine.gpu.kernels.planning.graphreading import GraphReader, expect, said
from lipwire.engine.gpu.kernels.planning.plan import Ending, NotPlanned, Pixels

# Before the network: a node, and which passes are at its inputs, make the next pass.
_CROP_PASSES: Final[dict[tuple[str, tuple[str, ...]], str]] = {
    ("Transpose", (FACE,)): "planes",
    ("Where", ("", "", "planes")): "strip",
    ("Where", ("", "strip", "planes")): "masked",
    ("Concat", ("planes", "masked")): "both",
    ("Cast", ("both",)): "single",
    ("Div", ("single", "")): "shares",
    ("Cast", ("shares",)): "pixels",
}
_CROP_SETTINGS: Final[dict[str, dict[str, Any]]] = {
    "planes": {"perm": [0, 3, 1, 2]},
    "both": {"axis": 1},
    "single": {"to": TensorProto.FLOAT},
    "pixels": {"to": TensorProto.FLOAT16},
}


def check_ends(graph: onnx.GraphProto) -> int | None:
    """Check the inputs and the output of ``graph``, and return its batch size; None where the graph
    takes any.

    Raises NotPlanned where they are not the crops, (N, 320, 320, 3) uint8, the audio windows, (N,
    32, 16, 16) float32, and the mouths, (N, 320, 320, 3) uint8, with one N.
    """
    batches: set[int | str | None] = set()
    names = {value.name: value.type.tensor_type for value in (*graph.input, *graph.output)}
    for name, kind, shape in (
        (FACE, TensorProto.UINT8, PIXELS_SHAPE),
        (SPEECH, TensorProto.FLOAT, AUDIO_WINDOW_SHAPE),
        (MOUTH, TensorProto.UINT8, PIXELS_SHAPE),
    ):
        found = names.get(name)
        dims = [] if found is None else list(found.shape.dim)
        if (
            found is None
            or found.elem_type != kind
            or tuple(dim.dim_value for dim in dims[1:]) != tuple(shape)
        ):
            raise NotPlanned(f"{name} is not (N, {', '.join(map(str, shape))})")
        batches.add(dims[0].dim_value or dims[0].dim_param or None)
    if len(batches) != 1 or len(graph.output) != 1:
        raise NotPlanned(f"batches of {batches} and {len(graph.output)} outputs, wanted is one")
    batch = batches.pop()
    return batch if isinstance(batch, int) else None


class CropPasses:
    """Recognises, in the graph that ``reader`` reads, the nodes that turn the crop, uint8, into the
    network's own input: scaled, with a copy that is black where the mouth is. ``wrap`` has added
    these nodes. They are given to ``enter`` in the graph's order."""

    def __init__(self, reader: GraphReader) -> None:
        self._reader = reader
        self._names = {FACE: FACE}
        """What the passes make is called in ``_CROP_PASSES``, by its name in the graph."""

    def has(self, node: onnx.NodeProto) -> bool:
        """Return whether ``node`` is to be given to ``enter``: whether one of its inputs is the
        crop, or the output of a node that was given to ``enter`` before. The output of the last of
        these nodes, which is the network's own input, does not count."""
        return any(self._names.get(name, "pixels") != "pixels" for name in node.input)

    def enter(self, node: onnx.NodeProto) -> Pixels | None:
        """Recognise ``node``, the next of the nodes that prepare the crop. Where it is the last of
        them, return ``Pixels()``, which stands for its output, the network's own input; else None.

        Raises NotPlanned where it does something else than the node that ``wrap`` adds there.
        """
        before = tuple(self._names.get(name, "") for name in node.input)
        made = _CROP_PASSES.get((node.op_type, before))
        if made is None:
            raise said(node, "the crop is not prepared so")
        expect(node, _CROP_SETTINGS.get(made, {}))
        if node.op_type == "Where":
            self._check_mask(node, made)
        if made == "strip":
            self._reader.check_number(node, 1, 0)
        if made == "shares":
            self._reader.check_number(node, 1, 255)
        self._names[node.output[0]] = made
        return Pixels() if made == "pixels" else None

    def _check_mask(self, node: onnx.NodeProto, made: str) -> None:
        """The strip is black in some columns; what is masked is the strip in some rows."""
        mask = np.zeros(MOUTH_PX, np.bool_)
        mask[MASK_COLUMNS if made == "strip" else MASK_ROWS] = True
        mask = mask[None, :] if made == "strip" else mask[:, None]
        found = self._reader.constant(node.input[0])
        if found is None or found.dtype != mask.dtype or not np.array_equal(found, mask):
            raise said(node, "another mask than the guide's")


def find_ending(reader: GraphReader, name: str) -> Ending:
    """Mark all nodes of ``reader`` from the value ``name``, the output of the last convolution, to
    the mouth as taken (``GraphReader.take``).

    These are a Sigmoid, a Clip to [0, 1] or neither, with which the network ends, and the nodes
    that make pixels of its values: a Cast to float32, times 255, a Clip to [0, 255], Round, a Cast
    to uint8, and a Transpose to (N, 320, 320, 3). Returns what brings the values to [0, 1]:
    "sigmoid", "clip" or "none". Raises NotPlanned where other nodes follow there.
    """
    kind = reader.kind_after(name)
    ending: Ending = "none"
    if kind == "Sigmoid":
        ending = "sigmoid"
        name = reader.take(name, "Sigmoid").output[0]
    elif kind == "Clip":
        ending = "clip"
        name = _clipped(reader, name, 1)
    name = reader.take(name, "Cast", to=TensorProto.FLOAT).output[0]
    times = reader.take(name, "Mul")
    if times.input[0] != name:
        raise said(times, "its inputs are the other way round")
    reader.check_number(times, 1, 255)
    name = reader.take(_clipped(reader, times.output[0], 255), "Round").output[0]
    name = reader.take(name, "Cast", to=TensorProto.UINT8).output[0]
    name = reader.take(name, "Transpose", perm=[0, 2, 3, 1]).output[0]
    if name != MOUTH:
        raise NotPlanned(f"{name[:60]} is made like a mouth, {MOUTH} is wanted")
    return ending


def _clipped(reader: GraphReader, name: str, most: float) -> str:
    """The name of what a Clip of ``name`` to [0, ``most``] makes."""
    clip = reader.take(name, "Clip")
    if clip.input[0] != name or len(clip.input) != 3:
        raise said(clip, "it has not both bounds")
    reader.check_number(clip, 1, 0)
    reader.check_number(clip, 2, most)
    return str(clip.output[0])
