"""Versions of one avatar under names of their own, and which of two somebody is shown.

Where two versions of an avatar are shown at a time, one of them to all but a share, the name that
the other has wherever avatars are loaded is NAME:VERSION. No avatar's own name has a colon. Servers
tell each other such names; clients may not use them.
"""

import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Final, Literal

_VERSIONED: Final = re.compile(r"([^:]+):([0-9a-f]{64})")

Kind = Literal["published", "canary"]
"""Which of the two versions it is: the one that is published for all, or for a share."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """What somebody is shown who asks for ``avatar``: what is loaded under ``name``, the avatar's
    own or that of one version. ``kind`` is None where there is one version alone."""

    avatar: str
    name: str
    kind: Kind | None = None


Choose = Callable[[str, str, str], AbstractContextManager[Chosen]]
"""``choose(avatar, who, service)`` gives the block what ``who`` is shown of ``avatar``, and learns
how the block ends. ``who`` is a text that stays the same for whoever has to be shown the same; it
is empty for one who cannot be told from others. ``service`` is the class of the call."""


@contextmanager
def one_version(avatar: str, who: str, service: str) -> Iterator[Chosen]:
    """Give the block ``avatar`` under its own name: where there is one version of each, whoever
    asks. A context manager."""
    yield Chosen(avatar, avatar)


def who_of(tenant: str, client: str) -> str:
    """Return by which text is chosen for ``client`` of ``tenant``; empty where both are."""
    return f"{tenant}\n{client}" if tenant or client else ""


def versioned(name: str, version: str) -> str:
    """Return the name that ``version``, 64 hexadecimal digits, of the avatar ``name`` is loaded
    under."""
    return f"{name}:{version}"


def parted(name: str) -> tuple[str, str]:
    """Return an avatar's own name and the version that ``name`` is of; the version is empty where
    ``name`` is no name of a version."""
    found = _VERSIONED.fullmatch(name)
    return (name, "") if found is None else (found[1], found[2])


def in_share(share: float, *of: str) -> bool:
    """Return whether what the texts ``of`` stand for belongs to ``share``, 0 to 1, of all: the same
    for the same texts on every machine, and also in every larger share."""
    digest = hashlib.sha256("\0".join(of).encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64
