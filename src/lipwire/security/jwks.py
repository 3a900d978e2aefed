"""The keys of a JWKS URL (RFC 7517), by which tokens are checked."""

import json
import math
import threading
import time
from collections.abc import Callable
from http.client import HTTPException
from typing import Any, Final

import jwt

from lipwire.domain import Unauthenticated, Unavailable
from lipwire.security.outgoing import Times, fetched

MAX_JWKS_BYTES: Final = 256 * 1024
_TIMES: Final = Times(each_s=5.0, all_s=5.0)
_FRESH_S: Final = 300.0
_AFTER_FAILURE_S: Final = 5.0
"""Else everybody who brings a token would wait for a server that does not answer."""


class JwksKeys:
    """The keys that JSON Web Tokens are signed with, from a JWKS URL (RFC 7517). They are fetched
    when they are needed, but a key that is not known does not have them fetched again within
    ``pause_s`` seconds. Thread-safe."""

    def __init__(
        self, url: str, pause_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """``url`` is that of the keys. They are fetched again after five minutes, and also where a
        key is not known, if ``pause_s`` seconds have passed since the last time. ``clock`` gives
        seconds."""
        self._url = url
        self._pause_s = pause_s
        self._clock = clock
        self._lock = threading.Lock()
        self._found: tuple[dict[str, jwt.PyJWK], float] | None = None
        """The keys, and when they were asked for; replaced as one, so that it is read without the
        lock."""
        self._failed_s: float | None = None
        """When it last turned out that they cannot be fetched."""

    def key(self, name: object) -> jwt.PyJWK:
        """Return the key whose ``kid`` is ``name`` (from a token's header, of any type), fetching
        the keys first where they are older than five minutes, or where there is no such key and
        they were not fetched within the last ``pause_s`` seconds. Waits for the answer then. Raises
        Unauthenticated where there is no such key, Unavailable where the keys cannot be fetched
        now."""
        found, age_s = self._known(name)
        if found is not None and age_s < _FRESH_S:
            return found  # also while another thread asks for the keys
        # One thread asks for the keys; the others find them.
        with self._lock:
            found, age_s = self._known(name)
            if age_s >= (_FRESH_S if found is not None else self._pause_s):
                self._fetch()
                found, _ = self._known(name)
        if found is None:
            raise Unauthenticated("the token does not count: it is signed with an unknown key")
        return found

    def _known(self, name: object) -> tuple[jwt.PyJWK | None, float]:
        """The key of that name, and how long ago the keys were asked for; infinity for never."""
        if self._found is None:
            return None, math.inf
        keys, asked_s = self._found
        return (keys.get(name) if isinstance(name, str) else None), self._clock() - asked_s

    def _fetch(self) -> None:
        """The lock is held."""
        unavailable = Unavailable("the keys of security.jwt.jwks_url cannot be had now")
        asked_s = self._clock()
        if self._failed_s is not None and asked_s - self._failed_s < _AFTER_FAILURE_S:
            raise unavailable
        try:
            data = fetched(self._url, given_by="operator", times=_TIMES, max_bytes=MAX_JWKS_BYTES)
            keys = _keys_of(json.loads(data))
        except (OSError, HTTPException, ValueError, RecursionError):
            self._failed_s = self._clock()  # the attempt itself may have taken that long
            raise unavailable from None
        self._found, self._failed_s = (keys, asked_s), None


def _keys_of(document: Any) -> dict[str, jwt.PyJWK]:
    """Those that sign. Raises ValueError where there is none."""
    listed = document.get("keys") if isinstance(document, dict) else None
    keys: dict[str, jwt.PyJWK] = {}
    for each in listed if isinstance(listed, list) else []:
        if not isinstance(each, dict) or each.get("use", "sig") != "sig":
            continue
        name = each.get("kid")
        if not isinstance(name, str) or not name:
            continue
        try:
            keys.setdefault(name, jwt.PyJWK(each))
        except Exception:  # one that cannot be used leaves the others
            continue
    if not keys:
        raise ValueError("no keys that sign")
    return keys
