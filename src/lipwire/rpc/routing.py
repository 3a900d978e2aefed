"""What a call tells load balancers: which avatar it is about, and which live session, in gRPC's
metadata, where a balancer reads it without reading messages."""

from typing import Final
from urllib.parse import quote

Metadata = tuple[tuple[str, str], ...]

MODEL_ID: Final = "x-model-id"
"""The avatar's name: a balancer that hashes on it gives one server all that is about one avatar."""
SESSION_ID: Final = "x-session-id"
"""A live session's id. A server says it in the metadata with which its answer begins, where a
balancer learns which server that was; a client says it when it comes back to the session."""

CLIENT_ID: Final = "x-client-id"
"""What a client calls itself: who says the same is shown the same version of an avatar, on all
servers, where a share of those who use it is shown another one."""

REFUSED: Final = "x-refused"
"""Said by a server that refuses a stream, with its first headers. A client that ends its side then
gets the status: one that comes while the client may still send is replaced by CANCELLED in HAProxy
2.6."""

_SAFE: Final = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) != "%")
_LONGEST: Final = 255
"""Servers refuse longer ones, which they read in the message; gRPC would refuse the metadata."""


def routing(*, model_id: str = "", session_id: str = "", client_id: str = "") -> Metadata:
    """Return the metadata of a gRPC call, for load balancers: about the avatar ``model_id``
    ("x-model-id") and the live session ``session_id`` ("x-session-id"), of a client that calls
    itself ``client_id`` ("x-client-id"). A value is left out where it is empty, longer than 255
    characters, or not text (a lone surrogate). Characters that a header may not contain are written
    as %XX."""
    told = ((MODEL_ID, model_id), (SESSION_ID, session_id), (CLIENT_ID, client_id))
    return tuple((name, _escaped(value)) for name, value in told if _fits(value))


def _fits(value: str) -> bool:
    text = not any("\ud800" <= letter <= "\udfff" for letter in value)
    return 0 < len(value) <= _LONGEST and text


def _escaped(value: str) -> str:
    return quote(value, safe=_SAFE)
