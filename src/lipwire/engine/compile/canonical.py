"""The canonical form of a graph: two networks of one architecture become the same bytes, whatever
names their exporters chose.

The canonical form of a graph has its nodes in the order in which a walk back from the output meets
them, every value named by its place in that order, and its constants (initializers, Constant nodes,
those inside branches) in one list. Names, comments and dead layers are gone, so that the bytes
depend on what is computed and on nothing else.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import onnx
from onnx import TensorProto, helper

from lipwire.domain import AvatarInvalid
from lipwire.domain.wording import shown

PRODUCER: Final = "lipwire"


def canonicalise(
    model: onnx.ModelProto, *, inputs: Mapping[str, str], outputs: Mapping[str, str]
) -> onnx.ModelProto:
    """Return ``model``, an ONNX model, in canonical form, in which equal graphs have equal bytes:
    names and the order of nodes follow from what is computed, and comments are left out.

    ``inputs`` and ``outputs`` map the names that the model's inputs and outputs have to their names
    in the result. Only the named outputs, and what they need, are kept. ``model`` is not changed.
    Raises AvatarInvalid where a layer uses a value that nothing computes, KeyError where an input
    or output that is named is not there.
    """
    flat = _Flat(model.graph)
    order = flat.walk_back([flat.scope[name] for name in outputs if name in flat.scope])
    names = {flat.scope[old]: new for old, new in inputs.items()}
    names |= {flat.scope[old]: new for old, new in outputs.items()}
    constants = flat.name_by_place(order, names)
    # Filled in place: weights are most of a model, and onnx.helper would copy them twice.
    canonical = onnx.ModelProto(ir_version=max(model.ir_version, 4), producer_name=PRODUCER)
    graph = canonical.graph
    graph.name = PRODUCER
    graph.node.extend(flat.nodes[place] for place in order)
    graph.input.extend(_renamed(model.graph.input, inputs))
    graph.output.extend(_renamed(model.graph.output, outputs))
    for constant, name in constants:  # in the order of first use: w0, w1, ...
        tensor = graph.initializer.add()
        tensor.CopyFrom(flat.constants[constant])
        tensor.name = name
        tensor.ClearField("doc_string")
        del tensor.metadata_props[:]
    used = {node.domain for inner in _graphs(graph) for node in inner.node}
    opsets = [o for o in model.opset_import if o.domain in used or o.domain == ""]
    canonical.opset_import.extend(sorted(opsets, key=lambda o: str(o.domain)))
    return canonical


def serialised(model: onnx.ModelProto) -> bytes:
    """Return ``model``, which is in canonical form, as the bytes of an ONNX file; equal models give
    equal bytes."""
    return bytes(model.SerializeToString(deterministic=True))


class _Flat:
    """A graph with names of its own: every value, in branches too, has a number for a name."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.constants: dict[str, TensorProto] = {}
        self._count = 0
        self.scope: dict[str, str] = {}
        self.nodes = self._enter(graph, self.scope)

    def _fresh(self) -> str:
        self._count += 1
        return str(self._count)

    def _constant(self, tensor: TensorProto) -> str:
        key = self._fresh()
        self.constants[key] = tensor
        return key

    def _enter(self, graph: onnx.GraphProto, scope: dict[str, str]) -> list[onnx.NodeProto]:
        """Rename everything in ``graph``; ``scope`` maps the names seen so far, and is added to."""
        for tensor in graph.initializer:
            scope[tensor.name] = self._constant(tensor)
        for value in graph.input:
            if value.name not in scope:
                scope[value.name] = self._fresh()
        nodes: list[onnx.NodeProto] = []
        for node in graph.node:
            tensor = _constant_value(node)
            if tensor is not None:
                scope[node.output[0]] = self._constant(tensor)
                continue
            nodes.append(self._renamed_node(node, scope))
        return nodes

    def _renamed_node(self, node: onnx.NodeProto, scope: dict[str, str]) -> onnx.NodeProto:
        copy = onnx.NodeProto(op_type=node.op_type)
        if node.domain not in ("", "ai.onnx"):
            copy.domain = node.domain
        for name in node.input:
            if name and name not in scope:
                raise AvatarInvalid(
                    f"layer {shown(node.name)} uses {shown(name)}: nothing makes it"
                )
            copy.input.append(scope[name] if name else "")
        while copy.input and not copy.input[-1]:
            copy.input.pop()
        for attribute in sorted(node.attribute, key=lambda a: str(a.name)):
            added = copy.attribute.add()
            added.CopyFrom(attribute)
            added.ClearField("doc_string")
            if attribute.HasField("g"):
                self._branch(attribute.g, added.g, scope)
        for name in node.output:
            scope[name] = self._fresh()
            copy.output.append(scope[name] if name else "")
        return copy

    def _branch(
        self, graph: onnx.GraphProto, target: onnx.GraphProto, outer: dict[str, str]
    ) -> None:
        scope = dict(outer)
        nodes = self._enter(graph, scope)
        made = {name for node in nodes for name in node.output}
        target.Clear()
        target.name = PRODUCER
        for value in graph.output:
            if value.name not in scope:
                raise AvatarInvalid(f"a branch returns {shown(value.name)}: nothing makes it")
            name = scope[value.name]
            if name not in made:  # a branch may not return what was made outside of it
                nodes.append(helper.make_node("Identity", [name], [self._fresh()]))
                name = nodes[-1].output[0]
            added = target.output.add()
            added.CopyFrom(value)
            added.name = name
        target.node.extend(nodes)

    def walk_back(self, outputs: list[str]) -> list[int]:
        """Places in ``nodes`` of what ``outputs`` need, each after what it needs itself."""
        maker = {name: i for i, node in enumerate(self.nodes) for name in node.output if name}
        order: list[int] = []
        seen: set[int] = set()
        stack = [(maker[name], False) for name in reversed(outputs) if name in maker]
        while stack:
            place, needs_met = stack.pop()
            if needs_met:
                order.append(place)
            elif place not in seen:
                seen.add(place)
                stack.append((place, True))
                needs = [maker[name] for name in _uses(self.nodes[place]) if name in maker]
                stack.extend((need, False) for need in reversed(needs))
        return order

    def name_by_place(self, order: list[int], names: dict[str, str]) -> list[tuple[str, str]]:
        """Name all values of the nodes in ``order``; returns the constants used and their names."""
        constants: list[tuple[str, str]] = []
        values = 0

        def name_of(old: str) -> str:
            nonlocal values
            if old and old not in names:
                if old in self.constants:
                    names[old] = f"w{len(constants)}"
                    constants.append((old, names[old]))
                else:
                    names[old] = f"v{values}"
                    values += 1
            return names[old] if old else ""

        def rename(node: onnx.NodeProto) -> None:
            node.input[:] = [name_of(name) for name in node.input]
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    for inner in attribute.g.node:
                        rename(inner)
                    for value in attribute.g.output:
                        value.name = name_of(value.name)
            node.output[:] = [name_of(name) for name in node.output]

        for place in order:
            rename(self.nodes[place])
        return constants


def _constant_value(node: onnx.NodeProto) -> TensorProto | None:
    """What a Constant node holds, where it is a tensor of numbers."""
    if node.op_type != "Constant" or node.domain not in ("", "ai.onnx") or not node.attribute:
        return None
    attribute = node.attribute[0]
    if attribute.name == "value":
        return attribute.t
    kind = {"f": TensorProto.FLOAT, "i": TensorProto.INT64}
    if attribute.name in ("value_float", "value_int"):
        field = attribute.name[6]
        return helper.make_tensor("", kind[field], [], [getattr(attribute, field)])
    if attribute.name in ("value_floats", "value_ints"):
        field = attribute.name[6]
        values = list(getattr(attribute, field + "s"))
        return helper.make_tensor("", kind[field], [len(values)], values)
    return None


def _uses(node: onnx.NodeProto) -> Iterator[str]:
    """Names that a node reads, those that its branches read from outside included."""
    yield from node.input
    for attribute in node.attribute:
        if attribute.HasField("g"):
            for inner in attribute.g.node:
                yield from _uses(inner)


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _graphs(attribute.g)


def _renamed(
    values: Sequence[onnx.ValueInfoProto], names: Mapping[str, str]
) -> list[onnx.ValueInfoProto]:
    """Declarations under their new names and in the order of ``names``, without comments."""
    declared = {value.name: value for value in values}
    renamed = []
    for old, new in names.items():
        copy = onnx.ValueInfoProto(name=new)
        copy.type.CopyFrom(declared[old].type)
        renamed.append(copy)
    return renamed
