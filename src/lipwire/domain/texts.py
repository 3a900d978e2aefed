"""The bytes of a file that somebody wrote, as text.

Encodings are told apart as YAML and JSON have it (YAML 1.2.2, 5.2; RFC 4627, 3): by the byte-order
mark, or by where the zeros are in the first characters, which both formats have in ASCII.
"""

import codecs
from typing import Final

_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16's, with which it begins
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_UNMARKED: Final[dict[tuple[bool, ...], str]] = {
    (True, True, True, False): "utf-32-be",
    (False, True, True, True): "utf-32-le",
    (True, False, True, False): "utf-16-be",
    (False, True, False, True): "utf-16-le",
}
"""By which of the first four bytes are zero."""


def decode_text(data: bytes) -> str:
    """Return the text in ``data``: UTF-8, UTF-16 or UTF-32, without its byte-order mark if it has
    one.

    Raises UnicodeDecodeError, whose ``encoding`` is the one found and ``start`` the first byte that
    does not belong to it.
    """
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return data.decode(encoding)
    return data.decode(_UNMARKED.get(tuple(byte == 0 for byte in data[:4]), "utf-8"))
