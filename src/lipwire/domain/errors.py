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
    "UNAVAILABLE",
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


class DependencyMissing(LipwireError):
    """An optional part (an extra, a program) is asked for and not installed."""

    code = "FAILED_PRECONDITION"


class StorageFailed(LipwireError):
    """The disk is full, or a folder may not be written to. Nothing half-written is left behind."""

    code = "RESOURCE_EXHAUSTED"
    retryable = True
