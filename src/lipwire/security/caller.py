"""Whoever makes one request, and the record of it."""

import time
from typing import Final

from lipwire.domain import EVERYTHING, Access, Operation
from lipwire.domain.tracing import current_trace
from lipwire.security.control import Control, Credentials


class Caller:
    """Who makes one request, whether they may make it, and the line of the audit file about it.
    Call ``enter`` first, and ``left`` once when the request has ended, even where ``enter`` has
    raised."""

    __slots__ = (
        "_began_s",
        "_call",
        "_control",
        "_credentials",
        "_operation",
        "access",
        "model_id",
    )

    def __init__(
        self, control: Control, operation: Operation, call: str, credentials: Credentials
    ) -> None:
        """``control`` decides who may do what. ``operation`` is what the request does, and ``call``
        is its name in the audit file, such as ``lipwire.v1.AvatarService/Converse`` or ``GET
        /v1/avatars``. ``credentials`` are what the request brings to show who asks."""
        self._control: Final = control
        self._credentials: Final = credentials
        self._operation: Final[Operation] = operation
        self._call: Final = call
        self._began_s: Final = time.perf_counter()
        self.access: Access | None = None
        """What they may do; None while that is not known."""
        self.model_id = ""
        """The avatar that the request is about, for the record; empty where there is none."""

    def enter(self, frames: int = 0, *, known: Access | None = None) -> Access:
        """Check whether the request may begin, count it for its tenant, and return what its caller
        may do. ``frames`` is how many frames of a batch it asks for; 0 for requests of other kinds.
        ``known`` is what the caller may do, where that is known from something other than their
        credentials, such as a ticket; with None the credentials are checked. The address is checked
        in either case. Raises PermissionDenied where the address or the operation is not allowed,
        Unauthenticated where the credentials do not say who asks, LimitExceeded beyond the tenant's
        limits, StorageFailed where the request has to be recorded and cannot be, Unavailable where
        keys for tokens cannot be fetched, and InvalidInput where ``Credentials.forwarded`` cannot
        be read."""
        if known is None:
            self.access = self._control.access(self._credentials)
        else:
            self._control.check_address(self._credentials.address)
            self.access = known
        self._control.enter(self.access, self._operation, frames)
        return self.access

    def upload(self, size_bytes: int) -> None:
        """Count ``size_bytes`` that the client has sent with the request, for the caller whom
        ``enter`` found. Does nothing before ``enter``. Raises LimitExceeded, with
        ``retry_after_s``, where the caller's tenant sends more than the limits allow; the bytes are
        not counted then."""
        if self.access is not None:
            self._control.upload(self.access, size_bytes)

    def left(self, outcome: str) -> None:
        """Record in the audit file, if there is one, that the request has ended: what it was, who
        made it, how long it took, and ``outcome``, which is OK or the name of a gRPC status. Raises
        nothing."""
        audit = self._control.audit
        if audit is None:
            return
        access, trace = self.access, current_trace()
        audit.write(
            {
                "request_id": "" if trace is None else trace.request_id,
                "tenant": "" if access is None else access.tenant,
                "subject": "" if access is None or access is EVERYTHING else access.subject,
                "address": self._credentials.address,
                "operation": self._operation,
                "call": self._call,
                "avatar": self.model_id,
                "outcome": outcome,
                "ms": round((time.perf_counter() - self._began_s) * 1000, 1),
            }
        )
