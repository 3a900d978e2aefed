"""The sections that both servers' configurations have, and the types that values have.

Every key carries its type, its range and its default here, and the text below it is what the
documentation, the example file and the JSON schema say about it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from lipwire.config.addresses import (
    HIGHEST_PORT,
    LOWEST_PORT,
    bind_host,
    join_address,
    split_listen_address,
)
from lipwire.config.paths import (
    EXPLAINED,
    PACKAGE_LAYOUT,
    FilePath,
    is_foreign,
    package_folder,
    resolve,
)
from lipwire.config.wording import shown


def _host(value: object) -> object:
    return bind_host(value) if isinstance(value, str) else value


_PORT_SCHEMA: Final = {
    "anyOf": [
        {"type": "integer", "minimum": LOWEST_PORT, "maximum": HIGHEST_PORT},
        {"type": "string", "pattern": r"^(.*:)?\d{1,5}$"},
    ],
    "allowed": f'{LOWEST_PORT} to {HIGHEST_PORT}, as 50051, ":50051" or "127.0.0.1:50051"',
}
Port = Annotated[int, Field(ge=LOWEST_PORT, le=HIGHEST_PORT), WithJsonSchema(_PORT_SCHEMA)]
Host = Annotated[
    str,
    BeforeValidator(_host),
    Field(json_schema_extra={"allowed": "a host name or an IP address of this machine"}),
]
ModelName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
ModelCount = Annotated[int, Field(ge=1, le=1_000_000)]
IdleMinutes = Annotated[float, Field(ge=0, le=525_600, allow_inf_nan=False)]
MemoryMb = Annotated[int, Field(ge=16, le=1 << 24)]
EvictionPolicy = Literal["lfu", "lru"]
LogLevel = Literal["debug", "info", "warn", "error"]
LogFormat = Literal["text", "json"]

MIB: Final = 1024 * 1024
_MESSAGES_IN_HAND: Final = 10
_NONE: Final[Any] = None  # a default that is never seen: without a folder there is no entry


class Section(BaseModel):
    """A mapping of a configuration: frozen; unknown keys are errors; a key that says nothing
    (``gpus:``) is one left out."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        protected_namespaces=(),
        allow_inf_nan=False,
    )

    @model_validator(mode="before")
    @classmethod
    def _leave_out_nulls(cls, data: Any) -> Any:
        if isinstance(data, dict):
            return {key: value for key, value in data.items() if value is not None}
        return data


class ServerSettings(Section):
    """Where a server listens."""

    host: Host = "0.0.0.0"
    """The address to listen on: `0.0.0.0` is every network of this machine, `::` also IPv6,
    `127.0.0.1` this machine alone."""
    port: Port
    """The port to listen on; 0 is any free one. A host before the colon sets `host`."""
    max_message_size_mb: Annotated[int, Field(ge=1, le=2047)] = 100
    """The largest message taken and given, in MiB; a larger one is refused with
    RESOURCE_EXHAUSTED. 50 frames in the guide's form are 118 MiB. Same for both servers."""
    max_request_memory_mb: Annotated[int, Field(ge=1, le=1 << 24)] | None = None
    """The most memory, in MiB, that all requests in hand may take together, as they came; one that
    does not fit is refused with RESOURCE_EXHAUSTED and may be sent again. Without it: ten messages
    of the largest size."""
    workers: Annotated[int, Field(ge=1, le=256)] = 1
    """Processes that share the port and the avatars' memory."""

    @property
    def address(self) -> str:
        """Host and port as gRPC binds them."""
        return join_address(self.host, self.port)

    @property
    def max_message_bytes(self) -> int:
        return self.max_message_size_mb * MIB

    @property
    def max_request_bytes(self) -> int:
        """Of all requests in hand together."""
        if self.max_request_memory_mb is None:
            return _MESSAGES_IN_HAND * self.max_message_bytes
        return self.max_request_memory_mb * MIB

    @model_validator(mode="after")
    def _one_message_fits(self) -> Self:
        if self.max_request_bytes < self.max_message_bytes:
            raise PydanticCustomError(
                EXPLAINED,
                "max_request_memory_mb is {all}; a message alone may have {one}"
                " (max_message_size_mb)",
                {"all": self.max_request_memory_mb, "one": self.max_message_size_mb},
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _split_port(cls, data: Any) -> Any:
        if not isinstance(data, dict) or not isinstance(data.get("port"), str):
            return data
        try:
            host, port = split_listen_address(data["port"])
        except ValueError:
            return data  # what follows says what is wrong with the port
        if host is None:
            return data | {"port": port}
        given = data.get("host")
        if given is not None and given != host:
            raise PydanticCustomError(
                EXPLAINED,
                "host is {host} and port names the host {other}; leave one out",
                {"host": shown(str(given)), "other": shown(host)},
            )
        return data | {"port": port, "host": host}


class CapacitySettings(Section):
    """What is kept in memory, and what goes first when there is too much."""

    max_memory_mb: MemoryMb | None = None
    """The most memory, in MiB, that opened avatars and networks may hold, as measured; without it
    only their number is limited."""
    eviction_policy: EvictionPolicy = "lfu"
    """What is unloaded first when there is no room: what is used least often, with old uses
    counting less and less (`lfu`), or what was not used for longest (`lru`). What is in use stays.
    """
    idle_timeout_minutes: IdleMinutes = 60
    """Unload what was not used for so long; 0 is never."""

    @property
    def idle_timeout_s(self) -> float | None:
        """None is never."""
        return self.idle_timeout_minutes * 60 or None

    @property
    def max_memory_bytes(self) -> int | None:
        return None if self.max_memory_mb is None else self.max_memory_mb * MIB


class LoggingSettings(Section):
    """What is logged, and how."""

    level: LogLevel = "info"
    """The least that is logged."""
    format: LogFormat = "text"
    """Lines for people, or one JSON object a line."""
    log_compositing_times: bool = True
    """Log what each batch took: inference, compositing, in all. The inference server takes the key
    and has no such times."""
    log_cache_stats: bool = False
    """Log hits, misses, evictions and memory of what is loaded once a minute."""


class ModelEntry(Section):
    """One avatar of `models`, by the name that requests give as `model_id`.

    Its files lie in one folder: `checkpoint/model_best.onnx`, `frames/`, `crop_rects.json`.
    """

    path: FilePath = _NONE
    """The avatar's folder. It follows from any of the three paths below, and where there are none
    it is the folder of the avatar's name in `models_root`."""
    model_path: FilePath | None = None
    """The network, `.../checkpoint/model_best.onnx`."""
    background_dir: FilePath | None = None
    """The frames, `.../frames`."""
    crop_rects_path: FilePath | None = None
    """The rectangles, `.../crop_rects.json`."""
    num_frames: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """How many frames the avatar has to have; another number is an error when it is opened, which
    finds a folder that was half copied."""
    preload: bool = False
    """Open the avatar and its network when the server starts, not when it is first asked for."""
    preload_backgrounds: bool = False
    """Open the avatar when the server starts, and whenever it is opened read its frames into memory
    (`background_cache_frames` of them), not each when it is first shown."""

    @model_validator(mode="before")
    @classmethod
    def _find_folder(cls, data: Any, info: ValidationInfo) -> Any:
        if data is None:
            data = {}
        if not isinstance(data, dict):
            return data
        base = info.context.get("base") if isinstance(info.context, dict) else None
        folders: dict[str, Path] = {}
        for key in ("path", *PACKAGE_LAYOUT):
            value = data.get(key)
            if value is None:
                continue
            try:
                path = resolve(os.fspath(value), base)
            except (TypeError, ValueError):
                return data  # the key's own check says what is wrong
            folders[key] = package_folder(key, path)
            data = data | {key: path}
        if not folders:
            raise PydanticCustomError(
                EXPLAINED,
                "no folder is known for it; give path, model_path or background_dir, or models_root"
                " for all",
            )
        (first, folder), *others = folders.items()
        for key, other in others:
            if os.path.normpath(other) != os.path.normpath(folder):
                raise PydanticCustomError(
                    EXPLAINED,
                    "{first} belongs to the folder {folder} and {key} to {other}; an avatar's files"
                    " lie in one folder",
                    {
                        "first": first,
                        "folder": shown(str(folder)),
                        "key": key,
                        "other": shown(str(other)),
                    },
                )
        return data | {"path": folder}


class ServerConfig(Section):
    """What is at the top of both files."""

    models_root: FilePath | None = None
    """A folder of avatars, each a folder of its name: all of them can be asked for without an entry
    in `models`, and new or changed ones are picked up while the server runs."""
    models: dict[ModelName, ModelEntry] = {}
    """Avatars by name, for those that lie elsewhere or need settings of their own. A name has 1 to
    128 of A-Z a-z 0-9 . _ - and begins with a letter or digit."""
    logging: LoggingSettings = LoggingSettings()
    """What is logged, and how."""

    @property
    def packages(self) -> dict[str, Path]:
        """The folders of ``models``, by name.

        A Windows path leads nowhere on another system: there the avatar is looked for in
        ``models_root``, so that a file written on Windows serves with nothing but that set.
        """
        return {name: self._package(name, entry.path) for name, entry in self.models.items()}

    def _package(self, name: str, path: Path) -> Path:
        if self.models_root is None or not is_foreign(path):
            return path
        return self.models_root / name

    @model_validator(mode="before")
    @classmethod
    def _look_in_the_root(cls, data: Any) -> Any:
        """Entries without a path lie in ``models_root``."""
        if not isinstance(data, dict):
            return data
        root, models = data.get("models_root"), data.get("models")
        if not isinstance(root, (str, Path)) or not isinstance(models, dict):
            return data
        found = {}
        for name, entry in models.items():
            settings = {} if entry is None else entry
            if isinstance(settings, dict) and not any(
                settings.get(key) is not None for key in ("path", *PACKAGE_LAYOUT)
            ):
                settings = settings | {"path": os.path.join(root, str(name))}  # noqa: PTH118
            found[name] = settings
        return data | {"models": found}

    def notes(self) -> list[str]:
        """What is accepted and does not do what one could expect, one line each."""
        foreign = [
            f"models.{name}: {shown(str(entry.path))}"
            for name, entry in self.models.items()
            if is_foreign(entry.path)
        ]
        if self.models_root is not None and is_foreign(self.models_root):
            foreign.append(f"models_root: {shown(str(self.models_root))}")
        if not foreign:
            return []
        more = f" (and {len(foreign) - 1} more)" if len(foreign) > 1 else ""
        instead = ""
        if self.models_root is not None and not is_foreign(self.models_root):
            instead = f"; its name in {self.models_root} is used instead"
        return [f"{foreign[0]} is a Windows path and leads nowhere on this system{more}{instead}"]
