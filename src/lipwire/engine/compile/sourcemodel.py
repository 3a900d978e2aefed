"""Reading a network that somebody else made: nothing in the file is believed before it is checked.

What comes out is an ONNX model in memory with every tensor inside it, made of standard operators
only, of bounded size. A file can ask for much by saying little (a tensor of 10^12 zeros, a loop
without end, data "outside" at /etc/passwd); whatever can be seen without running it is refused
here, and ``compilation`` looks at the sizes of what the layers make.
"""

import contextlib
import hashlib
import math
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto

from lipwire.config.links import HOW, links_may_lead_out
from lipwire.domain import AvatarInvalid, NotFound
from lipwire.domain.filekinds import kind_hint
from lipwire.domain.wording import shown
from lipwire.engine.compile.finite import check_finite_weights
from lipwire.engine.runtime import first_line

MAX_MODEL_BYTES: Final = 1 << 30
"""The most bytes of the file, and of the file and its external data together. The published network
has 49 MB."""
MAX_NODES: Final = 20_000
MAX_GRAPH_DEPTH: Final = 8
OLDEST_OPSET: Final = 11
"""What the family's own exporter writes; Clip takes its bounds as inputs from here on."""

_ALLOWED_DOMAINS: Final = ("", "ai.onnx")
_LOOPS: Final = frozenset({"Loop", "Scan", "SequenceMap"})
_ITEM_BYTES: Final = {
    TensorProto.FLOAT: 4,
    TensorProto.UINT8: 1,
    TensorProto.INT8: 1,
    TensorProto.UINT16: 2,
    TensorProto.INT16: 2,
    TensorProto.INT32: 4,
    TensorProto.INT64: 8,
    TensorProto.BOOL: 1,
    TensorProto.FLOAT16: 2,
    TensorProto.DOUBLE: 8,
    TensorProto.UINT32: 4,
    TensorProto.UINT64: 8,
    TensorProto.BFLOAT16: 2,
}


@dataclass(frozen=True, slots=True)
class SourceModel:
    """A network that was read from its ONNX file and checked, wholly in memory: ``proto`` is the
    model with its weights inside, ``opset`` the version of its operators, and ``sha256`` the
    SHA-256 of the file and of the files that it keeps weights in, in hexadecimal digits."""

    proto: onnx.ModelProto
    opset: int
    sha256: str
    """SHA-256 of the file and, in the order of their use, of the files of its external data."""


def read_model(path: Path) -> SourceModel:
    """Read and check the network in the ONNX file at ``path``, with the files that it keeps weights
    in.

    Raises NotFound where there is no file, AvatarInvalid where it is no ONNX model, is damaged or
    too large, keeps data outside its folder, has weights that are not finite, or uses operators
    that are not allowed.
    """
    with damage_refused(path.name):
        return _read_model(path, path.name)


def external_files(path: Path) -> tuple[str, ...]:
    """Return the files in which the network at ``path`` keeps weights, relative to its folder.

    They are in the order of their first use; the tuple is empty where the weights are inside the
    file itself, or where the file cannot be read. Whether they exist, and are allowed, is not
    checked.
    """
    try:
        data = _read_file(path, path.name, MAX_MODEL_BYTES)
        if b"location" not in data:  # the key under which each is named
            return ()
        with damage_refused(path.name):
            proto = onnx.ModelProto.FromString(data)
            named = [
                entry.value
                for tensor in _tensors(proto.graph, path.name)
                if _is_external(tensor)
                for entry in tensor.external_data
                if entry.key == "location"
            ]
    except (AvatarInvalid, NotFound, DecodeError):
        return ()  # compiling it says what is wrong
    return tuple(dict.fromkeys(named))


@contextlib.contextmanager
def damage_refused(label: str) -> Iterator[None]:
    """Context manager: raise AvatarInvalid in place of an ArithmeticError, LookupError,
    RuntimeError, TypeError or ValueError that is raised in the block, where a library works on a
    file that may be damaged or hostile.

    ``label``, the file's name, begins the message.
    """
    try:
        yield
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise AvatarInvalid(f"{label}: a damaged ONNX model: {first_line(error)}") from error


def _read_model(path: Path, label: str) -> SourceModel:
    data = _read_file(path, label, MAX_MODEL_BYTES)
    if not data:
        raise AvatarInvalid(f"{label}: the file is empty (0 bytes), an ONNX model is needed")
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except DecodeError:
        raise AvatarInvalid(
            f"{label}: not an ONNX model, or cut short ({len(data)} bytes){kind_hint(data)}"
        ) from None
    if proto.ir_version < 1 or not proto.graph.node:
        raise AvatarInvalid(
            f"{label}: not an ONNX model (no layers in {len(data)} bytes){kind_hint(data)}"
        )
    opset = _check_operators(proto, label)
    digest = hashlib.sha256(data)
    total_bytes = 0
    external = any(_is_external(tensor) for tensor in _tensors(proto.graph, label))
    for tensor in _tensors(proto.graph, label):
        total_bytes += _check_tensor(tensor, path, label, digest)
        if total_bytes > MAX_MODEL_BYTES:
            raise AvatarInvalid(
                f"{label}: more than {MAX_MODEL_BYTES >> 20} MiB of weights, allowed are"
                f" {MAX_MODEL_BYTES >> 20} MiB"
            )
    check_finite_weights(_tensors(proto.graph, label), label)
    try:
        # What was read from other files lies in the model now, and is to be checked with it.
        onnx.checker.check_model(proto if external else data)
    except onnx.checker.ValidationError as error:
        raise AvatarInvalid(f"{label}: not valid ONNX: {first_line(error)}") from None
    return SourceModel(proto, opset, digest.hexdigest())


def graphs_below(graph: onnx.GraphProto, label: str, depth: int = 0) -> Iterator[onnx.GraphProto]:
    """Yield ``graph`` and the graphs inside its nodes, outermost first.

    ``depth`` is how many graphs ``graph`` is itself nested in: 0 for the outermost. Raises
    AvatarInvalid, with a message that begins with ``label``, where graphs are nested deeper than 8
    levels.
    """
    if depth > MAX_GRAPH_DEPTH:
        raise AvatarInvalid(f"{label}: branches nested deeper than {MAX_GRAPH_DEPTH} levels")
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from graphs_below(attribute.g, label, depth + 1)
            for inner in attribute.graphs:
                yield from graphs_below(inner, label, depth + 1)


def _read_file(path: Path, label: str, limit_bytes: int) -> bytes:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise AvatarInvalid(f"{label}: not a regular file")
        if status.st_size > limit_bytes:
            raise AvatarInvalid(
                f"{label}: {status.st_size} bytes, allowed are up to {limit_bytes} bytes"
            )
        return path.read_bytes()
    except FileNotFoundError:
        raise NotFound(f"{label}: no such file") from None
    except OSError as error:
        raise AvatarInvalid(f"{label}: cannot be read: {error.strerror}") from None


def _check_operators(proto: onnx.ModelProto, label: str) -> int:
    """Standard operators of a known version, no functions, no loops. Returns the opset."""
    opset: int = max(
        (o.version for o in proto.opset_import if o.domain in _ALLOWED_DOMAINS), default=0
    )
    if opset < OLDEST_OPSET:
        raise AvatarInvalid(f"{label}: opset {opset}, allowed is {OLDEST_OPSET} or newer")
    if proto.functions:
        function = shown(f"{proto.functions[0].domain}.{proto.functions[0].name}")
        raise AvatarInvalid(
            f"{label}: holds functions ({function}), allowed are plain layers: export it inlined"
        )
    count = 0
    for graph in graphs_below(proto.graph, label):
        count += len(graph.node)
        if count > MAX_NODES:
            raise AvatarInvalid(f"{label}: more than {MAX_NODES} layers, allowed are {MAX_NODES}")
        if graph.sparse_initializer:
            raise AvatarInvalid(f"{label}: sparse weights, allowed are dense ones")
        for node in graph.node:
            if node.domain not in _ALLOWED_DOMAINS:
                raise AvatarInvalid(
                    f"{label}: operator {shown(node.op_type)} of domain {shown(node.domain)},"
                    " allowed are the standard operators of ONNX (domain ai.onnx)"
                )
            if node.op_type in _LOOPS:
                raise AvatarInvalid(
                    f"{label}: operator {shown(node.op_type)}, allowed are networks without loops"
                )
    return opset


def _tensors(graph: onnx.GraphProto, label: str) -> Iterator[TensorProto]:
    for inner in graphs_below(graph, label):
        yield from inner.initializer
        for node in inner.node:
            for attribute in node.attribute:
                if attribute.HasField("sparse_tensor") or attribute.sparse_tensors:
                    raise AvatarInvalid(f"{label}: sparse weights, allowed are dense ones")
                if attribute.HasField("t"):
                    yield attribute.t
                yield from attribute.tensors


def _is_external(tensor: TensorProto) -> bool:
    return bool(tensor.data_location == TensorProto.EXTERNAL)


def _check_tensor(tensor: TensorProto, path: Path, label: str, digest: "hashlib._Hash") -> int:
    """Check one tensor, take it in where it lies outside, and return its size in bytes."""
    name = shown(tensor.name)
    item_bytes = _ITEM_BYTES.get(tensor.data_type)
    if item_bytes is None:
        known = TensorProto.DataType.values()
        kind = TensorProto.DataType.Name(tensor.data_type) if tensor.data_type in known else "?"
        raise AvatarInvalid(f"{label}: weights {name} are {kind}, allowed are floats and integers")
    dims = list(tensor.dims)
    count = math.prod(dims)
    if any(dim < 0 for dim in dims) or count * item_bytes > MAX_MODEL_BYTES:
        raise AvatarInvalid(
            f"{label}: weights {name} have the shape {dims[:8]}, allowed are up to"
            f" {MAX_MODEL_BYTES >> 20} MiB"
        )
    if _is_external(tensor):
        tensor.raw_data = _external(tensor, count * item_bytes, path, label)
        digest.update(tensor.raw_data)
        del tensor.external_data[:]
        tensor.ClearField("data_location")
    if tensor.HasField("raw_data"):
        seen = len(tensor.raw_data) / item_bytes
    else:
        fields = (tensor.float_data, tensor.int32_data, tensor.int64_data)
        seen = sum(map(len, (*fields, tensor.double_data, tensor.uint64_data)))
    if seen != count:
        raise AvatarInvalid(f"{label}: weights {name} hold {seen:g} values, their shape {count}")
    return int(count * item_bytes)


def _external(tensor: TensorProto, size_bytes: int, path: Path, label: str) -> bytes:
    """The bytes of a tensor that lies in another file, which must be in the model's folder."""
    name = shown(tensor.name)
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    folder = path.parent.resolve()
    try:
        asked = Path(location)
        outside = (
            not location
            or "\0" in location
            or "\\" in location
            or asked.is_absolute()
            or ".." in asked.parts
        )
        leads_out = not outside and not (folder / asked).resolve().is_relative_to(folder)
        offset = int(entries.get("offset", "0"))
        length = int(entries.get("length", str(size_bytes)))
    except (OSError, ValueError, RuntimeError):
        raise AvatarInvalid(
            f"{label}: weights {name} lie at {shown(location)}, which cannot be read"
        ) from None
    if outside:
        raise AvatarInvalid(
            f"{label}: weights {name} lie at {shown(location)}, allowed are files in the model's"
            " own folder"
        )
    if leads_out and not links_may_lead_out():
        raise AvatarInvalid(
            f"{label}: weights {name} lie at {shown(location)}, a link that leads out of the"
            f" model's folder; {HOW}"
        )
    if length != size_bytes or not 0 <= offset < 1 << 62:
        raise AvatarInvalid(
            f"{label}: weights {name} say {length} bytes at offset {offset} of {shown(location)},"
            f" their shape says {size_bytes}"
        )
    try:
        with (folder / asked).open("rb") as file:
            if not stat.S_ISREG((folder / asked).stat().st_mode):
                raise AvatarInvalid(f"{label}: {shown(location)} is not a regular file")
            file.seek(offset)
            data = file.read(size_bytes)
    except FileNotFoundError:
        raise AvatarInvalid(
            f"{label}: weights {name} lie in {shown(location)}, which is missing"
        ) from None
    except OSError as error:
        raise AvatarInvalid(
            f"{label}: {shown(location)} cannot be read: {error.strerror}"
        ) from None
    if len(data) != size_bytes:
        raise AvatarInvalid(
            f"{label}: {shown(location)} ends after {len(data)} of {size_bytes} bytes of weights"
            f" {name}"
        )
    return data
