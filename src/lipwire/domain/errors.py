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
    """Base class of all errors that Lipwire raises on purpose."""

    code: ClassVar[StatusCode] = "INTERNAL"
    retryable: ClassVar[bool] = False


class InvalidInput(LipwireError):
    """The caller gave something that can never work: a length, a range, a file without audio."""

    code = "INVALID_ARGUMENT"


class NotFound(LipwireError):
    """Something that the caller named does not exist."""

    code = "NOT_FOUND"


class AvatarInvalid(LipwireError):
    """An avatar package on disk is broken or of another kind; its owner has to repair it."""

    code = "FAILED_PRECONDITION"


class AvatarChanged(LipwireError):
    """The avatar's network is another one here than the caller asked for: its package was replaced.

    The caller opens the avatar again and repeats the request.
    """

    code = "ABORTED"
    retryable = True


class CropsNeeded(LipwireError):
    """The frames that the caller asked for by number are not here; it has to send their crops."""

    code = "FAILED_PRECONDITION"


class DependencyMissing(LipwireError):
    """An optional part (an extra, a program) is needed and not installed."""

    code = "FAILED_PRECONDITION"


class StorageFailed(LipwireError):
    """The disk is full, or a folder may not be written to. Nothing half-written is left behind."""

    code = "RESOURCE_EXHAUSTED"
    retryable = True


class Overloaded(LipwireError):
    """A bounded queue or a memory budget is full at this moment; nothing was begun.

    ``retry_after_s`` says in how many seconds another attempt may succeed; None where that is not
    known.
    """

    code = "RESOURCE_EXHAUSTED"
    retryable = True

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class DeadlineExceeded(LipwireError):
    """The caller's time is over, or too short for what is asked."""

    code = "DEADLINE_EXCEEDED"


class Unavailable(LipwireError):
    """The server or device that would answer is starting, stopping, or gone; another may answer."""

    code = "UNAVAILABLE"
    retryable = True


class Unauthenticated(LipwireError):
    """It is not known who asks: there is no credential, or none that counts."""

    code = "UNAUTHENTICATED"


class PermissionDenied(LipwireError):
    """Who asks is known, or where from, and may not do this."""

    code = "PERMISSION_DENIED"
