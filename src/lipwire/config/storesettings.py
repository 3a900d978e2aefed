"""The section ``store``, and what tells the URL of a store from a folder."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, WithJsonSchema

from lipwire.config.section import Section
from lipwire.config.values import FilePath, HttpUrl, Origin, resolve

_URL: Final = re.compile(r"([a-z][a-z0-9+.-]{1,20})://[^\s\x00-\x1f\x7f]*")
_NO_STORES: Final = frozenset({"http", "https", "data", "git", "github", "ftp"})
"""Schemes that fsspec knows and that nothing can be published to."""
GIB: Final = 1024**3


def is_store_url(text: str) -> bool:
    """Return whether ``text`` is the URL of a store, such as ``s3://bucket/avatars``."""
    found = _URL.fullmatch(text)
    return found is not None and found[1] not in _NO_STORES and len(text) <= 2000


def _folder_or_url(value: object, info: ValidationInfo) -> object:
    if not isinstance(value, str) or is_store_url(value):
        return value
    if _URL.fullmatch(value):
        raise ValueError("no store")
    return resolve(value, Origin.of(info).folder)


ModelsRoot = Annotated[
    Path | str,
    BeforeValidator(_folder_or_url),
    WithJsonSchema(
        {
            "type": "string",
            "allowed": "a path, or the URL of a store as s3://BUCKET/FOLDER or file:///FOLDER",
        }
    ),
]


def _store_url(text: str) -> str:
    if not is_store_url(text):
        raise ValueError("no store")
    return text


StoreUrl = Annotated[
    str,
    AfterValidator(_store_url),
    Field(json_schema_extra={"allowed": "a URL as s3://BUCKET/FOLDER or file:///FOLDER"}),
]


class StoreSettings(Section):
    """The section ``store`` of both servers' files: how avatars are taken from the store that
    ``models_root`` names by a URL.

    ``endpoint_url`` is the address of a server with S3's protocol, for ``s3://`` URLs (None:
    Amazon's). Avatars in use are copied to ``cache_folder`` (None: a folder in the user's cache
    folder), which has ``cache_gb`` GiB at most, with their compiled forms. Every ``poll_seconds``
    the server asks the store which version of each avatar is published. The store has
    ``timeout_seconds`` for an answer; ``downloads`` avatars are downloaded at a time. ``compiled``
    says whether each machine compiles avatars itself ("own"), or takes compiled forms from the
    store and puts its own there ("shared").
    """

    endpoint_url: HttpUrl | None = None
    """A server with S3's protocol that is not Amazon's, as `https://minio.example.org:9000`.
    Credentials come from AWS's own variables and files (`AWS_ACCESS_KEY_ID`, `~/.aws`)."""
    cache_folder: FilePath | None = None
    """The folder on this machine in which avatars in use lie; on a disk of its own, as processes of
    one machine lock files in it. Without it `packages` in the user's cache folder."""
    cache_gb: Annotated[float, Field(gt=0, le=1 << 20)] = 20
    """The most that lies in it, in GiB, compiled forms among it. What was not used for longest
    goes first, and what is open never."""
    poll_seconds: Annotated[float, Field(ge=0.1, le=86_400)] = 30
    """How often it is looked whether other versions are published."""
    timeout_seconds: Annotated[float, Field(ge=0.1, le=3600)] = 20
    """How long the store may take for an answer, of a file for each 4 MiB."""
    downloads: Annotated[int, Field(ge=1, le=64)] = 4
    """Avatars that are downloaded at a time, each 8 files at once. More wait; avatars in the cache
    do not."""

    compiled: Literal["own", "shared"] = "own"
    """Whether what is compiled of avatars is each machine's own, or taken from the store and put
    there (`shared`), so that of many machines of one kind one compiles. Shared, it is trusted as
    much as whoever may write to the store, and the servers have to be allowed to write there. With
    `capacity.compile_sandbox` it is `own`."""

    @property
    def cache_bytes(self) -> int:
        """The most bytes that the cache folder may take: ``cache_gb`` GiB."""
        return int(self.cache_gb * GIB)
