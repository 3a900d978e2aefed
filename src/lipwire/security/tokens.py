"""JSON Web Tokens (RFC 7519): who signed them, for whom, how long they count, and what they allow.

The claims that say what is allowed are ``scope`` (RFC 8693: operations with blanks between them),
``avatars`` (a list of patterns) and ``tenant``, whose name is a setting.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import jwt

from lipwire.domain import (
    OPERATIONS,
    Access,
    InvalidInput,
    Operation,
    Unauthenticated,
    Unavailable,
)
from lipwire.security.jwks import JwksKeys

ALGORITHMS: Final = ("RS256", "ES256", "EdDSA", "HS256")
_MAX_TOKEN_CHARACTERS: Final = 8192
_MAX_KNOWN: Final = 4096
"""Tokens whose signature was checked, which is not done again before they expire."""
_CHECK_AGAIN_S: Final = 300.0
"""So long after its check a token counts although the key at a JWKS URL may be gone."""
_MAX_PATTERNS: Final = 1000
_MAX_TENANT: Final = 200
_SECRET_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class TokenRules:
    """Which JSON Web Tokens are accepted: signed with one of ``algorithms`` (such as RS256), from
    ``issuer`` and for ``audience``, neither expired nor early by more than ``leeway_s``. The claim
    ``tenant_claim`` names the tenant; with ``tenant_required`` a token without it is not accepted,
    else it may ask for every tenant."""

    algorithms: tuple[str, ...]
    """Of ALGORITHMS. Which one a token names does not count by itself: it has to be one of these,
    and the key has to be of its kind."""
    issuer: str
    audience: str
    leeway_s: float = 30.0
    """By so much clocks may differ."""
    tenant_claim: str = "tenant"
    tenant_required: bool = False


@dataclass(frozen=True, slots=True)
class _Known:
    """A token that was checked at ``checked_s`` and expires at ``until_s``."""

    checked_s: float
    until_s: float
    access: Access


class Tokens:
    """Checks JSON Web Tokens against one key, or against the keys of a JWKS URL. Thread-safe."""

    def __init__(
        self,
        rules: TokenRules,
        *,
        key_file: Path | None = None,
        jwks_url: str | None = None,
        jwks_pause_s: float = 30.0,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``rules`` say which tokens are accepted (``TokenRules``). ``key_file`` holds a public key
        (PEM), or for HS256 a secret of 32 bytes or more. ``jwks_url`` is a URL from which the keys
        are fetched instead: again after five minutes, and also where a token names a key that is
        not known, if ``jwks_pause_s`` seconds have passed since the last time. ``now`` gives
        seconds since 1970, ``clock`` seconds that only rise. Raises InvalidInput where neither
        ``key_file`` nor ``jwks_url`` is given or both are, where the key is missing or does not fit
        the algorithms, and for algorithms that are not allowed, such as HS256 with ``jwks_url``."""
        if (key_file is None) == (jwks_url is None):
            raise InvalidInput("security.jwt needs key_file or jwks_url, one of the two")
        unknown = [name for name in rules.algorithms if name not in ALGORITHMS]
        if unknown or not rules.algorithms:
            raise InvalidInput(
                f"security.jwt.algorithms has {', '.join(unknown) or 'none'}; allowed are"
                f" {', '.join(ALGORITHMS)}"
            )
        if "HS256" in rules.algorithms and (len(rules.algorithms) > 1 or jwks_url is not None):
            # A public key is no secret: whoever has it could sign with it.
            raise InvalidInput(
                "security.jwt.algorithms has HS256 beside another, or with jwks_url; HS256 stands"
                " alone, with key_file"
            )
        self._rules = rules
        self._now = now
        self._key: Any = None if key_file is None else _key_of(key_file, rules.algorithms)
        self._jwks = None if jwks_url is None else JwksKeys(jwks_url, jwks_pause_s, clock)
        self._lock = threading.Lock()
        self._known: OrderedDict[str, _Known] = OrderedDict()

    def access(self, token: str) -> Access:
        """Return what ``token``, a signed JSON Web Token in its compact form, allows: the
        operations that its claim ``scope`` names, separated by blanks, with the avatars that match
        a pattern of its claim ``avatars``, a list, for the tenant in the claim that
        ``TokenRules.tenant_claim`` names. Without ``scope`` or ``avatars`` nothing is allowed;
        without a tenant every tenant is, unless ``TokenRules.tenant_required``. With a JWKS URL it
        may have to fetch the keys, and waits for them: a token whose key is no longer there counts
        for up to ten minutes. Raises Unauthenticated where the token is malformed, not signed with
        a known key, for another issuer or audience, expired or not valid yet, or has no tenant
        though one is required, and Unavailable where the keys of the JWKS URL cannot be fetched."""
        if len(token) > _MAX_TOKEN_CHARACTERS:
            raise Unauthenticated(
                f"the token has {len(token)} characters; allowed are {_MAX_TOKEN_CHARACTERS}"
            )
        now = self._now()
        with self._lock:
            known = self._known.get(token)
        if known is not None and now < known.until_s:
            if self._jwks is None or now < known.checked_s + _CHECK_AGAIN_S:
                return known.access
        else:
            known = None
        try:
            claims = self._claims(token)
        except Unavailable:  # it has counted before, and nobody can say that it does not any more
            if known is None:
                raise
            return known.access
        except Unauthenticated:
            with self._lock:
                self._known.pop(token, None)
            raise
        access = self._access_of(claims)
        with self._lock:
            until_s = float(claims["exp"]) + self._rules.leeway_s
            self._known[token] = _Known(now, until_s, access)
            self._known.move_to_end(token)
            while len(self._known) > _MAX_KNOWN:
                self._known.popitem(last=False)
        return access

    def _claims(self, token: str) -> Mapping[str, Any]:
        rules = self._rules
        key: Any = self._key if self._jwks is None else self._key_for(token)
        try:
            claims: Mapping[str, Any] = jwt.decode(
                token,
                key,
                algorithms=list(rules.algorithms),
                issuer=rules.issuer,
                audience=rules.audience,
                leeway=rules.leeway_s,
                options={
                    "require": ["exp", "iss", "aud"],
                    # The times are looked at below, by the clock of this object.
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                },
            )
        except jwt.InvalidIssuerError:
            raise Unauthenticated("the token is of another issuer") from None
        except jwt.InvalidAudienceError:
            raise Unauthenticated("the token is for another audience") from None
        except (jwt.InvalidTokenError, RecursionError, ValueError, TypeError) as error:
            raise Unauthenticated(f"the token does not count: {error!s:.100}") from None
        now = self._now()
        expires, begins = _number(claims, "exp"), _number(claims, "nbf")
        if expires is None or now >= expires + rules.leeway_s:
            raise Unauthenticated("the token has expired")
        if begins is not None and now < begins - rules.leeway_s:
            raise Unauthenticated("the token does not count yet")
        return claims

    def _key_for(self, token: str) -> jwt.PyJWK:
        assert self._jwks is not None
        try:
            name = jwt.get_unverified_header(token).get("kid")
        except (jwt.InvalidTokenError, RecursionError, ValueError, TypeError) as error:
            raise Unauthenticated(f"the token does not count: {error!s:.100}") from None
        return self._jwks.key(name)

    def _access_of(self, claims: Mapping[str, Any]) -> Access:
        scope = claims.get("scope", "")
        claim = self._rules.tenant_claim
        if self._rules.tenant_required and not claims.get(claim):
            raise Unauthenticated(f"the token has no {claim}, which has to name the tenant")
        tenant = claims.get(claim, "")
        avatars = claims.get("avatars", [])
        if not isinstance(scope, str):
            raise Unauthenticated("the token's scope is no text")
        if not isinstance(tenant, str) or len(tenant) > _MAX_TENANT:
            raise Unauthenticated(f"the token's {self._rules.tenant_claim} is no short text")
        if not isinstance(avatars, list) or len(avatars) > _MAX_PATTERNS:
            raise Unauthenticated("the token's avatars are no list of patterns")
        if not all(isinstance(one, str) and one for one in avatars):
            raise Unauthenticated("the token's avatars are no list of patterns")
        words = set(scope.split())
        operations: Sequence[Operation] = [one for one in OPERATIONS if one in words]
        subject = claims.get("sub", "")
        return Access(f"token of {subject!s:.100}", tenant, frozenset(operations), tuple(avatars))


def _number(claims: Mapping[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Unauthenticated(f"the token's {name} is no time")
    return float(value)


def _key_of(path: Path, algorithms: tuple[str, ...]) -> Any:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InvalidInput(f"security.jwt.key_file is {path}: {error.strerror}") from None
    if algorithms == ("HS256",):
        secret = data.strip()
        if len(secret) < _SECRET_BYTES:
            raise InvalidInput(
                f"security.jwt.key_file has {len(secret)} bytes; for HS256 allowed are"
                f" {_SECRET_BYTES} and more"
            )
        return secret
    for name in algorithms:
        try:
            return jwt.get_algorithm_by_name(name).prepare_key(data)
        except (jwt.InvalidKeyError, ValueError, TypeError):
            continue
    raise InvalidInput(
        f"security.jwt.key_file is {path}, which holds no key for {', '.join(algorithms)} (a public"
        " key, PEM)"
    )
