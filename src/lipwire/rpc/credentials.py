"""What gRPC connections are encrypted with, and how clients show who they are."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import grpc

from lipwire.config.values import is_loopback
from lipwire.domain import InvalidInput
from lipwire.security import Credentials

_log: Final = logging.getLogger("lipwire.rpc")

FORWARDED: Final = "lipwire-access"
"""Metadata by which a process tells another one of the same server who asks."""


@dataclass(frozen=True, slots=True)
class ServerTls:
    """PEM files with which a server encrypts: its certificate, the certificate's private key, and
    the authority that clients' certificates have to be signed by; None lets clients connect without
    one."""

    cert: Path
    key: Path
    client_ca: Path | None = None
    """By which clients are checked; None lets any connect."""


@dataclass(frozen=True, slots=True)
class ClientTls:
    """PEM files with which a client encrypts: the authority ``ca`` that the server's certificate is
    checked by (None: those that gRPC brings, which browsers trust), and the certificate and key
    that it shows itself (None: it shows none). ``server_name`` is the name in the server's
    certificate, where that is not the host of the address."""

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    server_name: str | None = None
    """The name in the server's certificate, where it is reached by another."""


@dataclass(frozen=True, slots=True)
class ClientSecurity:
    """How a client's connection is encrypted (``tls``; None: not at all), and the API key or token
    that it sends with each call (empty: none)."""

    tls: ClientTls | None = None
    """Without it nothing is encrypted."""
    token: str = field(default="", repr=False)
    """An API key or a token, sent with each call; empty for none."""


PLAIN: Final = ClientSecurity()


def server_credentials(tls: ServerTls) -> grpc.ServerCredentials:
    """Return gRPC credentials for a server, of the certificate files ``tls``. Files that change are
    read again for later connections, without a restart; while they cannot be read, what they held
    before counts. Raises InvalidInput where one cannot be read now or is no PEM file."""
    paths = [path for path in (tls.cert, tls.key, tls.client_ca) if path is not None]
    seen = _state_of(paths)
    checked = tls.client_ca is not None

    def renewed() -> Any:  # None where nothing has changed, which gRPC's types do not say
        nonlocal seen
        try:
            now = _state_of(paths)
            if now == seen:
                return None
            configuration = _configuration(tls)
        except InvalidInput as error:
            _log.warning("the certificate is not renewed: %s", error)
            return None
        seen = now
        _log.info("the certificate in %s is renewed", tls.cert)
        return configuration

    return grpc.dynamic_ssl_server_credentials(
        _configuration(tls), renewed, require_client_authentication=checked
    )


def channel_credentials(tls: ClientTls) -> grpc.ChannelCredentials:
    """Return gRPC credentials for a client, of the files ``tls``. Raises InvalidInput where a file
    cannot be read or is no PEM file, or one of certificate and key is missing."""
    if (tls.cert is None) != (tls.key is None):
        raise InvalidInput("a certificate and its key belong together; give both or neither")
    ca, key, cert = (None if one is None else _pem(one) for one in (tls.ca, tls.key, tls.cert))
    return grpc.ssl_channel_credentials(ca, key, cert)


def check_token_is_safe(address: str, *, encrypted: bool) -> None:
    """Raise InvalidInput where a token sent to ``address`` (HOST:PORT, or another form that gRPC
    accepts) would go to another machine over a connection that is not ``encrypted``, so that
    anybody on the way could read it."""
    host = address.removeprefix("dns:///").rpartition(":")[0]
    if not encrypted and not address.startswith("unix:") and not is_loopback(host):
        raise InvalidInput(
            f"a token for {address} would be sent without encryption; give TLS (--tls-ca FILE), or"
            " ask on this machine"
        )


class _CallDetails(NamedTuple):
    """Of a call that a client makes; the names are gRPC's."""

    method: str
    timeout: float | None
    metadata: Any
    credentials: grpc.CallCredentials | None
    wait_for_ready: bool | None
    compression: grpc.Compression | None


class _TokenInterceptor(grpc.UnaryUnaryClientInterceptor, grpc.StreamStreamClientInterceptor):
    """Sends a token with each call."""

    def __init__(self, token: str) -> None:
        self._header = ("authorization", f"Bearer {token}")

    def intercept_unary_unary(
        self, continuation: Callable[[Any, Any], Any], details: Any, request: Any
    ) -> Any:
        """Return what the call with the token gives."""
        return continuation(self._with_token(details), request)

    def intercept_stream_stream(
        self, continuation: Callable[[Any, Any], Any], details: Any, requests: Any
    ) -> Any:
        """Return what the call with the token gives."""
        return continuation(self._with_token(details), requests)

    def _with_token(self, details: Any) -> _CallDetails:
        metadata = [*(details.metadata or ()), self._header]
        return _CallDetails(
            details.method,
            details.timeout,
            metadata,
            details.credentials,
            details.wait_for_ready,
            details.compression,
        )


def with_token(channel: grpc.Channel, token: str) -> grpc.Channel:
    """Return a channel that makes calls over ``channel`` and adds the metadata ``authorization:
    Bearer TOKEN`` to each that is unary or streams both ways, where TOKEN is ``token``, an API key
    or a token. Closing it closes ``channel``."""
    return grpc.intercept_channel(channel, _TokenInterceptor(token))


def credentials_of(context: grpc.ServicerContext) -> Credentials:
    """Return what the request of ``context``, gRPC's own, brings to show who asks: its metadata
    ``authorization: Bearer TOKEN`` or ``x-api-key``, its address, the names in the client's
    certificate, and what another process of the server says of who asks. Nothing is checked."""
    token = forwarded = ""
    for name, value in context.invocation_metadata():
        if name == "authorization" and isinstance(value, str):
            kind, _, rest = value.partition(" ")
            token = rest.strip() if kind.lower() == "bearer" else token
        elif name == "x-api-key" and isinstance(value, str) and not token:
            token = value.strip()
        elif name == FORWARDED and isinstance(value, str):
            forwarded = value
    auth = context.auth_context()
    names = [
        *auth.get("x509_common_name", ()),
        *auth.get("x509_subject_alternative_name", ()),
    ]
    certificates = tuple(name.decode("utf-8", "replace") for name in names)
    return Credentials(_address_of(context.peer()), token, certificates, forwarded)


def _address_of(peer: str) -> str:
    """Of gRPC's ``ipv4:192.0.2.1:50051``, ``ipv6:%5B::1%5D:50051``, ``unix:...``."""
    kind, _, rest = peer.partition(":")
    if kind not in ("ipv4", "ipv6"):
        return ""
    host = rest.rpartition(":")[0]
    return host.replace("%5B", "").replace("%5D", "").strip("[]").replace("%25", "%")


def _configuration(tls: ServerTls) -> grpc.ServerCertificateConfiguration:
    client_ca = None if tls.client_ca is None else _pem(tls.client_ca)
    return grpc.ssl_server_certificate_configuration([(_pem(tls.key), _pem(tls.cert))], client_ca)


def _pem(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}") from None
    if b"-----BEGIN " not in data:
        raise InvalidInput(f"{path} is no PEM file")
    return data


def _state_of(paths: list[Path]) -> list[tuple[int, int, int]]:
    found = []
    for path in paths:
        try:
            stat = path.stat()
        except OSError as error:
            raise InvalidInput(f"{path} cannot be read: {error.strerror}") from None
        found.append((stat.st_mtime_ns, stat.st_size, stat.st_ino))
    return found
