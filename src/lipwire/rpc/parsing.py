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

from lipwire.rpc.generated import compositing_pb2, inference_pb2
from lipwire.rpc.generated.lipwire.v1 import mouths_pb2
from lipwire.rpc.server.bulk import MalformedError, split_fields, with_fields

LARGE_BYTES: Final = 1_000_000
"""Smaller messages are parsed in less time than it takes to look for fields in Python."""

Parser = Callable[[bytes], Any]


class ViewedMessage:
    """A protobuf message some of whose large bytes fields are read-only views of the data that it
    was parsed from: ``views``, by field name. Every other attribute is the message's."""

    __slots__ = ("_message", "_views")

    def __init__(self, message: Message, views: Mapping[str, memoryview]) -> None:
        self._message = message
        self._views = views

    def __getattr__(self, name: str) -> Any:
        view = self._views.get(name)
        return getattr(self._message, name) if view is None else view


def parser_of(message: type[Message], fields: tuple[str, ...]) -> Parser:
    """Return a function that parses serialised messages of the type ``message`` and gives the
    content of the large bytes fields named ``fields`` as views of the data, where protobuf would
    copy it.

    The function takes bytes and returns a ``ViewedMessage``, or an ordinary message where the
    encoding is unusual. It raises protobuf's DecodeError where the bytes are no such message.
    """
    names = {message.DESCRIPTOR.fields_by_name[name].number: name for name in fields}

    def parse(data: bytes) -> Any:
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
    "/lipwire.v1.MouthService/Mouths": parser_of(mouths_pb2.MouthsRequest, ("windows", "crops")),
}
"""For requests of LARGE_BYTES and more, by method."""


_Answer = TypeVar("_Answer", bound=Message)


class MessageWithArray:
    """A message and an array to be sent in one of its bytes fields, made by ``with_array``;
    ``field`` is the field's number."""

    __slots__ = ("array", "field", "message")

    def __init__(self, message: Message, field: int, array: npt.NDArray[Any]) -> None:
        self.message = message
        self.field = field
        self.array = array

    def SerializeToString(self) -> bytes:  # noqa: N802
        """Return the message serialised, with the array in its field; the array is copied once."""
        return with_fields(self.message.SerializeToString(), {self.field: self.array})


def with_array(message: _Answer, field: int, array: npt.NDArray[Any]) -> _Answer:
    """Return an answer that is ``message`` with the bytes of ``array``, as they lie in memory in C
    order, in its bytes field number ``field`` (as in the .proto).

    Its type is that of a message only because servicers have to return one: a server can send it,
    with ``ErrorInterceptor``, but its fields cannot be read. Neither is copied: do not change them
    before it is sent.
    """
    return cast(_Answer, MessageWithArray(message, field, array))
