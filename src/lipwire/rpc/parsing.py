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

from lipwire.rpc.bulk import MalformedError, split_fields, with_fields
from lipwire.rpc.generated import compositing_pb2, inference_pb2

_WORTH_BYTES: Final = 1_000_000
"""Smaller messages are parsed in less time than it takes to look for fields in Python."""

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
        try:
            rest, found = split_fields(data, names)
        except MalformedError:
            return message.FromString(data)
        views = {names[number]: view for number, view in found.items()}
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
