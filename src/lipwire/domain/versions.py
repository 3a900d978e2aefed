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
    """The version of ``avatar`` that somebody who asks for it is shown. ``name`` is the name under
    which that version is loaded: the avatar's own, or one that ``versioned`` returns. ``kind`` says
    whether it is the version that is published for all, or the canary, which only a share is shown;
    None where there is only one version."""

    avatar: str
    name: str
    kind: Kind | None = None


Choose = Callable[[str, str, str], AbstractContextManager[Chosen]]
"""``choose(avatar, who, service)`` gives the block what ``who`` is shown of ``avatar``, and learns
how the block ends. ``who`` is a text that stays the same for whoever has to be shown the same; it
is empty for one who cannot be told from others. ``service`` is the class of the call."""


@contextmanager
def one_version(avatar: str, who: str, service: str) -> Iterator[Chosen]:
    """Context manager: yield ``Chosen(avatar, avatar)``, the avatar under its own name, for servers
    that have one version of each avatar. It may be given wherever a ``Choose`` is taken, a function
    that chooses the version of ``avatar`` that ``who`` is shown. ``who`` and ``service`` (the class
    of the call) make no difference here."""
    yield Chosen(avatar, avatar)


def who_of(tenant: str, client: str) -> str:
    """Return a text that stands for ``client`` of ``tenant`` where it is chosen which version of an
    avatar a caller is shown. It is the same for each of their calls, so that they can be shown the
    same version, and empty where both are empty, as the caller cannot be told from others then."""
    return f"{tenant}\n{client}" if tenant or client else ""


def versioned(name: str, version: str) -> str:
    """Return the name that ``version``, 64 hexadecimal digits, of the avatar ``name`` is loaded
    under: NAME:VERSION."""
    return f"{name}:{version}"


def parted(name: str) -> tuple[str, str]:
    """Return (avatar, version) for ``name``. Where it is NAME:VERSION, and VERSION 64 lower-case
    hexadecimal digits, these are NAME, the avatar's own name, and VERSION; otherwise they are
    ``name`` itself and an empty string."""
    found = _VERSIONED.fullmatch(name)
    return (name, "") if found is None else (found[1], found[2])


def in_share(share: float, *of: str) -> bool:
    """Return whether the texts ``of``, such as the name of an avatar and of who asks, together
    belong to the share ``share``, 0 to 1, of all such texts. Their hash decides, so the answer is
    the same on every machine, and texts that belong to a share belong to every larger one."""
    digest = hashlib.sha256("\0".join(of).encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64
