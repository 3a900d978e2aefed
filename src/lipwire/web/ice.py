"""STUN and TURN servers, and what each viewer is told of them."""

import base64
import hashlib
import hmac
import secrets
from dataclasses import dataclass, replace
from typing import Final

LIFETIME_S: Final = 86_400
"""So long a viewer may use a credential that was made for it."""


@dataclass(frozen=True, slots=True)
class IceServers:
    """STUN and TURN servers, through which viewers connect that cannot reach this machine directly.
    ``urls`` are such as ``stun:example.org:3478`` or ``turn:example.org:3478?transport=tcp``. For
    TURN, all viewers are told ``username`` and ``credential``, or, with a ``secret`` that the TURN
    server shares, each one its own (see ``issued``). With ``relay_only`` all media goes over the
    TURN server."""

    urls: tuple[str, ...] = ()
    """As ``stun:example.org:3478``, ``turn:example.org:3478?transport=tcp``."""
    username: str | None = None
    """For TURN."""
    credential: str | None = None
    relay_only: bool = False
    """Whether all media goes over the TURN server."""
    secret: str | None = None
    """Of the TURN server, from which credentials are made that end; None where there is one
    ``credential`` for all."""

    def issued(self, now: float) -> "IceServers":
        """Return the servers as one viewer is told of them at time ``now``, in seconds since 1970:
        without a ``secret``, this object; with one, a copy that has a username and a credential of
        the viewer's own, which a TURN server accepts for a day.

        The username is the time at which the day ends, in seconds since 1970, a colon, and a name;
        the credential is the HMAC-SHA1 of the username with the secret, in Base64. coturn calls
        this ``use-auth-secret``, after the draft "A REST API For Access To TURN Services"
        (draft-uberti-behave-turn-rest).
        """
        if self.secret is None:
            return self
        name = f"{int(now) + LIFETIME_S}:{self.username or secrets.token_urlsafe(6)}"
        made = hmac.new(self.secret.encode(), name.encode(), hashlib.sha1).digest()
        credential = base64.b64encode(made).decode()
        return replace(self, username=name, credential=credential, secret=None)

    def links(self) -> list[str]:
        """Return the servers as values of the HTTP header ``Link``, one for each URL, which name
        them to a viewer (RFC 9725, section 4.6). Those of TURN servers contain ``username`` and
        ``credential`` of this object; where it has a ``secret``, call this method on the result of
        ``issued``."""
        links = []
        for url in self.urls:
            link = f'<{url}>; rel="ice-server"'
            if url.startswith("turn") and self.username is not None:
                link += f"; username={_quoted(self.username)}"
                link += f"; credential={_quoted(self.credential or '')}"
                link += '; credential-type="password"'
            links.append(link)
        return links


def _quoted(text: str) -> str:
    """``text`` as a quoted string of a header (RFC 9110, section 5.6.4)."""
    escaped = text.replace("\\", r"\\").replace('"', r"\"")
    return f'"{escaped}"'
