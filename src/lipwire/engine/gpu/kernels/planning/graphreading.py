"""Reading the nodes of a lifted graph, for ``planner``: attributes, constants, layers, paddings."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from lipwire.engine.gpu.kernels.planning.plan import Convolution, NotPlanned
from lipwire.engine.runtime import RUNTIME_ERRORS, first_line, open_session, session_options

OLDEST_OPSET: Final = 11
"""From here on Clip and Pad take their numbers as inputs, and Resize says how it does it."""

_CONV: Final[Mapping[str, Any]] = {
    "auto_pad": "NOTSET",
    "dilations": [1, 1],
    "group": 1,
    "kernel_shape": None,
    "pads": [0, 0, 0, 0],
    "strides": [1, 1],
}

Shape = tuple[int | None, ...]
"""Of a value; None where the batch is open."""


@dataclass(frozen=True, slots=True)
class Layer:
    """What a Conv node with a square kernel, and one stride and one padding for all sides,
    computes: the names and sizes of its weights (``convolution``), the side of its ``kernel``,
    ``stride`` and ``padding`` in pixels, and whether it is ``depthwise`` or over all channels."""

    node: onnx.NodeProto
    convolution: Convolution
    kernel: int
    stride: int
    padding: int
    depthwise: bool


def said(node: onnx.NodeProto, what: str) -> NotPlanned:
    """Return a ``NotPlanned`` error, for the caller to raise, which says that kernels do not
    support something about ``node``.

    Its message names the node by operator and output, and ends with ``what``.
    """
    return NotPlanned(f"{node.op_type} ({node.output[0][:60]}): {what}")


def settings(node: onnx.NodeProto, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes of ``node`` by name, with the values of ``defaults`` for those that it
    lacks.

    Raises NotPlanned where the node has an attribute that is not in ``defaults``.
    """
    found = dict(defaults)
    for attribute in node.attribute:
        if attribute.name not in defaults:
            raise said(node, f"attribute {attribute.name[:60]} is not known")
        value = helper.get_attribute_value(attribute)
        found[attribute.name] = value.decode() if isinstance(value, bytes) else value
    return found


def expect(node: onnx.NodeProto, attributes: Mapping[str, Any]) -> None:
    """Raise NotPlanned unless ``node`` has exactly the attributes in ``attributes``, which maps
    their names to their values."""
    chosen = settings(node, dict.fromkeys(attributes))
    if chosen != attributes:
        raise said(node, f"{chosen}, wanted is {dict(attributes)}")


class GraphReader:
    """Reads an ONNX graph whose weights are inputs, node by node, to recognise what its nodes
    compute. It finds the nodes that use a value, and the values that are constants. Nodes that were
    recognised with ``take`` are marked as taken."""

    def __init__(self, model: onnx.ModelProto) -> None:
        """``model`` is the graph, in canonical form."""
        self.nodes = list(model.graph.node)
        self._opsets = list(model.opset_import)
        self._ir_version = model.ir_version
        self._constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self._inputs = {
            value.name: value.type.tensor_type
            for value in model.graph.input
            if value.name not in self._constants
        }
        self._makers = {name: i for i, node in enumerate(self.nodes) for name in node.output}
        self._ends = {value.name for value in model.graph.output}
        self.lifted: dict[str, float] = {}
        """Single numbers that are inputs, and what was expected of them."""
        self._of_shapes = self._behind_paddings()
        self._taken: set[int] = set()
        self._users: dict[str, list[int]] = {}
        for place, node in enumerate(self.nodes):
            if place not in self._of_shapes:
                for name in node.input:
                    self._users.setdefault(name, []).append(place)

    def untaken(self) -> Iterator[onnx.NodeProto]:
        """Yield the nodes in the graph's order, leaving out those that only compute how much a Pad
        adds, and those that are marked as taken by the time their turn comes."""
        for place, node in enumerate(self.nodes):
            if place not in self._of_shapes and place not in self._taken:
                yield node

    def take(self, name: str, op: str, **attributes: Any) -> onnx.NodeProto:
        """Return the only node that uses the value ``name``, and mark it as taken.

        Raises NotPlanned where not exactly one node uses the value, or that node has another
        operator than ``op`` (such as "Relu") or other attributes than ``attributes``. The
        attributes of a Conv are not compared, but ``name`` has to be its first input.
        """
        node = self.only_user(name)
        if node is None:
            raise NotPlanned(f"{name[:60]} does not have one user, wanted is one {op}")
        if node.op_type != op:
            raise said(node, f"it follows {name[:60]}, wanted is {op}")
        if op != "Conv":
            expect(node, attributes)
        elif node.input[0] != name:
            raise said(node, f"{name[:60]} is its weights or its bias")
        self._taken.add(self._makers[node.output[0]])
        return node

    def only_user(self, name: str) -> onnx.NodeProto | None:
        """Return the node that uses the value ``name``; None where no node or several nodes use it,
        or the value is an output of the graph."""
        users = self._users.get(name, [])
        return self.nodes[users[0]] if len(users) == 1 and name not in self._ends else None

    def kind_after(self, name: str) -> str:
        """Return the operator (such as "Relu") of the only node that uses the value ``name``; an
        empty string where no node or several nodes use it, or the value is an output of the graph.
        """
        node = self.only_user(name)
        return "" if node is None else str(node.op_type)

    def constant(self, name: str) -> np.ndarray[Any, Any] | None:
        """Return the value of the constant ``name`` of the graph; None where ``name`` is not a
        constant."""
        tensor = self._constants.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor)

    def check_number(self, node: onnx.NodeProto, slot: int, wanted: float) -> None:
        """Raise NotPlanned where input number ``slot`` of ``node``, from 0, is not the number
        ``wanted``.

        The number may be missing in the graph because it is one of each avatar's weights. Then its
        name and ``wanted`` are added to ``lifted``, and before an avatar's weights are used, the
        caller has to compare its number with ``wanted``.
        """
        name = node.input[slot] if slot < len(node.input) else ""
        found = self.constant(name)
        if found is not None:
            if found.size != 1 or found.ndim > 1 or found.item() != wanted:
                raise said(node, f"input {slot} is {found.reshape(-1)[:4]}, wanted is {wanted:g}")
        elif self._weight_shape(name) != ():
            raise said(node, f"input {slot} is not a single number")
        elif self.lifted.setdefault(name, float(wanted)) != wanted:
            raise said(node, f"{name} is {self.lifted[name]:g} elsewhere, wanted is {wanted:g}")

    def layer(self, node: onnx.NodeProto) -> Layer:
        """Return what the Conv ``node`` computes. Raises NotPlanned where its weights are not
        inputs in float16, its kernel is not square, its strides or paddings are not the same on all
        sides, or it is neither a full convolution, over all channels, nor a depthwise one."""
        chosen = settings(node, _CONV)
        weight, bias = node.input[1], node.input[2] if len(node.input) > 2 else None
        shape = self._weight_shape(weight, TensorProto.FLOAT16)
        if shape is None or len(shape) != 4 or shape[2] != shape[3] or min(shape) < 1:
            raise said(node, f"{weight[:60]} is not fed as float16 with a square kernel")
        outputs, inputs, kernel, _ = shape
        if bias is not None and self._weight_shape(bias, TensorProto.FLOAT16) != (outputs,):
            raise said(node, f"{bias[:60]} is not fed as ({outputs},) float16")
        if chosen["kernel_shape"] not in (None, [kernel, kernel]):
            raise said(node, f"a kernel of {chosen['kernel_shape']}, the weights have {kernel}")
        for name in ("auto_pad", "dilations"):
            if chosen[name] != _CONV[name]:
                raise said(node, f"{name} is {chosen[name]}, wanted is {_CONV[name]}")
        for name, count in (("strides", 2), ("pads", 4)):
            values = chosen[name]
            if len(values) != count or len(set(values)) != 1 or values[0] < 0:
                raise said(node, f"{name} are {values}, wanted are {count} equal ones")
        stride, padding, groups = chosen["strides"][0], chosen["pads"][0], chosen["group"]
        if stride < 1 or (groups != 1 and (groups, inputs) != (outputs, 1)):
            raise said(node, f"stride {stride}, {groups} groups; wanted are 1 or {outputs} groups")
        convolution = Convolution(weight, bias, inputs * groups, outputs)
        return Layer(
            node, convolution, kernel, stride, padding, depthwise=(groups, inputs) == (outputs, 1)
        )

    def check_pads_nothing(self, node: onnx.NodeProto, shapes: Mapping[str, Shape]) -> None:
        """Raise NotPlanned where the Pad ``node`` pads its input by anything, at any batch size, or
        its padding cannot be computed.

        PyTorch exports such a node where a network's code pads a picture to the size of another
        picture and both have the same size; where the batch is open, the padding is computed from
        the shapes of both. ``shapes`` has the known shapes of the graph's values by name, with None
        for an open batch.
        """
        settings(node, {"mode": "constant"})
        constant = self.constant(node.input[1])
        try:
            # A padding that depends on the batch shows in one of two.
            amounts = (
                [constant]
                if constant is not None
                else [self._padding(node, shapes, batch) for batch in (1, 2)]
            )
        except RUNTIME_ERRORS as error:
            raise said(node, f"its padding cannot be computed: {first_line(error)}") from None
        if any(amount.any() for amount in amounts):
            raise said(node, f"it pads by {amounts[-1].tolist()}")

    def _padding(
        self, pad: onnx.NodeProto, shapes: Mapping[str, Shape], batch: int
    ) -> np.ndarray[Any, Any]:
        feeds: dict[str, np.ndarray[Any, Any]] = {}
        nodes: list[onnx.NodeProto] = []
        for place in sorted(self._behind(pad)):
            node = self.nodes[place]
            if node.op_type != "Shape":
                nodes.append(node)
                continue
            part = settings(node, {"start": 0, "end": None})
            if node.input[0] not in shapes:
                raise said(pad, f"the shape of {node.input[0][:60]} is not known")
            dims = [batch if dim is None else dim for dim in shapes[node.input[0]]]
            feeds[node.output[0]] = np.array(dims[part["start"] : part["end"]], np.int64)
        constants = [
            t for name, t in self._constants.items() if any(name in n.input for n in nodes)
        ]
        graph = helper.make_graph(
            nodes,
            "padding",
            [
                helper.make_tensor_value_info(name, TensorProto.INT64, list(value.shape))
                for name, value in feeds.items()
            ],
            [helper.make_tensor_value_info(pad.input[1], TensorProto.INT64, None)],
            constants,
        )
        model = helper.make_model(graph, opset_imports=self._opsets, ir_version=self._ir_version)
        options = session_options(threads=1, optimisation="none")
        session = open_session(model.SerializeToString(), options)
        made: np.ndarray[Any, Any] = session.run(None, feeds)[0]
        return made

    def _behind_paddings(self) -> set[int]:
        return {
            place
            for node in self.nodes
            if node.op_type == "Pad" and len(node.input) > 1
            for place in self._behind(node)
        }

    def _behind(self, pad: onnx.NodeProto) -> set[int]:
        """Places of the nodes that compute the amounts of ``pad``, back to Shape nodes."""
        found: set[int] = set()
        names = [pad.input[1]]
        while names:
            name = names.pop()
            place = self._makers.get(name)
            if place is None:
                if name and name not in self._constants:
                    raise said(pad, f"its padding depends on {name[:60]}")
            elif place not in found:
                found.add(place)
                if self.nodes[place].op_type != "Shape":
                    names.extend(self.nodes[place].input)
        return found

    def _weight_shape(self, name: str, element: int | None = None) -> tuple[int, ...] | None:
        """Of an input that has all its dimensions and, if given, this type; else None."""
        kind = self._inputs.get(name)
        if kind is None or not kind.HasField("shape"):
            return None
        dims = kind.shape.dim
        fixed = all(dim.HasField("dim_value") for dim in dims)
        if not fixed or (element is not None and kind.elem_type != element):
            return None
        return tuple(dim.dim_value for dim in dims)
