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
    "INTERNAL",
]
"""The gRPC status names in use (https://grpc.io/docs/guides/status-codes/)."""


class LipwireError(Exception):
    """Root of everything that Lipwire raises on purpose."""

    code: ClassVar[StatusCode] = "INTERNAL"
    retryable: ClassVar[bool] = False


class InvalidInput(LipwireError):
    """The caller gave something that can never work: a length, a range, a file without audio."""

    code = "INVALID_ARGUMENT"


class NotFound(LipwireError):
    """What the caller named is not there."""

    code = "NOT_FOUND"


class AvatarInvalid(LipwireError):
    """An avatar package on disk is broken or of another kind; its owner has to mend it."""

    code = "FAILED_PRECONDITION"


class AvatarChanged(LipwireError):
    """Another revision of the avatar is held here than the one asked for: its package was replaced.
    Whoever asked opens the avatar anew and asks again."""

    code = "ABORTED"
    retryable = True


class DependencyMissing(LipwireError):
    """An optional part (an extra, a program) is asked for and not installed."""

    code = "FAILED_PRECONDITION"


class StorageFailed(LipwireError):
    """The disk is full, or a folder may not be written to. Nothing half-written is left behind."""

    code = "RESOURCE_EXHAUSTED"
    retryable = True


class Overloaded(LipwireError):
    """A bounded queue or a memory budget is full at this moment; nothing was begun.

    ``retry_after_s`` says when asking again is worth it, as well as that can be told; None where
    it cannot.
    """

    code = "RESOURCE_EXHAUSTED"
    retryable = True

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class DeadlineExceeded(LipwireError):
    """The caller's time is up, or so short that what is asked for cannot be done in it."""

    code = "DEADLINE_EXCEEDED"


class Unavailable(LipwireError):
    """Whoever would answer is starting, stopping, or gone; another may answer."""

    code = "UNAVAILABLE"
    retryable = True
