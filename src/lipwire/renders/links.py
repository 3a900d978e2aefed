"""Signed links: whoever has one may fetch one render for a while, without a key or a token, so that
it can be passed on, by a CDN for example.

A link's query has three parts: ``expires``, the second since 1970 at which it ends; ``key``, which
secret it is signed with; and ``signature``, an HMAC-SHA256 over the method, the path, the end and
the key, each on a line of its own, as URL-safe Base64 without padding.
"""

import base64
import hashlib
import hmac
import time
from collections.abc import Callable, Mapping
from typing import Final

from lipwire.domain import PermissionDenied

EXPIRES: Final = "expires"
KEY: Final = "key"
SIGNATURE: Final = "signature"
_MOST_DIGITS: Final = 12


class SignedLinks:
    """Signs links to files of renders with a secret, and checks such links. Thread-safe."""

    def __init__(
        self,
        secret: str,
        previous: str | None = None,
        *,
        lasts_s: float,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Links are signed with ``secret`` and last ``lasts_s`` seconds; those that were signed
        with ``previous`` count, too (None: no others). ``now()`` gives seconds since 1970."""
        secrets = [secret] if previous is None else [secret, previous]
        self._secrets: Final = {key_id(one): one.encode() for one in secrets}
        self._current: Final = key_id(secret)
        self._lasts_s: Final = lasts_s
        self._now = now

    def query(self, path: str) -> tuple[str, float]:
        """Return (query, expires_s). ``query`` is the query, without the question mark, that makes
        ``path``, the path part of a URL, a signed link, which may be used with GET and HEAD;
        ``expires_s`` is when the link expires, in seconds since 1970."""
        expires_s = int(self._now() + self._lasts_s)
        signed = self._signature(self._current, "GET", path, str(expires_s))
        return f"{EXPIRES}={expires_s}&{KEY}={self._current}&{SIGNATURE}={signed}", expires_s

    def check(self, method: str, path: str, query: Mapping[str, str]) -> float:
        """Check a signed link and return for how many seconds more it is valid. ``method`` is the
        method of the request that came with it, ``path`` the path that has to be signed, and
        ``query`` the parts of the link's query by name. Raises PermissionDenied where the method is
        not GET or HEAD, where the link is not signed for ``path``, and where it has expired."""
        key, expires = query.get(KEY, ""), query.get(EXPIRES, "")
        if method not in ("GET", "HEAD"):
            raise PermissionDenied("a signed link is for GET and HEAD; nothing else can be done")
        if key not in self._secrets:
            raise PermissionDenied(
                "the link is signed with a secret that does not count (any more)"
            )
        if not (expires.isascii() and expires.isdecimal() and len(expires) <= _MOST_DIGITS):
            raise PermissionDenied("the link does not say when it expires")
        wanted = self._signature(key, "GET", path, expires)
        given = query.get(SIGNATURE, "").encode("utf-8", "replace")
        if not hmac.compare_digest(given, wanted.encode()):
            raise PermissionDenied("the link is not signed for this")
        left_s = int(expires) - self._now()
        if left_s <= 0:
            raise PermissionDenied("the link has expired; ask for the render to have a new one")
        return left_s

    def _signature(self, key: str, method: str, path: str, expires: str) -> str:
        text = "\n".join((method, path, expires, key)).encode("utf-8", "surrogateescape")
        digest = hmac.digest(self._secrets[key], text, hashlib.sha256)
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def key_id(secret: str) -> str:
    """Return 8 hexadecimal digits with which links name ``secret``, the secret that they are signed
    with; the digits do not reveal it."""
    return hmac.new(secret.encode(), b"lipwire signed links", hashlib.sha256).hexdigest()[:8]
