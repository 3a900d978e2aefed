"""Messages with large fields of bytes, written and read without copying it again and again.

A protobuf library copies a field when a message is made, when it is serialised, when it is parsed
and when it is read. At 59 MB each of these costs some 20 ms of a core. The encoding is simple
enough to put the large fields beside what the library makes of the small ones
(https://protobuf.dev/programming-guides/encoding/): fields may come in any order, and of a field
that comes twice the last one counts.
"""

from collections.abc import Collection, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

_MOST_FIELDS: Final = 64
_VARINT: Final = 0
_LENGTH_DELIMITED: Final = 2
_FIXED_BYTES: Final = {1: 8, 5: 4}
"""Length of the wire types of fixed size."""


class MalformedError(ValueError):
    """Raised where bytes are not the encoding of a protobuf message, or of one with unusual
    parts."""


def with_fields(message: bytes, fields: Mapping[int, npt.NDArray[Any]]) -> bytes:
    """Return ``message``, a serialised protobuf message, with ``fields`` added: bytes fields by
    their numbers in the .proto, whose content is the bytes of an array as they lie in memory (in C
    order). Each array is copied once. A field that ``message`` has already is replaced for whoever
    parses it."""
    parts: list[bytes | memoryview] = [message]
    for number, array in fields.items():
        value = np.ascontiguousarray(array).data.cast("B")
        parts += [_varint(number << 3 | _LENGTH_DELIMITED) + _varint(len(value)), value]
    return b"".join(parts)


def split_fields(message: bytes, numbers: Collection[int]) -> tuple[bytes, dict[int, memoryview]]:
    """Take the bytes fields with these ``numbers`` (as in the .proto) out of ``message``, a
    serialised protobuf message.

    Returns (the message without these fields; the contents of the fields that ``message`` has, by
    number, as views of ``message``, without a copy). Raises MalformedError where the encoding is
    wrong, unusual, or has more than 64 fields: protobuf's own parser reads those faster. The
    content of other fields is not checked.
    """
    view = memoryview(message)
    found: dict[int, memoryview] = {}
    rest: list[memoryview] = []
    at = 0
    for _ in range(_MOST_FIELDS):
        if at == len(view):
            return b"".join(rest), found
        start = at
        tag, at = _read_varint(view, at)
        number, kind = tag >> 3, tag & 7
        if not number:
            raise MalformedError("a field has the number 0")
        if kind == _VARINT:
            _, at = _read_varint(view, at)
        elif kind == _LENGTH_DELIMITED:
            length, begin = _read_varint(view, at)
            at = begin + length
            if number in numbers and at <= len(view):
                found[number] = view[begin:at]
                continue
        elif kind in _FIXED_BYTES:
            at += _FIXED_BYTES[kind]
        else:
            raise MalformedError(f"a field has wire type {kind}")
        if at > len(view):
            raise MalformedError(f"the message ends {at - len(view)} bytes early")
        rest.append(view[start:at])
    raise MalformedError(f"the message has more than {_MOST_FIELDS} fields")


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
