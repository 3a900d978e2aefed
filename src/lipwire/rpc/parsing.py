"""Messages of tens of megabytes, parsed and written without copying what is large in them.

protobuf copies a bytes field when it parses the message and again when the field is read: for a
batch of 24 in the guide's form, 59 MB each time, 40 ms of a core. Here the large fields are views
of the message as gRPC delivered it, and protobuf sees the rest. What is not plainly regular goes
to protobuf as a whole, which then says what is wrong with it. Large answers are written likewise.

Wire format: https://protobuf.dev/programming-guides/encoding/
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar, cast

import numpy.typing as npt
from google.protobuf.message import Message

from lipwire.rpc.backends.bulk import with_fields
from lipwire.rpc.generated import compositing_pb2, inference_pb2

_WORTH_BYTES: Final = 1_000_000
"""Smaller messages are parsed in less time than it takes to look for fields in Python."""
_MOST_FIELDS: Final = 64
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

Parser = Callable[[bytes], Any]


class ViewedMessage:
    """A message whose large fields are read-only views; every other attribute is the message's."""

    __slots__ = ("_message", "_views")

    def __init__(self, message: Message, views: Mapping[str, memoryview]) -> None:
        self._message = message
        self._views = views

    def __getattr__(self, name: str) -> Any:
        view = self._views.get(name)
        return getattr(self._message, name) if view is None else view


def parser_of(message: type[Message], fields: tuple[str, ...]) -> Parser:
    """What parses a ``message``, with views in place of the bytes ``fields`` where it is large.

    It raises protobuf's DecodeError as ``message.FromString`` does.
    """
    names = {message.DESCRIPTOR.fields_by_name[name].number: name for name in fields}

    def parse(data: bytes) -> Any:
        if len(data) < _WORTH_BYTES:
            return message.FromString(data)
        split = _split(data, names)
        if split is None:
            return message.FromString(data)
        rest, views = split
        return ViewedMessage(message.FromString(rest), views)

    return parse


PARSERS: Final[Mapping[str, Parser]] = {
    "/compositing.CompositingService/InferBatchComposite": parser_of(
        compositing_pb2.CompositeBatchRequest, ("visual_frames",)
    ),
    "/inference.InferenceService/InferBatch": parser_of(
        inference_pb2.InferBatchRequest, ("visual_frames",)
    ),
}
"""Methods whose requests may be large."""


_Answer = TypeVar("_Answer", bound=Message)


class MessageWithArray:
    """An answer and the array that goes into one of its bytes fields; for ``serialize``."""

    __slots__ = ("array", "field", "message")

    def __init__(self, message: Message, field: int, array: npt.NDArray[Any]) -> None:
        self.message = message
        self.field = field
        self.array = array


def with_array(message: _Answer, field: int, array: npt.NDArray[Any]) -> _Answer:
    """``message``, to be sent with ``array`` in its bytes field number ``field``.

    It is said to be a message because servicers have to return one; all it can do is be sent by a
    server that has ``ErrorInterceptor``.
    """
    return cast(_Answer, MessageWithArray(message, field, array))


def serialize(answer: object) -> bytes:
    """The bytes of a message, or of one ``with_array``: the array is copied once."""
    if isinstance(answer, MessageWithArray):
        return with_fields(answer.message.SerializeToString(), {answer.field: answer.array})
    if isinstance(answer, Message):
        return answer.SerializeToString()
    raise TypeError(f"{type(answer).__name__} is no message")


def _split(data: bytes, names: Mapping[int, str]) -> tuple[bytes, dict[str, memoryview]] | None:
    """The message without the fields ``names`` (number: name), and those; None where the message
    is irregular or has many fields. Of a field that comes twice the last counts, as in protobuf."""
    whole = memoryview(data)
    rest: list[memoryview] = []
    views: dict[str, memoryview] = {}
    position = 0
    for _ in range(_MOST_FIELDS):
        if position == len(data):
            return b"".join(rest), views
        start = position
        tag, position = _varint(data, position)
        number, kind = tag >> 3, tag & 7
        if position < 0 or not number:
            return None
        if kind == _VARINT:
            _, position = _varint(data, position)
            if position < 0:
                return None
        elif kind == _BYTES:
            size, position = _varint(data, position)
            if position < 0 or size > len(data) - position:
                return None
            begin, position = position, position + size
            if number in names:
                views[names[number]] = whole[begin:position]
                continue
        elif kind in (_FIXED64, _FIXED32):
            position += 8 if kind == _FIXED64 else 4
        else:
            return None
        if position > len(data):
            return None
        rest.append(whole[start:position])
    return None


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """The number at ``position`` and where the next thing begins; -1 where it is cut, too long."""
    value = 0
    for shift in range(0, 64, 7):
        if position >= len(data):
            return 0, -1
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    return 0, -1
