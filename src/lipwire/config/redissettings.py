"""The section ``redis`` of a compositing server's file: the Redis server by which several servers
share limits, tickets, minutes and finished videos."""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal, Self
from urllib.parse import SplitResult, unquote, urlsplit

from pydantic import AfterValidator, Field, SecretStr, model_validator

from lipwire.config.section import Section
from lipwire.config.values import FilePath, is_loopback

_SCHEMES: Final = ("redis", "rediss")
_DATABASE: Final = re.compile(r"/?|/([0-9]{1,5})")
_PORT: Final = 6379


def _split(url: SecretStr) -> SplitResult:
    """Raises ValueError, without the URL, which may have a password."""
    try:
        parts = urlsplit(text := url.get_secret_value())
        port = parts.port
    except ValueError:
        raise ValueError("no URL") from None
    if parts.scheme not in _SCHEMES or not parts.hostname or port == 0:
        raise ValueError("no URL of a Redis server")
    if not _DATABASE.fullmatch(parts.path) or parts.query or parts.fragment:
        raise ValueError("more than the URL of a Redis server has")
    if any(ord(character) <= 0x20 or ord(character) == 0x7F for character in text):
        raise ValueError("characters that no URL has")
    return parts


def _redis_url(url: SecretStr) -> SecretStr:
    _split(url)
    return url


class RedisSettings(Section):
    """The section ``redis`` of a compositing server's file: the Redis server, at ``url``, by which
    several compositing servers share what they know. Without a ``url`` nothing is shared.

    They share how much each tenant has asked for (for its limits), the tickets with which web pages
    open live sessions, the live sessions and their minutes, and where finished videos lie that
    ``renders.cache`` shares. ``keys`` says what they tell each other of API keys: nothing
    ("none"), which were revoked ("revoked"), or all of them ("all").

    ``password`` counts where the URL has none; ``ca``, ``cert`` and ``key`` are files (PEM) for
    TLS. The names of all keys in Redis begin with ``prefix``: servers that have the same one share.
    While Redis does not answer within ``timeout_ms`` each process goes by what it knows itself, and
    tries again after ``retry_seconds``.
    """

    url: (
        Annotated[
            SecretStr,
            AfterValidator(_redis_url),
            Field(max_length=2000, json_schema_extra={"allowed": "redis:// or rediss://HOST:PORT"}),
        ]
        | None
    ) = None
    """The Redis server: `redis://HOST:PORT/DATABASE`, `rediss://` with TLS; a user and a password
    may stand before the host. Needs `lipwire[redis]`."""
    password: Annotated[SecretStr, Field(min_length=1, max_length=1000)] | None = None
    """Its password, where the URL has none. Better set by the variable `LIPWIRE_REDIS__PASSWORD`.
    """
    prefix: Annotated[
        str,
        Field(
            pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,59}$",
            json_schema_extra={"allowed": "1 to 60 letters, digits, `.`, `_` and `-`"},
        ),
    ] = "lipwire"
    """What the names of all keys begin with, before a colon. Servers with the same one share."""
    keys: Literal["none", "revoked", "all"] = "revoked"
    """What servers tell each other of the API keys in their `security.keys_file`: nothing, which
    were revoked, or all, so that a key of one counts at each. With `all`, whoever may write to
    Redis may make keys."""
    timeout_ms: Annotated[int, Field(ge=5, le=10_000)] = 100
    """How long a request waits for Redis at most; then Redis is away."""
    retry_seconds: Annotated[float, Field(ge=0.1, le=600)] = 2
    """After how long it is tried again, beside the requests."""
    ca: FilePath | None = None
    """Certificates, PEM, by which that of a `rediss://` server is checked; without it those of the
    system."""
    cert: FilePath | None = None
    """A certificate to show it, PEM; with `key`."""
    key: FilePath | None = None
    """Its private key, PEM."""

    @property
    def enabled(self) -> bool:
        """Whether anything is shared: a URL is set."""
        return self.url is not None

    @property
    def host(self) -> str:
        """The host of ``url``; empty without one."""
        return "" if self.url is None else str(_split(self.url).hostname)

    @property
    def port(self) -> int:
        """The port of ``url``, 6379 where it names none."""
        return _PORT if self.url is None else _split(self.url).port or _PORT

    @property
    def database(self) -> int:
        """The number of the database that ``url`` names; 0 where it names none."""
        return 0 if self.url is None else int(_split(self.url).path.strip("/") or 0)

    @property
    def encrypted(self) -> bool:
        """Whether the connection is encrypted: ``url`` begins with ``rediss://``."""
        return self.url is not None and _split(self.url).scheme == "rediss"

    @property
    def credentials(self) -> tuple[str | None, str | None]:
        """(user, password): those in ``url``; where the URL has no password, that is ``password``.
        Each is None where it is not given."""
        if self.url is None:
            return None, None
        parts = _split(self.url)
        word = self.password.get_secret_value() if self.password is not None else None
        if parts.password:
            word = unquote(parts.password)
        return (unquote(parts.username) if parts.username else None), word

    def notes(self) -> list[str]:
        """Return warnings, one line each, for the log when the server starts: one where Redis is
        another machine and the connection is not encrypted; else none."""
        if self.url is None or self.encrypted or is_loopback(self.host):
            return []
        return [
            f"redis.url: {self.host} is another machine, and redis:// encrypts nothing; rediss://"
            " does"
        ]

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.cert is None) != (self.key is None):
            raise ValueError("cert and key belong together; give both or neither")
        if (self.ca or self.cert) and self.url is not None and not self.encrypted:
            raise ValueError("ca and cert count with rediss:// alone, and url is redis://")
        if self.url is not None and self.password is not None and _split(self.url).password:
            raise ValueError("url has a password, and password is set; leave one out")
        return self
