"""The section ``security``, which both servers' configurations have."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from lipwire.config.section import Section
from lipwire.config.values import FilePath, HttpUrl, Texts


class JwtSettings(Section):
    """The section ``security.jwt``: which JSON Web Tokens are accepted: those of ``issuer`` for
    ``audience``, signed in one of ``algorithms``, with a key in ``key_file`` (PEM) or at
    ``jwks_url``; none without an issuer. Clocks may differ by ``leeway_seconds``. Claims say what
    is allowed: ``scope`` has operations with blanks between them, ``avatars`` a list of patterns of
    names, and the one that ``tenant_claim`` names the tenant. Where ``tenant_claim`` is set, a
    token without that claim is not accepted; where it is None the claim is ``tenant``, and a token
    without it may ask for every tenant."""

    issuer: Annotated[str, Field(min_length=1, max_length=2000)] | None = None
    """Who has to have made the token, its claim `iss`."""
    audience: Annotated[str, Field(min_length=1, max_length=2000)] | None = None
    """Whom it has to be for, its claim `aud`."""
    algorithms: Texts = ("RS256", "ES256", "EdDSA")
    """Ways of signing that count: `RS256`, `ES256`, `EdDSA`, or `HS256` alone."""
    key_file: FilePath | None = None
    """The public key of who signs, PEM; for `HS256` the secret, 32 bytes or more."""
    jwks_url: HttpUrl | None = None
    """Where the public keys are to be had in place of `key_file`."""
    leeway_seconds: Annotated[float, Field(ge=0, le=600)] = 30
    """By so much clocks may differ."""
    tenant_claim: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    """The claim that names the tenant, which every token has to have then. Without this setting it
    is `tenant`, and a token without it may ask for every tenant."""

    @property
    def enabled(self) -> bool:
        """Whether JSON Web Tokens are accepted: an issuer is set."""
        return self.issuer is not None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        sources = (self.key_file is not None) + (self.jwks_url is not None)
        if not sources and self.issuer is None and self.audience is None:
            return self
        if self.issuer is None or self.audience is None or sources != 1:
            raise ValueError("issuer, audience, and one of key_file and jwks_url are needed")
        return self


class LimitSettings(Section):
    """The section ``security.limits``: how much each tenant may ask for; None is no limit. Callers
    without a tenant are counted one by one.

    Of each process of the server: ``requests_per_minute`` calls, ``frames_per_second`` frames of
    batches (over ten seconds), ``upload_mb_per_minute`` MiB of what calls bring, and
    ``live_sessions`` at a time; where ``redis.url`` is set, of all that share it. Of all of a
    machine, or that share Redis: ``live_minutes_per_month``, counted in ``minutes_file``.
    """

    requests_per_minute: Annotated[int, Field(ge=1, le=1_000_000_000)] | None = None
    """Calls of any kind; without it they are not limited."""
    frames_per_second: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Frames of batches, over ten seconds; without it they are not limited."""
    upload_mb_per_minute: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """What calls bring, in MiB: messages, bodies, audio; without it that is not limited. What is
    larger by itself is never taken."""
    live_sessions: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """Live sessions at a time, of each process, or of all that share `redis.url`; without it
    `live.max_sessions` alone counts."""
    live_minutes_per_month: Annotated[int, Field(ge=1, le=1_000_000_000)] | None = None
    """Minutes that live sessions last, in a calendar month (UTC), in all processes together, of one
    machine or of all that share `redis.url`. A session that runs ends when they are used up."""
    minutes_file: FilePath | None = None
    """Where the minutes of this month are kept, a file for all processes of one machine; needed for
    `live_minutes_per_month`, unless `redis.url` is set."""


class SecuritySettings(Section):
    """The section ``security``: who may ask the server, for what, and what is recorded of it.
    Without ``keys_file`` (API keys), ``jwt`` (tokens) and ``server.tls.client_names`` callers are
    not told apart, and each may do everything.

    ``allow_from`` are addresses and networks that requests may come from (none: all), ``limits``
    what each tenant may ask for. Calls are recorded in ``audit_file``, live sessions that have
    ended in ``usage_file``; with ``audit_required`` calls are refused while they cannot be.
    """

    keys_file: FilePath | None = None
    """API keys, a file that `lipwire keys create` makes."""
    jwt: JwtSettings = JwtSettings()
    """JSON Web Tokens that count."""
    allow_from: Texts = ()
    """Addresses and networks that requests may come from, as `10.0.0.0/8`; without any, all."""
    limits: LimitSettings = LimitSettings()
    """What each tenant may ask for; more is refused with RESOURCE_EXHAUSTED, and when to come
    back."""
    audit_file: FilePath | None = None
    """Records every call, a JSON line each: who asked for what, when, from where, and what came of
    it. Never speech, frames, keys or tokens. A file that is moved away is made anew."""
    usage_file: FilePath | None = None
    """Records every live session when it has ended, a JSON line each: whose it was, with which
    avatar, how long it lasted and spoke, its frames, and why it has ended."""
    audit_required: bool = False
    """Refuse calls while they cannot be recorded; without it they are answered, and counted."""
