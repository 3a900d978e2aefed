"""Candidates that a viewer sends after its offer: trickle ICE (RFC 8838, RFC 8840)."""

from dataclasses import dataclass
from typing import Final

from aiortc import RTCIceCandidate
from aiortc.sdp import candidate_from_sdp

from lipwire.domain import InvalidInput

MEDIA_TYPE: Final = "application/trickle-ice-sdpfrag"
MOST_CANDIDATES: Final = 50
"""In one message."""


class IceRestart(InvalidInput):
    """Raised where a viewer sends candidates of a new ICE session, which needs a new offer."""


@dataclass(frozen=True, slots=True)
class Fragment:
    """What one message of trickle ICE says: the ICE user name fragment that its candidates belong
    to (``a=ice-ufrag``; empty where it is not said), the candidates, and whether no more of them
    come."""

    user: str
    """The fragment of a user name that the candidates belong to, ``a=ice-ufrag``; empty where it is
    not said."""
    candidates: tuple[RTCIceCandidate, ...]
    ended: bool
    """Whether no more of them come."""


def parse_fragment(text: str) -> Fragment:
    """Return what ``text`` says, an SDP fragment of trickle ICE (RFC 8840). Raises InvalidInput
    where it is no such fragment, has a candidate that is not well formed, or has more than 50
    candidates."""
    user, mid = "", ""
    media = -1
    candidates: list[RTCIceCandidate] = []
    ended = False
    for line in text.splitlines():
        name, _, value = line.strip().partition(":")
        if line.startswith("m="):
            media, mid = media + 1, ""
        elif name == "a=ice-ufrag":
            user = value
        elif name == "a=mid":
            mid = value
        elif name == "a=candidate":
            candidates.append(_candidate(value, mid, max(0, media)))
        elif name == "a=end-of-candidates":
            ended = True
        elif line.strip() and not line.startswith("a="):
            raise InvalidInput(f"a line of the SDP fragment begins with {line[:2]!r}")
        if len(candidates) > MOST_CANDIDATES:
            raise InvalidInput(f"more than {MOST_CANDIDATES} candidates in one message")
    if not (user or candidates or ended):
        raise InvalidInput("the SDP fragment has neither ice-ufrag nor a candidate")
    return Fragment(user, tuple(candidates), ended)


def users_of(sdp: str) -> frozenset[str]:
    """Return the ICE user name fragments (values of ``a=ice-ufrag``) in ``sdp``, a session
    description."""
    found = (line.partition(":") for line in sdp.splitlines())
    return frozenset(value.strip() for name, _, value in found if name == "a=ice-ufrag")


def _candidate(value: str, mid: str, media: int) -> RTCIceCandidate:
    try:
        candidate = candidate_from_sdp(value)
    except Exception as error:  # the parser raises whatever it stumbles over
        raise InvalidInput(f"{value[:60]!r} is no candidate") from error
    candidate.sdpMid = mid or None
    candidate.sdpMLineIndex = media
    return candidate
