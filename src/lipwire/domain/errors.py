"""The error tree. An error says whose fault it is, and whether trying again can help.

Every message is one line that carries the value seen and the value allowed, so that it can be
shown to a person as it stands. Paths are given only where the caller named them.
"""

from typing import ClassVar, Literal

StatusCode = Literal[
    "INVALID_ARGUMENT",
    "NOT_FOUND",
    "FAILED_PRECONDITION",
    "RESOURCE_EXHAUSTED",
    "DEADLINE_EXCEEDED",
    "UNAVAILABLE",
    "ABORTED",
    "UNAUTHENTICATED",
    "PERMISSION_DENIED",
    "INTERNAL",
]
"""The gRPC status names in use (https://grpc.io/docs/guides/status-codes/)."""


class LipwireError(Exception):
    """Base class of all errors that Lipwire raises on purpose.

    The message is one line for a person, with the value seen and the value allowed. ``code`` is the
    gRPC status that a server answers with, and ``retryable`` says whether the same request may
    succeed when it is sent again; subclasses set both.
    """

    code: ClassVar[StatusCode] = "INTERNAL"
    retryable: ClassVar[bool] = False
    request_id: str = ""
    """The id by which the log of the server that was asked has the request; empty where none was
    asked."""


class InvalidInput(LipwireError):
    """The caller gave something that can never work, such as a number out of range, an array of
    another shape or a file without audio."""

    code = "INVALID_ARGUMENT"


class NotFound(LipwireError):
    """Something that the caller named, such as an avatar or a file, does not exist."""

    code = "NOT_FOUND"


class AvatarInvalid(LipwireError):
    """An avatar's files are damaged, incomplete or of another kind than is needed; whoever owns the
    avatar has to repair them."""

    code = "FAILED_PRECONDITION"


class CompiledFormGone(AvatarInvalid):
    """A file of an avatar's compiled form was removed while the avatar was loaded. Servers of
    another version that use the same folder do that. Loading the avatar again compiles it anew."""


class AvatarChanged(LipwireError):
    """The avatar's network is another one here than the caller asked for: its package was replaced.

    The caller opens the avatar again and repeats the request.
    """

    code = "ABORTED"
    retryable = True


class CropsNeeded(LipwireError):
    """The server does not have the frames that the caller named by their numbers. The caller has to
    repeat the request with their crops, the pictures that the network is to be shown."""

    code = "FAILED_PRECONDITION"


class DependencyMissing(LipwireError):
    """Something is needed that is not installed here: a Python package of an extra, a program or a
    driver. The message names it."""

    code = "FAILED_PRECONDITION"


class StorageFailed(LipwireError):
    """A file could not be written, for example on a full disk or in a folder that may not be
    written to. No part of it is left behind."""

    code = "RESOURCE_EXHAUSTED"
    retryable = True


class Overloaded(LipwireError):
    """There is no room for the request now, for example in a queue or a memory budget; nothing was
    begun.

    ``retry_after_s`` is in how many seconds another attempt may succeed; None where that is not
    known.
    """

    code = "RESOURCE_EXHAUSTED"
    retryable = True

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class LimitExceeded(Overloaded):
    """A tenant, a customer, asks for more than it may within some time; nothing was begun.

    ``policy`` is the name of the limit, such as ``requests``; empty where that is not known.
    ``retry_after_s`` is in how many seconds another attempt may succeed; None where that is not
    known.
    """

    def __init__(
        self, message: str, *, policy: str = "", retry_after_s: float | None = None
    ) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.policy = policy


class MinutesUsedUp(LipwireError):
    """A tenant has used the minutes of live sessions that it may have in a month.

    ``used_minutes`` and ``allowed_minutes`` say how many, ``renewed_in_s`` in how many seconds the
    next month begins; each is 0 where it is not known.
    """

    code = "RESOURCE_EXHAUSTED"

    def __init__(
        self,
        message: str,
        *,
        used_minutes: float = 0,
        allowed_minutes: float = 0,
        renewed_in_s: float = 0,
    ) -> None:
        super().__init__(message)
        self.used_minutes = used_minutes
        self.allowed_minutes = allowed_minutes
        self.renewed_in_s = renewed_in_s


class DeadlineExceeded(LipwireError):
    """The time that the caller gave has passed, or is too short for what is asked."""

    code = "DEADLINE_EXCEEDED"


class Unavailable(LipwireError):
    """The server or device that would answer is starting, stopping, or gone; another one may
    answer."""

    code = "UNAVAILABLE"
    retryable = True


class Unauthenticated(LipwireError):
    """It is not known who asks: the request has no API key, token or certificate, or none that is
    valid."""

    code = "UNAUTHENTICATED"


class PermissionDenied(LipwireError):
    """The caller is known, and may not do this, or not from this address."""

    code = "PERMISSION_DENIED"
