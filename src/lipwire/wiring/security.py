"""Who may ask a server, and what its connections are encrypted with, from its configuration."""

from typing import Any, Literal

from lipwire.config.compositing import InferenceAddressSettings
from lipwire.config.securitysettings import LimitSettings, SecuritySettings
from lipwire.config.settings import ServerSettings, TlsSettings
from lipwire.rpc.credentials import (
    PLAIN,
    ClientSecurity,
    ClientTls,
    ServerTls,
    server_credentials,
)
from lipwire.security import (
    AccessControl,
    AllowedAddresses,
    AuditLog,
    KeyFile,
    LimitRules,
    TenantLimits,
    TokenRules,
    Tokens,
)
from lipwire.security.shared.counts import SharedCounts
from lipwire.security.shared.keys import SharedKeys
from lipwire.stores import RedisConnection


def open_access_control(
    security: SecuritySettings,
    server: ServerSettings,
    redis: RedisConnection | None = None,
    shared_keys: Literal["none", "revoked", "all"] = "none",
) -> AccessControl:
    """Return what decides who may ask ``server`` and for what, by the keys, tokens and addresses of
    ``security`` and the server's certificate names; the caller closes it, as a context manager.
    Limits are counted with all who share ``redis``, which the caller keeps open as long; None where
    this process counts for itself. ``shared_keys`` says what servers that share ``redis`` tell each
    other of API keys: nothing ("none"), which were revoked, or all. Raises InvalidInput where a
    key, an address or a file of the settings is not usable, and StorageFailed where the audit file
    cannot be opened."""
    keys: KeyFile | SharedKeys | None = None
    if security.keys_file is not None:
        file = keys = KeyFile(security.keys_file)
        file.listed()  # a damaged file is told now, not at the first request
        if redis is not None and shared_keys != "none":
            keys = SharedKeys(file, redis, new=shared_keys == "all")
    tokens = None
    rules = security.jwt
    if rules.issuer is not None and rules.audience is not None:
        tokens = Tokens(
            TokenRules(
                rules.algorithms,
                rules.issuer,
                rules.audience,
                rules.leeway_seconds,
                rules.tenant_claim or "tenant",
                tenant_required=rules.tenant_claim is not None,
            ),
            key_file=rules.key_file,
            jwks_url=rules.jwks_url,
        )
    return AccessControl(
        keys=keys,
        tokens=tokens,
        certificates=server.tls.client_names,
        allow_from=AllowedAddresses(security.allow_from),
        limits=_limits(security.limits, redis),
        audit=(
            None
            if security.audit_file is None
            else AuditLog(security.audit_file, required=security.audit_required)
        ),
    )


def _limits(limits: LimitSettings, redis: RedisConnection | None) -> TenantLimits | None:
    rules = LimitRules(
        limits.requests_per_minute, limits.frames_per_second, limits.upload_mb_per_minute
    )
    if not rules:
        return None
    return TenantLimits(rules, None if redis is None else SharedCounts(redis))


def transport_options(control: AccessControl, server: ServerSettings) -> dict[str, Any]:
    """Return the fields ``control`` and ``credentials`` of ``ServerOptions``, as keyword arguments:
    who may ask, and the certificate of ``server``. Raises InvalidInput where a file of the
    certificate cannot be read."""
    tls = server_tls(server.tls)
    return {
        "control": control,
        "credentials": None if tls is None else server_credentials(tls),
    }


def server_tls(tls: TlsSettings) -> ServerTls | None:
    """Return the paths of the certificate, the key and the clients' authorities in ``tls``; None
    where the certificate or the key is not set, so that nothing is encrypted. No file is read."""
    if tls.cert is None or tls.key is None:
        return None
    return ServerTls(tls.cert, tls.key, tls.client_ca)


def client_security(servers: InferenceAddressSettings) -> ClientSecurity:
    """Return how a compositing server encrypts its connections to the inference ``servers``, and
    the token that it sends them: ``PLAIN`` where neither is set. No file is read."""
    tls, token = servers.tls, servers.token
    if not tls.wanted and token is None:
        return PLAIN
    return ClientSecurity(
        ClientTls(tls.ca, tls.cert, tls.key, tls.server_name) if tls.wanted else None,
        "" if token is None else token.get_secret_value(),
    )
