"""Who may ask a server, and what its connections are encrypted with, from its configuration."""

from typing import Any

from lipwire.config.compositing import InferenceAddressSettings
from lipwire.config.settings import (
    LimitSettings,
    SecuritySettings,
    ServerSettings,
    TlsSettings,
)
from lipwire.domain import Tell
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


def open_access_control(security: SecuritySettings, server: ServerSettings) -> AccessControl:
    """Return what decides who may ask ``server`` and for what, by the keys, tokens and addresses of
    ``security`` and the server's certificate names; a context manager, which the caller closes.
    Raises InvalidInput where a key, an address or a file of the settings is not usable."""
    keys = None
    if security.keys_file is not None:
        keys = KeyFile(security.keys_file)
        keys.listed()  # a damaged file is told now, not at the first request
    tokens = None
    rules = security.jwt
    if rules.issuer is not None and rules.audience is not None:
        tokens = Tokens(
            TokenRules(
                rules.algorithms,
                rules.issuer,
                rules.audience,
                rules.leeway_seconds,
                rules.tenant_claim,
            ),
            key_file=rules.key_file,
            jwks_url=rules.jwks_url,
        )
    return AccessControl(
        keys=keys,
        tokens=tokens,
        certificates=server.tls.client_names,
        allow_from=AllowedAddresses(security.allow_from),
        limits=_limits(security.limits),
        audit=(
            None
            if security.audit_file is None
            else AuditLog(security.audit_file, required=security.audit_required)
        ),
    )


def _limits(limits: LimitSettings) -> TenantLimits | None:
    if limits.requests_per_minute is None and limits.frames_per_second is None:
        return None
    return TenantLimits(LimitRules(limits.requests_per_minute, limits.frames_per_second))


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
    """Return the paths of the server's certificate files in ``tls``; None where it has no
    certificate."""
    if tls.cert is None or tls.key is None:
        return None
    return ServerTls(tls.cert, tls.key, tls.client_ca)


def client_security(servers: InferenceAddressSettings) -> ClientSecurity:
    """Return how a compositing server encrypts its connections to the inference ``servers``, and
    the token that it sends them."""
    tls, token = servers.tls, servers.token
    if not tls.wanted and token is None:
        return PLAIN
    return ClientSecurity(
        ClientTls(tls.ca, tls.cert, tls.key, tls.server_name) if tls.wanted else None,
        "" if token is None else token.get_secret_value(),
    )


def tell_exposure(
    control: AccessControl, security: SecuritySettings, server: ServerSettings, tell: Tell
) -> None:
    """Call ``tell`` with a heading and facts that say who can ask ``server``, and how to change
    that."""
    who = "whoever has an API key, a token or a certificate" if control.closed else "anybody"
    facts: dict[str, object] = {
        "Asked by": who,
        "Encrypted": "TLS" if server.tls.enabled else "no",
    }
    if security.allow_from:
        facts["Allowed from"] = ", ".join(security.allow_from)
    if server.reaches_others:
        if server.insecure and not (server.tls.enabled and control.closed):
            facts["INSECURE"] = (
                f"other machines can ask at {server.host}; server.insecure says that this is wanted"
            )
    else:
        facts["Reached from"] = "this machine alone; server.host, server.tls and security open it"
    tell("Security", facts)
