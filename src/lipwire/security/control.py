"""Who asks, from where, and whether they may: one place for gRPC, HTTP, WebSocket and WebRTC."""

from dataclasses import dataclass
from typing import Final

from lipwire.domain import EVERYTHING, Access, Operation, PermissionDenied, Unauthenticated
from lipwire.domain.closing import Closing
from lipwire.security.addresses import AllowedAddresses
from lipwire.security.audit import AuditLog
from lipwire.security.keys import PREFIX, KeyFile
from lipwire.security.limits import TenantLimits
from lipwire.security.shared.keys import SharedKeys
from lipwire.security.tokens import Tokens


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a request brings to show who asks: the ``address`` that it comes from, without a port
    (empty for a Unix socket); the API key or JSON Web Token sent as ``Bearer`` (empty for none);
    the names in the client's certificate, which the connection has checked; and, as ``forwarded``,
    what another process of the same server has found out of who asks (empty for nothing)."""

    address: str = ""
    """Where it comes from, without a port; empty for a Unix socket."""
    token: str = ""
    """An API key or a JSON Web Token, as it stands behind ``Bearer``; empty where there is none."""
    certificates: tuple[str, ...] = ()
    """The names in the client's certificate, which the connection has checked."""
    forwarded: str = ""
    """What another process of the server says of who asks (``Access.told``); it counts where that
    process alone can ask."""


class ForwardedControl:
    """Believes what other processes of the same server say about who makes a request; used in place
    of an ``AccessControl``. Only for a process whose socket nobody but those processes can
    reach."""

    audit: Final = None
    asks: Final = True

    def __init__(self, limits: TenantLimits | None = None) -> None:
        """``limits`` are the limits of this process for the bytes that clients send through the
        other processes; None where these are not limited."""
        self._limits = limits

    def access(self, credentials: Credentials) -> Access:
        """Return what the caller may do, as the other process says in ``credentials.forwarded``.
        Where that text is empty the other process makes the request for itself, and may do
        everything. Raises InvalidInput where the text cannot be read."""
        return Access.of_text(credentials.forwarded) if credentials.forwarded else EVERYTHING

    def check_address(self, address: str) -> None:
        """Do nothing with ``address``, and never raise: the process that passes a request on has
        checked it."""

    def enter(self, access: Access, operation: Operation, frames: int = 0) -> None:
        """Do nothing with ``access``, ``operation`` and ``frames``, and never raise: whether a call
        may begin was checked and counted by the process that passes it on."""

    def upload(self, access: Access, size_bytes: int) -> None:
        """Count ``size_bytes`` that the caller with ``access`` has sent. Raises LimitExceeded where
        its tenant sends more than the limits of this process allow."""
        if self._limits is not None:
            self._limits.upload(access, size_bytes)


class AccessControl(Closing):
    """Finds out who makes a request, by its address, API key, token or certificate, and whether
    they may. Thread-safe; a context manager."""

    def __init__(
        self,
        *,
        keys: KeyFile | SharedKeys | None = None,
        tokens: Tokens | None = None,
        certificates: tuple[str, ...] = (),
        allow_from: AllowedAddresses | None = None,
        limits: TenantLimits | None = None,
        audit: AuditLog | None = None,
    ) -> None:
        """``keys`` and ``tokens`` say which credentials count. A client certificate with one of the
        names ``certificates`` may do everything. Where none of the three is given, callers are not
        told apart and everyone may do everything. ``allow_from`` are the addresses that requests
        may come from; None: from anywhere. ``limits`` are what tenants may ask for, and ``audit``
        records calls; None where they are not limited, or not recorded."""
        self._keys = keys
        self._tokens = tokens
        self._certificates: Final = frozenset(certificates)
        self._allow_from = allow_from or AllowedAddresses(())
        self.limits: Final = limits
        self.audit: Final = audit
        self.asks: Final = bool(self.closed or self._allow_from.limited or limits or audit)
        """Whether what a request brings makes a difference."""

    def close(self) -> None:
        """Close the audit file, if there is one."""
        if self.audit is not None:
            self.audit.close()

    @property
    def closed(self) -> bool:
        """Whether callers have to show who they are: keys, tokens or names of certificates were
        given."""
        return bool(self._keys or self._tokens or self._certificates)

    def enter(self, access: Access, operation: Operation, frames: int = 0) -> None:
        """Check whether a call may begin, and count it for its tenant; to be called before it is
        answered. Returns None where the call may begin.

        ``access`` is what the caller may do, as ``access()`` returns it, ``operation`` what the
        call does, and ``frames`` how many frames it asks for. Raises PermissionDenied where
        ``access`` does not allow the operation, LimitExceeded where its tenant asks for more than
        the limits allow, and StorageFailed where calls have to be recorded and cannot be.
        """
        if self.audit is not None:
            self.audit.check()
        access.check(operation)
        if self.limits is not None:
            self.limits.take(access, frames)

    def upload(self, access: Access, size_bytes: int) -> None:
        """Count ``size_bytes`` that the caller with ``access`` has sent, for its tenant; to be
        called before these bytes are used. Raises LimitExceeded, with ``retry_after_s``, where the
        tenant sends more than the limits allow: then the bytes are not to be used."""
        if self.limits is not None:
            self.limits.upload(access, size_bytes)

    def check_address(self, address: str) -> None:
        """Raise PermissionDenied where requests may not come from ``address``, an IP address as
        text without a port; empty for a Unix socket, which is allowed. Does nothing where no
        addresses were given to the constructor."""
        if not self._allow_from.allow(address):
            raise PermissionDenied(
                f"requests from {address[:60]} are not allowed (security.allow_from)"
            )

    def access(self, credentials: Credentials) -> Access:
        """Return what the caller that brings ``credentials`` may do; everything where callers are
        not told apart. Raises PermissionDenied for an address that requests may not come from,
        Unauthenticated where the credentials have no known certificate, key or token, or one that
        is not valid, and Unavailable where the keys that tokens are checked with cannot be
        fetched."""
        self.check_address(credentials.address)
        if not self.closed:
            return EVERYTHING
        named = self._certificates.intersection(credentials.certificates)
        if named:
            return Access(f"certificate of {min(named)}")
        token = credentials.token
        if not token:
            raise Unauthenticated(
                "this server asks for an API key or a token: send it as authorization: Bearer ..."
            )
        if token.startswith(PREFIX):
            if self._keys is None:
                raise Unauthenticated("this server knows no API keys")
            return self._keys.access(token)
        if self._tokens is None:
            raise Unauthenticated("this server knows no tokens; it wants an API key")
        return self._tokens.access(token)


Control = AccessControl | ForwardedControl

OPEN: Final = AccessControl()
"""Of a server that does not tell callers apart."""
