"""What a graph computes from shapes alone, computed once when it is compiled.

PyTorch exports "pad this to the size of that" as some twenty layers that ask for both sizes, and a
padding. In the SyncTalk_2D family's network both are always of one size. ONNX Runtime keeps all of
it, and copies the largest activations into another layout and back for a padding of nothing: 5 % of
a frame at the widths of the mobile variant.

What is removed changes no bit of a result.
"""

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx
from onnx import helper, numpy_helper

from lipwire.engine.compile.lifting import lift

_MOST_VALUES: Final = 64
"""Of an array that is computed here: shapes and paddings are small."""

_Array = np.ndarray[Any, Any]
_Dims = tuple[int | None, ...]
"""None for a dimension that is open, as the batch is."""


@dataclass(frozen=True, slots=True)
class _Known:
    """An array that depends on shapes alone: ``numbers``, and which of them (``open``, of the same
    shape) depend on dimensions that are open."""

    numbers: _Array
    open: _Array

    @classmethod
    def closed(cls, numbers: _Array) -> "_Known":
        """An array of numbers that depend on nothing."""
        return cls(numbers, np.zeros(numbers.shape, np.bool_))

    @property
    def constant(self) -> bool:
        return not self.open.any()


def fold_shapes(network: onnx.ModelProto) -> None:
    """Change ``network``, an ONNX model, in place: replace values that depend on shapes alone by
    constants, and bypass layers that pad by nothing or slice nothing off. Layers that are not
    needed any more stay in it. The layers of ``network`` have to be in an order in which they can
    be run.

    Does nothing where there are no Pad or Slice layers, or where layers have graphs inside (If).
    Raises ``onnx.shape_inference.InferenceError`` where shapes do not fit each other.
    """
    nodes = network.graph.node
    asks = any(node.op_type in ("Pad", "Slice") for node in nodes)
    if not asks or any(a.HasField("g") or a.graphs for node in nodes for a in node.attribute):
        return
    weights = {t.name: t for t in network.graph.initializer if np.prod(t.dims) <= _MOST_VALUES}
    given = {name: _Known.closed(numpy_helper.to_array(t)) for name, t in weights.items()}
    # What follows a padding has a known shape only if the padding is known, which may depend on
    # the shapes before it. So all of them are taken to be of nothing until one is not.
    paddings = {n.output[0] for n in nodes if n.op_type == "Pad" and n.input[1:2] != ()}
    while True:
        shapes = _shapes(network, paddings)
        known, same = _known(network, shapes, dict(given))
        wrong = paddings - same.keys()
        if not wrong:
            break
        paddings -= wrong
    constants: dict[str, onnx.TensorProto] = {}
    for node in nodes:
        for place, name in enumerate(node.input):
            name = node.input[place] = _source(name, same)
            found = None if name in given else known.get(name)
            # Floats may be what differs from avatar to avatar: those are not for the graph.
            if found is not None and found.constant and found.numbers.dtype.kind in "iub":
                kept = node.input[place] = f"folded_{name}"
                constants[kept] = numpy_helper.from_array(found.numbers, kept)
    network.graph.initializer.extend(constants.values())


def _source(name: str, same: Mapping[str, str]) -> str:
    while name in same:
        name = same[name]
    return name


def _known(
    network: onnx.ModelProto, shapes: Mapping[str, _Dims], known: dict[str, _Known]
) -> tuple[dict[str, _Known], dict[str, str]]:
    """All values that depend on shapes alone, besides those ``known`` before; and, of layers that
    change nothing, the input by the output."""
    outputs = {output.name for output in network.graph.output}
    same: dict[str, str] = {}
    for node in network.graph.node:
        if (found := _computed(node, shapes, known)) is not None:
            known[node.output[0]] = found
        elif node.output[0] not in outputs and _changes_nothing(node, shapes, known):
            same[node.output[0]] = node.input[0]
    return known, same


def _shapes(network: onnx.ModelProto, same: Set[str]) -> dict[str, _Dims]:
    """The dimensions of every value that they are known of. Layers whose output is one of ``same``
    are taken to change nothing."""
    small = {t.name for t in network.graph.initializer if np.prod(t.dims) <= _MOST_VALUES}
    graph, _ = lift(network, small)
    for node in graph.graph.node:
        if node.output[0] in same:
            node.op_type = "Identity"
            del node.input[1:], node.attribute[:]
    inferred = onnx.shape_inference.infer_shapes(graph, data_prop=True).graph
    return {
        value.name: tuple(
            dim.dim_value if dim.HasField("dim_value") else None
            for dim in value.type.tensor_type.shape.dim
        )
        for value in (*inferred.input, *inferred.value_info)
        if value.type.tensor_type.HasField("shape")
    }


def _computed(
    node: onnx.NodeProto, shapes: Mapping[str, _Dims], known: Mapping[str, _Known]
) -> _Known | None:
    """What ``node`` gives; None where that depends on more than shapes."""
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    if node.op_type == "Shape":
        dims = shapes.get(node.input[0])
        if dims is None:
            return None
        part = slice(attributes.get("start", 0), attributes.get("end"))
        numbers = np.array([dim or 0 for dim in dims], np.int64)
        return _Known(numbers[part], np.array([dim is None for dim in dims], np.bool_)[part])
    inputs = [known.get(name) if name else None for name in node.input]
    if any(name and found is None for name, found in zip(node.input, inputs, strict=True)):
        return None
    try:
        found = _run(node.op_type, inputs, attributes)
    except (ValueError, IndexError, TypeError, KeyError, OverflowError, MemoryError):
        return None  # ONNX Runtime says what is wrong with it
    return None if found is None or found.numbers.size > _MOST_VALUES else found


def _run(
    op_type: str, inputs: Sequence[_Known | None], attributes: Mapping[str, Any]
) -> _Known | None:
    """What a layer makes of ``inputs``, None for one that is not given; None where it is not known,
    or where it is that depends on open dimensions."""
    numbers = [None if each is None else each.numbers for each in inputs]
    masks: list[Any] = [None if each is None else each.open for each in inputs]
    if op_type == "ConstantOfShape":
        shape = inputs[0]
        constant = shape is not None and shape.constant
        return _Known.closed(_filled(numbers[0], attributes)) if constant else None
    if op_type in _ARITHMETIC:
        return _Known(_ARITHMETIC[op_type](*numbers), np.asarray(np.logical_or(*masks)))
    moving = _MOVING.get(op_type)
    if moving is None:
        return None
    moved = len(inputs) if op_type == "Concat" else 1
    if any(each is not None and not each.constant for each in inputs[moved:]):
        return None
    return _Known(
        moving(numbers, attributes), moving([*masks[:moved], *numbers[moved:]], attributes)
    )


def _changes_nothing(
    node: onnx.NodeProto, shapes: Mapping[str, _Dims], known: Mapping[str, _Known]
) -> bool:
    given = [known.get(name) for name in node.input[1:]]
    if not given or any(each is None or not each.constant for each in given):
        return False
    first, *more = (each.numbers for each in given if each is not None)
    if node.op_type == "Pad":
        return not first.any()
    dims = shapes.get(node.input[0])
    if node.op_type != "Slice" or dims is None:
        return False
    starts, ends = first.tolist(), more[0].tolist()
    axes = more[1].tolist() if len(more) > 1 else range(len(starts))
    steps = more[2].tolist() if len(more) > 2 else [1] * len(starts)
    return all(
        (dim := dims[axis]) is not None and start == 0 and step == 1 and end >= dim
        for start, end, axis, step in zip(starts, ends, axes, steps, strict=True)
    )


# -- layers that exporters compute shapes with -----------------------------------------------------

_Moving = Callable[[Sequence[Any], Mapping[str, Any]], _Array]
"""Inputs and attributes to an output, whose numbers are those of an input at other places."""


def _cast(inputs: Sequence[Any], attributes: Mapping[str, Any]) -> _Array:
    if inputs[0].dtype == np.bool_:  # whether it is open stays
        return np.asarray(inputs[0])
    return np.asarray(inputs[0].astype(helper.tensor_dtype_to_np_dtype(attributes["to"])))


def _divided(over: _Array, under: _Array) -> _Array:
    if over.dtype.kind == "f":
        return np.asarray(over / under)
    if not np.all(under):
        raise ValueError("division by zero")
    return np.asarray(np.sign(over) * np.sign(under) * (np.abs(over) // np.abs(under)))


def _axes(inputs: Sequence[Any], attributes: Mapping[str, Any]) -> tuple[int, ...]:
    """Given by an input in newer operators, by an attribute in older ones."""
    given = attributes["axes"] if len(inputs) < 2 else inputs[1].tolist()
    return tuple(int(axis) for axis in given)


def _sliced(inputs: Sequence[Any], _attributes: Mapping[str, Any]) -> _Array:
    data, starts, ends, *more = inputs
    axes = more[0].tolist() if more and more[0] is not None else range(len(starts))
    steps = more[1].tolist() if len(more) > 1 else [1] * len(starts)
    part = [slice(None)] * data.ndim
    for start, end, axis, step in zip(starts.tolist(), ends.tolist(), axes, steps, strict=True):
        # From the end backwards, ONNX writes "before the first" as a very negative number.
        before_all = step < 0 and end < -data.shape[axis]
        part[axis] = slice(start, None if before_all else end, step)
    return np.asarray(data[tuple(part)])


def _reshaped(inputs: Sequence[Any], attributes: Mapping[str, Any]) -> _Array:
    data, shape = inputs
    if attributes.get("allowzero") or not np.all(shape):
        raise ValueError("a dimension of 0")
    return np.asarray(data.reshape(shape.tolist()))


def _filled(shape: Any, attributes: Mapping[str, Any]) -> _Array:
    value = attributes.get("value")
    fill = np.zeros(1, np.float32) if value is None else numpy_helper.to_array(value)
    if np.prod(shape.astype(object)) > _MOST_VALUES:
        raise ValueError("too large")
    return np.full(shape.tolist(), fill[0], fill.dtype)


_ARITHMETIC: Final[Mapping[str, Callable[..., _Array]]] = {
    "Add": lambda a, b: np.asarray(a + b),
    "Div": _divided,
    "Mul": lambda a, b: np.asarray(a * b),
    "Sub": lambda a, b: np.asarray(a - b),
}
_MOVING: Final[Mapping[str, _Moving]] = {
    "Cast": _cast,
    "Concat": lambda inputs, attributes: np.concatenate(inputs, attributes["axis"]),
    "Gather": lambda inputs, attributes: np.asarray(
        np.take(inputs[0], inputs[1], attributes.get("axis", 0))
    ),
    "Identity": lambda inputs, _: np.asarray(inputs[0]),
    "Reshape": _reshaped,
    "Slice": _sliced,
    "Squeeze": lambda inputs, attributes: np.squeeze(inputs[0], _axes(inputs, attributes)),
    "Transpose": lambda inputs, attributes: np.transpose(inputs[0], attributes.get("perm")),
    "Unsqueeze": lambda inputs, attributes: np.expand_dims(inputs[0], _axes(inputs, attributes)),
}
