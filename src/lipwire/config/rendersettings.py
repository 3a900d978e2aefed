"""The section ``renders`` of a compositing server's file: finished videos."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Final, Self

from pydantic import Field, SecretStr, field_validator, model_validator

from lipwire.config.section import Section
from lipwire.config.storesettings import StoreUrl
from lipwire.config.values import FilePath, HttpUrl

_MIB: Final = 1 << 20
_BASE64: Final = "whsec_"

Secret = Annotated[SecretStr, Field(min_length=16, max_length=1000)]


class RenderWebhookSettings(Section):
    """The section ``renders.webhooks``: to which URLs a POST is sent when a render has ended.
    ``url`` is sent one for every render. With ``from_requests`` the request for a render may name
    another URL, which is sent one for that render alone. ``secret`` is the key with which they are
    signed (Standard Webhooks), a receiver may take ``timeout_seconds`` to answer, and each is tried
    ``max_tries`` times at most."""

    url: HttpUrl | None = None
    """Is sent a POST for each render that has ended."""
    from_requests: bool = False
    """Whether a request for a render may name a URL (`webhook`) that is told of its end; such a
    URL may lead to public addresses alone."""
    secret: Secret | None = None
    """Signs what is sent, as Standard Webhooks has it: any text, or `whsec_` and Base64. Better set
    by the variable `LIPWIRE_RENDERS__WEBHOOKS__SECRET`."""
    timeout_seconds: Annotated[float, Field(ge=0.1, le=120)] = 10
    """How long a receiver may take to answer."""
    max_tries: Annotated[int, Field(ge=1, le=100)] = 20
    """How often it is tried, with pauses that grow from 5 s to an hour; 20 take some ten hours."""

    @property
    def enabled(self) -> bool:
        """Whether anybody may be told of renders: ``url`` is set, or ``from_requests``."""
        return self.url is not None or self.from_requests

    @field_validator("secret")
    @classmethod
    def _is_a_secret(cls, value: SecretStr | None) -> SecretStr | None:
        text = "" if value is None else value.get_secret_value()
        if text.startswith(_BASE64):
            try:
                base64.b64decode(text.removeprefix(_BASE64), validate=True)
            except binascii.Error:
                raise ValueError("what follows whsec_ is no Base64") from None
        return value

    @model_validator(mode="after")
    def _is_signed(self) -> Self:
        if self.enabled and self.secret is None:
            raise ValueError("secret is missing, with which webhooks are signed; set it")
        return self


class RenderCacheSettings(Section):
    """The section ``renders.cache``: where servers that have one Redis share finished videos.
    ``url`` is the store that these lie in (None: nothing is shared), ``endpoint_url`` the address
    of a server with S3's protocol; the store has ``timeout_seconds`` for an answer."""

    url: StoreUrl | None = None
    """A store in which servers that share `redis.url` keep finished videos, a bucket or a folder
    that all of them see; a video that a tenant orders again is taken from there, and not made
    again. Without it each is made."""
    endpoint_url: HttpUrl | None = None
    """A server with S3's protocol that is not Amazon's, as `https://minio.example.org:9000`.
    Credentials come from AWS's own variables and files (`AWS_ACCESS_KEY_ID`, `~/.aws`)."""
    timeout_seconds: Annotated[float, Field(ge=0.1, le=3600)] = 20
    """How long the store may take for an answer, of a video for each 4 MiB."""


class RendersSettings(Section):
    """The section ``renders`` of a compositing server's file: renders, videos that clients order
    and that the server makes and keeps in ``folder``. Without a ``folder`` none are made.

    At most ``max_queued`` renders wait at a time, and ``max_queued_of_tenant`` of one tenant (None:
    as many); each process makes ``workers`` at a time, of ``max_duration`` seconds at most. A
    render that has ended is kept for ``retention_hours``, and all files take ``disk_budget_mb`` MiB
    at most. With ``url_secret`` the server gives signed links, with which a video can be fetched
    without a key for ``url_lifetime`` seconds; those signed with ``previous_url_secret`` count,
    too. Links begin with ``public_url`` (None: they are paths of this server). ``webhooks`` says
    who is told of the end, and ``cache`` where videos are shared with other servers.
    """

    folder: FilePath | None = None
    """Where orders and videos are kept, a folder on a disk of this machine, which all processes of
    the server share; without it no videos are made."""
    max_queued: Annotated[int, Field(ge=1, le=10_000)] = 100
    """Renders that wait at a time; more are refused, with when to come back."""
    max_queued_of_tenant: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """The same of one tenant; without it as many as of all."""
    workers: Annotated[int, Field(ge=1, le=64)] = 1
    """Renders that each process makes at a time. Live sessions go before all of them."""
    max_duration: Annotated[float, Field(ge=1, le=14_400)] = 1800
    """How long a video is at most, in seconds."""
    retention_hours: Annotated[float, Field(ge=0.01, le=87_600)] = 168
    """How long a render is kept when it has ended; then it is removed, with its video."""
    disk_budget_mb: Annotated[int, Field(ge=1, le=1 << 30)] = 10_240
    """The most that videos and recordings take of the disk, in MiB; what does not fit is refused,
    and nothing is removed for it."""
    url_secret: Secret | None = None
    """Signs links with which a video can be fetched without a key; without it there are none.
    Better set by the variable `LIPWIRE_RENDERS__URL_SECRET`."""
    previous_url_secret: Secret | None = None
    """The secret before that one, whose links still count."""
    url_lifetime: Annotated[float, Field(ge=1, le=31_536_000)] = 3600
    """How long a signed link counts, in seconds."""
    public_url: HttpUrl | None = None
    """What links to videos begin with, as that of a CDN; without it they are paths of this
    server."""
    webhooks: RenderWebhookSettings = RenderWebhookSettings()
    """Who is told of renders that have ended."""
    cache: RenderCacheSettings = RenderCacheSettings()
    """Where servers share finished videos."""

    @property
    def enabled(self) -> bool:
        """Whether videos are made: a folder is named."""
        return self.folder is not None

    @property
    def disk_budget_bytes(self) -> int:
        """The most bytes that videos and recordings may take of the disk (``disk_budget_mb``)."""
        return self.disk_budget_mb * _MIB

    @model_validator(mode="after")
    def _has_a_folder(self) -> Self:
        if self.folder is None and self.webhooks.enabled:
            raise ValueError("webhooks are set and folder is missing; name the folder")
        if self.folder is None and self.cache.url is not None:
            raise ValueError("cache is set and folder is missing; name the folder")
        if self.previous_url_secret is not None and self.url_secret is None:
            raise ValueError("previous_url_secret is set and url_secret is missing; set it")
        return self
