"""What somebody may do: which operations, with which avatars."""

import fnmatch
import json
from dataclasses import dataclass, field
from typing import Final, Literal, get_args

from lipwire.domain.errors import InvalidInput, NotFound, PermissionDenied
from lipwire.domain.names import MAX_NAME_CHARACTERS, canonical_name
from lipwire.domain.versions import parted

Operation = Literal["live", "render", "read", "manage", "infer", "deliver"]
"""``live``: live sessions. ``render``: frames of a recording. ``read``: lists, numbers and health.
``manage``: loading and unloading. ``infer``: mouths, from an inference server.
``deliver``: finished videos, ordered, fetched and removed."""

OPERATIONS: Final[tuple[Operation, ...]] = get_args(Operation)


@dataclass(frozen=True, slots=True)
class Access:
    """What one caller may do, and for whom.

    ``subject`` says who it is, for logs: the name of an API key, or the subject of a token.
    ``tenant`` is the customer whose requests these are; empty where the caller may ask for every
    tenant. ``avatars`` are patterns of the names of avatars that the caller may know of, such as
    ``*``, ``acme-*``, ``anna``. ``session`` is the id of the one live session that the caller may
    use; empty where the caller may use all sessions of the tenant.

    ``operations`` are those that are allowed, by default all: "live" (live sessions), "render"
    (frames for a recording), "read" (lists, numbers and health), "manage" (loading, unloading and
    erasing avatars), "infer" (mouths from an inference server) and "deliver" (ordering, fetching
    and removing finished videos).
    """

    subject: str
    """Who it is, for logs: the name of a key, the subject of a token."""
    tenant: str = ""
    """Whose requests these are; empty where the caller may ask for every tenant."""
    operations: frozenset[Operation] = field(default_factory=lambda: frozenset(OPERATIONS))
    avatars: tuple[str, ...] = ("*",)
    """Patterns of the avatars' names, as ``*``, ``acme-*``, ``anna``."""
    session: str = ""
    """The id of the one live session that the caller may use; empty: all of the tenant."""

    @property
    def counts_for(self) -> str:
        """Under which name limits and counters count what the caller asks for: ``tenant NAME``, or
        ``subject`` where ``tenant`` is empty."""
        return f"tenant {self.tenant}" if self.tenant else self.subject

    def may(self, operation: Operation) -> bool:
        """Return whether ``operation``, one of live, render, read, manage, infer and deliver, is
        allowed. Avatars are not looked at: ``sees`` says with which of them it is allowed."""
        return operation in self.operations

    @property
    def sees_all(self) -> bool:
        """Whether the caller may know of every avatar: ``avatars`` has the pattern ``*``."""
        return "*" in self.avatars

    def sees(self, model_id: str) -> bool:
        """Return whether the caller may know of the avatar named ``model_id``: whether one of the
        patterns in ``avatars`` matches the name. Of the name of one version of an avatar,
        "anna:" and 64 hexadecimal digits, only the avatar's name counts."""
        if self.sees_all:
            return True
        name = canonical_name(parted(model_id)[0])
        return any(fnmatch.fnmatchcase(name, canonical_name(one)) for one in self.avatars)

    def check(self, operation: Operation) -> None:
        """Raise PermissionDenied unless the caller may do ``operation``, one of live, render, read,
        manage, infer and deliver."""
        if not self.may(operation):
            given = ", ".join(sorted(self.operations)) or "nothing"
            raise PermissionDenied(f"this needs {operation}; {self.subject} may do {given}")

    def check_avatar(self, model_id: str) -> None:
        """Raise NotFound unless the caller sees the avatar ``model_id`` (``sees``), with the
        message for an avatar that does not exist, so that the caller cannot tell the two apart."""
        if not self.sees(model_id):
            raise NotFound(f"no avatar named {canonical_name(model_id)[:MAX_NAME_CHARACTERS]}")

    def told(self) -> str:
        """Return this access as one line of ASCII text (JSON), from which ``of_text`` makes an
        equal access in another process of the same server."""
        told = [self.subject, self.tenant, sorted(self.operations), list(self.avatars)]
        return json.dumps([*told, self.session])

    @classmethod
    def of_text(cls, text: str) -> "Access":
        """Return the access that is written in ``text``, a line that ``told`` returned in another
        process of the same server. Raises InvalidInput where ``text`` is not such a line."""
        try:
            told = json.loads(text)
            subject, tenant, operations, avatars, session = told
            if not (isinstance(told, list) and set(operations) <= set(OPERATIONS)):
                raise ValueError(text)
            return cls(
                str(subject), str(tenant), frozenset(operations), tuple(avatars), str(session)
            )
        except (ValueError, TypeError):
            raise InvalidInput(
                "another process tells of a caller in a way not known here"
            ) from None


EVERYTHING: Final = Access("anybody")
"""Where callers are not told apart."""
