"""Parts of a file that a request asks for (RFC 9110, section 14), and whether it has the file
already (section 13)."""

import re
from typing import Final

from starlette.datastructures import Headers

_MOST: Final = 16
"""Ranges of one request; a request with more gets the whole file."""
_ONE: Final = r"\s*(\d{1,19}-\d{0,19}|-\d{1,19})\s*"
_RANGES: Final = re.compile(rf"bytes={_ONE}(,{_ONE})*", re.ASCII | re.IGNORECASE)


class NotSatisfiable(Exception):
    """Raised where a request asks for parts of a file of which it has none; its text is the value
    of the header ``Range``."""


def ranges_of(headers: Headers, *, size_bytes: int, etag: str, modified: str) -> str:
    """Return the header ``Range`` of a request with ``headers`` for a file of ``size_bytes``, with
    only those of its ranges that the file has ("bytes=0-99"); empty where the whole file is to be
    sent.

    That is so where there is no ``Range``, where it is not well formed or has more than 16 ranges,
    and where ``If-Range`` names neither ``etag``, the entity tag of the file, nor ``modified``, the
    value of its ``Last-Modified``: then the client has parts of another file. Raises NotSatisfiable
    where the file has none of the ranges.
    """
    given = headers.get("range", "").strip()
    if not _RANGES.fullmatch(given) or given.count(",") >= _MOST:
        return ""
    if headers.get("if-range", etag) not in (etag, modified):
        return ""
    there = []
    for one in given.partition("=")[2].split(","):
        first, _, last = one.strip().partition("-")
        if first and last and int(last) < int(first):
            return ""  # no range at all
        if (int(first) < size_bytes) if first else (int(last) > 0 and size_bytes > 0):
            there.append(f"{first}-{last}")
    if not there:
        raise NotSatisfiable(given)
    return f"bytes={','.join(there)}"


def has_already(headers: Headers, etag: str) -> bool:
    """Return whether a request with ``headers`` says that its sender has the file with the entity
    tag ``etag``, so that it need not be sent (If-None-Match)."""
    given = headers.get("if-none-match", "")
    tags = [tag.strip().removeprefix("W/") for tag in given.split(",")]
    return etag in tags or given.strip() == "*"
