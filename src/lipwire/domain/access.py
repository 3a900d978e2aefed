"""What somebody may do: which operations, with which avatars."""

import fnmatch
import json
from dataclasses import dataclass, field
from typing import Final, Literal, get_args

from lipwire.domain.errors import InvalidInput, NotFound, PermissionDenied
from lipwire.domain.names import MAX_NAME_CHARACTERS, canonical_name

Operation = Literal["live", "render", "read", "manage", "infer"]
"""``live``: live sessions. ``render``: frames of a recording. ``read``: lists, numbers and health.
``manage``: loading and unloading. ``infer``: mouths, from an inference server."""

OPERATIONS: Final[tuple[Operation, ...]] = get_args(Operation)


@dataclass(frozen=True, slots=True)
class Access:
    """What one caller may do."""

    subject: str
    """Who it is, for logs: the name of a key, the subject of a token."""
    tenant: str = ""
    """Whose requests these are; empty where the caller may ask for every tenant."""
    operations: frozenset[Operation] = field(default_factory=lambda: frozenset(OPERATIONS))
    avatars: tuple[str, ...] = ("*",)
    """Patterns of the avatars' names, as ``*``, ``acme-*``, ``anna``."""

    def may(self, operation: Operation) -> bool:
        """Return whether the caller may do ``operation`` at all."""
        return operation in self.operations

    @property
    def sees_all(self) -> bool:
        """Whether the caller may know of every avatar: ``avatars`` has the pattern ``*``."""
        return "*" in self.avatars

    def sees(self, model_id: str) -> bool:
        """Return whether the caller may know of the avatar named ``model_id``: whether one of the
        patterns in ``avatars`` matches the name."""
        if self.sees_all:
            return True
        name = canonical_name(model_id)
        return any(fnmatch.fnmatchcase(name, canonical_name(one)) for one in self.avatars)

    def check(self, operation: Operation) -> None:
        """Raise PermissionDenied unless the caller may do ``operation``."""
        if not self.may(operation):
            given = ", ".join(sorted(self.operations)) or "nothing"
            raise PermissionDenied(f"this needs {operation}; {self.subject} may do {given}")

    def check_avatar(self, model_id: str) -> None:
        """Raise NotFound unless the caller sees the avatar ``model_id``: nothing tells it from one
        that does not exist."""
        if not self.sees(model_id):
            raise NotFound(f"no avatar named {canonical_name(model_id)[:MAX_NAME_CHARACTERS]}")

    def told(self) -> str:
        """Return this access as one line of ASCII text (JSON), of which ``of_text`` makes it again
        in another process of the same server."""
        return json.dumps([self.subject, self.tenant, sorted(self.operations), list(self.avatars)])

    @classmethod
    def of_text(cls, text: str) -> "Access":
        """Return the access that ``text`` describes, which ``told`` wrote in another process of the
        same server. Raises InvalidInput where ``text`` is not of that form."""
        try:
            told = json.loads(text)
            subject, tenant, operations, avatars = told
            if not (isinstance(told, list) and set(operations) <= set(OPERATIONS)):
                raise ValueError(text)
            return cls(str(subject), str(tenant), frozenset(operations), tuple(avatars))
        except (ValueError, TypeError):
            raise InvalidInput(
                "another process tells of a caller in a way not known here"
            ) from None


EVERYTHING: Final = Access("anybody")
"""Where callers are not told apart."""
