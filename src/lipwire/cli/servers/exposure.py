"""Who can ask a server, as a server says it at its start."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lipwire.config.compositing import WebSettings
    from lipwire.config.settings import ServerConfig, ServerSettings


def exposure(
    config: ServerConfig, server: ServerSettings, web: WebSettings | None = None
) -> dict[str, object]:
    """Return facts that say who can ask a server and how to change that, as texts for people by
    their headings.

    ``server`` is the part of ``config`` with the server's address and certificate. ``web`` is the
    part about its web page; None where the server has no page.
    """
    from lipwire.config.values import is_loopback

    closed = config.closed(server)
    facts: dict[str, object] = {
        "Asked by": "whoever has an API key, a token or a certificate" if closed else "anybody",
        "Encrypted": "TLS" if server.tls.enabled else "no",
    }
    if config.security.allow_from:
        facts["Allowed from"] = ", ".join(config.security.allow_from)
    hosts = [server.host] if web is None else [server.host, web.host]
    open_to_others = list(dict.fromkeys(host for host in hosts if not is_loopback(host)))
    if not open_to_others:
        facts["Reached from"] = "this machine alone; server.host, server.tls and security open it"
    elif server.insecure and not (server.tls.enabled and closed):
        facts["INSECURE"] = (
            f"other machines can ask at {' and '.join(open_to_others)};"
            " server.insecure says that this is wanted"
        )
    return facts
