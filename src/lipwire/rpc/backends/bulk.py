"""Messages with one large field of bytes, written and read without copying it again and again.

A protobuf library copies a field when a message is made, when it is serialised, when it is parsed
and when it is read. At 59 MB each of these costs some 20 ms of a core. The encoding is simple
enough to put the large fields beside what the library makes of the small ones
(https://protobuf.dev/programming-guides/encoding/): fields may come in any order, and of a field
that comes twice the last one counts.
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

_LENGTH_DELIMITED: Final = 2
_FIXED_BYTES: Final = {1: 8, 5: 4}
"""Length of the wire types of fixed size."""


class MalformedError(ValueError):
    """Not the encoding of a message."""


def with_fields(message: bytes, fields: Mapping[int, npt.NDArray[Any]]) -> bytes:
    """The serialised ``message`` with arrays added as bytes fields, by number: one copy of each."""
    parts: list[bytes | memoryview] = [message]
    for number, array in fields.items():
        value = np.ascontiguousarray(array).data.cast("B")
        parts += [_varint(number << 3 | _LENGTH_DELIMITED) + _varint(len(value)), value]
    return b"".join(parts)


def split_field(message: bytes, number: int) -> tuple[bytes, memoryview]:
    """``message`` without its bytes field ``number``, and that field: a view, no copy.

    The field is empty where it is not there. Raises MalformedError; what is inside other fields is
    for the library to check.
    """
    view = memoryview(message)
    found = view[:0]
    rest: list[memoryview] = []
    at = 0
    while at < len(view):
        start = at
        tag, at = _read_varint(view, at)
        kind = tag & 7
        if kind == 0:
            _, at = _read_varint(view, at)
        elif kind == _LENGTH_DELIMITED:
            length, at = _read_varint(view, at)
            value, at = view[at : at + length], at + length
            if tag >> 3 == number and at <= len(view):
                found = value
                continue
        elif kind in _FIXED_BYTES:
            at += _FIXED_BYTES[kind]
        else:
            raise MalformedError(f"a field has wire type {kind}")
        if at > len(view):
            raise MalformedError(f"the message ends {at - len(view)} bytes early")
        rest.append(view[start:at])
    return b"".join(rest), found


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_varint(view: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(view):
            raise MalformedError("the message ends inside a number")
        byte = view[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise MalformedError("a number is longer than 10 bytes")
