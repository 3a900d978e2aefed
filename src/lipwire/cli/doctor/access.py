"""Who can ask a server by its configuration, whether it is encrypted, limited and recorded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from lipwire.cli.doctor.checks import Check, not_applicable, ok, warning

if TYPE_CHECKING:
    from lipwire.config import ServerConfig


def access(config: ServerConfig) -> Iterator[Check]:
    """Yield checks of how ``config`` protects a server: whether connections are encrypted, callers
    have to show who they are, tenants have limits, addresses are restricted, and calls are
    recorded. What is not set is a WARNING, or NOT_APPLICABLE for addresses. For a server that only
    this machine reaches there is a single check, NOT_APPLICABLE."""
    from lipwire.config import CompositingConfig, InferenceConfig
    from lipwire.config.values import is_loopback

    if not isinstance(config, CompositingConfig | InferenceConfig):
        return
    hosts = {config.server.host}
    if config.metrics.enabled:
        hosts.add(config.metrics.host)
    if isinstance(config, CompositingConfig) and config.web.enabled is not False:
        hosts.add(config.web.host)
    reached = sorted(host for host in hosts if not is_loopback(host))
    if not reached:
        yield not_applicable("who can ask", "this machine alone (server.host)")
        return
    where = ", ".join(reached)
    if config.server.tls.enabled:
        yield ok("encryption", "TLS (server.tls)", "TLS")
    else:
        yield warning(
            "encryption", f"none, on {where}", "TLS", "set server.tls.cert and server.tls.key"
        )
    if config.closed(config.server):
        yield ok("who can ask", "whoever shows a key, a token or a certificate", "not anybody")
    else:
        yield warning(
            "who can ask", f"anybody who reaches {where}", "not anybody",
            "set security.keys_file or security.jwt",
        )  # fmt: skip
    limits = config.security.limits
    set_limits = [name for name in type(limits).model_fields if getattr(limits, name) is not None]
    if set_limits:
        yield ok("limits for each tenant", ", ".join(set_limits), "at least one")
    else:
        yield warning(
            "limits for each tenant", "none", "at least one",
            "set security.limits.requests_per_minute, or frames_per_second",
        )  # fmt: skip
    if config.security.allow_from:
        yield ok("addresses", ", ".join(config.security.allow_from))
    else:
        yield not_applicable(
            "addresses", "security.allow_from is not set: a firewall decides",
            "allow the ports for clients alone",
        )  # fmt: skip
    if config.security.audit_file is not None:
        yield ok("record of calls", str(config.security.audit_file), "security.audit_file")
    else:
        yield warning("record of calls", "none", "a file", "set security.audit_file")
