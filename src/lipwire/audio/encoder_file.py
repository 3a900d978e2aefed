"""The audio encoder's ONNX file, checked before it is opened: it may come from anybody."""

from collections.abc import Iterator
from dataclasses import dataclass
from os.path import normpath
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Final

import onnx
from google.protobuf.message import DecodeError

from lipwire.audio.mel import MEL_BANDS
from lipwire.audio.rows import ROW_COLUMNS
from lipwire.config.links import HOW, links_may_lead_out
from lipwire.domain import AvatarInvalid
from lipwire.domain.filekinds import kind_hint

MAX_BYTES: Final = 1 << 30
"""The family's encoder takes 11 MB; protobuf itself ends at 2 GB."""

MAX_FIXED_BATCH: Final = 256
MAX_NODES: Final = 20_000
MAX_GRAPH_DEPTH: Final = 8
_ALLOWED_DOMAINS: Final = ("", "ai.onnx")
_LOOPS: Final = frozenset({"Loop", "Scan", "SequenceMap"})


@dataclass(frozen=True, slots=True)
class EncoderFile:
    """The content of an ONNX file that is safe to open as an audio encoder: its bytes (``source``),
    the name of its input, and how many pieces of 16 mel columns it takes in one run
    (``fixed_batch``; None where any number is allowed)."""

    source: bytes
    """For ONNX Runtime: the file's bytes, with the weights that lie in files beside it."""
    input_name: str
    fixed_batch: int | None
    """Rows that every run must have; None where the model leaves them free."""


def read_encoder_file(path: Path) -> EncoderFile:
    """Read the ONNX file at ``path``, check that it is safe to open as an audio encoder, and return
    its bytes (``source``), with the weights that lie in files beside it, the name of its input, and
    the N that every run must have (``fixed_batch``; None where any is allowed).

    Raises AvatarInvalid where the file is missing, not readable, longer than 1 GiB with its weights
    or no ONNX model, where weights are not in plain files inside the model's folder, where it has
    functions, loops, operators of other domains than ai.onnx or too many layers, and where its
    inputs are not exactly one, (N, 1, 80, 16) float32 with N free or 1 to 256.
    """
    try:
        if not path.is_file():
            raise AvatarInvalid(f"audio encoder {path} is missing or not a file")
        size = path.stat().st_size
        if not 0 < size <= MAX_BYTES:
            raise AvatarInvalid(f"audio encoder {path} has {size} bytes; allowed: 1 to {MAX_BYTES}")
        data = path.read_bytes()
    except OSError as error:
        raise AvatarInvalid(f"audio encoder {path} cannot be read: {error.strerror}") from error
    try:
        model = onnx.load_model_from_string(data)
    except DecodeError as error:
        raise AvatarInvalid(
            f"audio encoder {path} is no ONNX model, or a damaged one{kind_hint(data)}"
        ) from error
    if not model.graph.node:
        raise AvatarInvalid(
            f"audio encoder {path} is no ONNX model, or an empty one{kind_hint(data)}"
        )
    _check_operators(path, model)
    outside = [
        tensor for tensor in _tensors(model) if tensor.data_location == onnx.TensorProto.EXTERNAL
    ]
    if outside:
        # By ourselves: ONNX Runtime follows no link that leads out of the folder.
        left_bytes = MAX_BYTES - size
        for tensor in outside:
            _bring_inside(tensor, path, left_bytes)
            left_bytes -= len(tensor.raw_data)
        data = model.SerializeToString()
    name, fixed_batch = _checked_input(path, model.graph)
    return EncoderFile(data, name, fixed_batch)


def _checked_input(path: Path, graph: onnx.GraphProto) -> tuple[str, int | None]:
    """The input's name and its fixed batch size, None where the batch is free."""
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in weights]
    allowed = f"one input (N, 1, {MEL_BANDS}, {ROW_COLUMNS}) float32"
    if len(inputs) != 1:
        raise AvatarInvalid(f"audio encoder {path} has {len(inputs)} inputs; allowed: {allowed}")
    tensor = inputs[0].type.tensor_type
    # A side is a number, or free: a name or nothing at all.
    shape = [side.dim_value if side.HasField("dim_value") else None for side in tensor.shape.dim]
    expected = (None, 1, MEL_BANDS, ROW_COLUMNS)
    fits = len(shape) == len(expected) and all(
        None in (side, size) or side == size for side, size in zip(shape, expected, strict=True)
    )
    if not fits or tensor.elem_type != onnx.TensorProto.FLOAT:
        sides = ", ".join("N" if side is None else str(side) for side in shape)
        kinds = onnx.TensorProto.DataType
        known = tensor.elem_type in kinds.values()
        kind = (
            kinds.Name(tensor.elem_type).lower() if known else f"{tensor.elem_type}, which is none"
        )
        raise AvatarInvalid(
            f"audio encoder {path} has input {inputs[0].name} ({sides}) of type {kind}; "
            f"allowed: {allowed}"
        )
    batch = shape[0]
    if batch is not None and not 1 <= batch <= MAX_FIXED_BATCH:
        raise AvatarInvalid(
            f"audio encoder {path} has a fixed batch of {batch}; allowed: 1 to {MAX_FIXED_BATCH}"
        )
    return inputs[0].name, batch


def _check_operators(path: Path, model: onnx.ModelProto) -> None:
    """Standard operators, no functions, no loops, which may have no end."""
    if model.functions:
        raise AvatarInvalid(f"audio encoder {path} has functions; allowed: plain layers")
    count = 0
    for graph in _graphs(path, model.graph):
        count += len(graph.node)
        if count > MAX_NODES:
            raise AvatarInvalid(
                f"audio encoder {path} has {count} layers and more; allowed: {MAX_NODES}"
            )
        for node in graph.node:
            if node.domain not in _ALLOWED_DOMAINS:
                raise AvatarInvalid(
                    f"audio encoder {path} has the operator {node.op_type[:60]!r} of domain"
                    f" {node.domain[:60]!r}; allowed: those of ai.onnx"
                )
            if node.op_type in _LOOPS:
                raise AvatarInvalid(
                    f"audio encoder {path} has the operator {node.op_type}; allowed: no loops"
                )


def _graphs(path: Path, graph: onnx.GraphProto, depth: int = 0) -> Iterator[onnx.GraphProto]:
    if depth > MAX_GRAPH_DEPTH:
        raise AvatarInvalid(
            f"audio encoder {path} has branches nested deeper than {MAX_GRAPH_DEPTH} levels"
        )
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _graphs(path, attribute.g, depth + 1)
            for inner in attribute.graphs:
                yield from _graphs(path, inner, depth + 1)


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    yield from _graph_tensors(model.graph)
    for function in model.functions:
        for node in function.node:
            yield from _node_tensors(node)


def _graph_tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        yield from _node_tensors(node)


def _node_tensors(node: onnx.NodeProto) -> Iterator[onnx.TensorProto]:
    for attribute in node.attribute:
        yield from (attribute.t, *attribute.tensors)
        for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
            yield from (sparse.values, sparse.indices)
        for graph in (attribute.g, *attribute.graphs):
            yield from _graph_tensors(graph)


def _bring_inside(tensor: onnx.TensorProto, path: Path, limit_bytes: int) -> None:
    """Read the data of ``tensor`` from the file beside ``path`` where it lies."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    file = _checked_file(path, location)
    try:
        offset = int(entries.get("offset", "0"))
        length = int(entries.get("length", str(max(0, file.stat().st_size - offset))))
        if not (offset >= 0 and 0 <= length <= limit_bytes):
            raise AvatarInvalid(
                f"audio encoder {path} keeps {length} bytes at offset {offset} of {location!r};"
                f" allowed: {limit_bytes} bytes"
            )
        with file.open("rb") as stream:
            stream.seek(offset)
            tensor.raw_data = stream.read(length)
    except (OSError, ValueError) as error:
        raise AvatarInvalid(
            f"audio encoder {path}: {location!r} cannot be read: {error}"
        ) from error
    del tensor.external_data[:]
    tensor.ClearField("data_location")


def _checked_file(path: Path, location: str) -> Path:
    folder = path.parent.resolve()
    absolute = PurePosixPath(location).is_absolute() or PureWindowsPath(location).drive
    named = folder if absolute or "\0" in location else Path(normpath(folder / location))
    if named == folder or folder not in named.parents:
        raise AvatarInvalid(
            f"audio encoder {path} keeps weights at {location!r}; "
            "allowed: files inside the model's folder"
        )
    target = named.resolve()
    if folder not in target.parents and not links_may_lead_out():
        raise AvatarInvalid(
            f"audio encoder {path} keeps weights at {location!r}, a link that leads out of the"
            f" model's folder; {HOW}"
        )
    if not target.is_file():
        raise AvatarInvalid(f"audio encoder {path} keeps weights at {location!r}, which is missing")
    return target
