"""The sections that both servers' configurations have.

Every key carries its type, its range and its default here, and the text below it is what the
documentation, the example file and the JSON schema say about it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, model_validator

from lipwire.config.values import (
    FILE_KEYS,
    AvatarPath,
    FilePath,
    Host,
    HttpUrl,
    MemoryMb,
    ModelName,
    Origin,
    Port,
    Texts,
    is_foreign,
    is_loopback,
    join_address,
    split_listen_address,
)
from lipwire.config.wording import shown
from lipwire.domain import AvatarFiles

MIB: Final = 1024 * 1024


class Section(BaseModel):
    """A mapping of a configuration: frozen; unknown keys are errors.

    The text of a ValueError that a validator of the whole section raises is what people are told.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


class TlsSettings(Section):
    """The certificate of the server; without one nothing is encrypted. Files that change count for
    the next connections."""

    cert: FilePath | None = None
    """The server's certificate and those above it, PEM."""
    key: FilePath | None = None
    """The certificate's private key, PEM, without a password."""
    client_ca: FilePath | None = None
    """Certificates, PEM, by which clients are checked: only clients that have one signed by these
    can connect."""
    client_names: Texts = ()
    """Names in clients' certificates. Such a client needs no key or token, and may do everything;
    it is for a compositing server that asks an inference server."""

    @property
    def enabled(self) -> bool:
        """Whether connections are encrypted."""
        return self.cert is not None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.cert is None) != (self.key is None):
            raise ValueError("cert and key belong together; give both or neither")
        if self.client_ca is not None and self.cert is None:
            raise ValueError("client_ca is given and cert is missing; name the file")
        if self.client_names and self.client_ca is None:
            raise ValueError("client_names are given and client_ca is missing; name the file")
        return self


class ServerSettings(Section):
    """Where a server listens."""

    host: Host = "127.0.0.1"
    """The address to listen on: `127.0.0.1` is this machine alone, `0.0.0.0` every network of it,
    `::` also IPv6. Others than this machine need `server.tls` and `security`, or
    `server.insecure`."""
    insecure: bool = False
    """Listen where other machines can ask although nothing is encrypted or nobody has to show who
    they are. For a private network alone; said at each start."""
    tls: TlsSettings = TlsSettings()
    """The certificate of the server; without one nothing is encrypted."""
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
    def reaches_others(self) -> bool:
        """Whether other machines can reach the address that the server listens on."""
        return not is_loopback(self.host)

    @property
    def address(self) -> str:
        """Host and port as gRPC binds them."""
        return join_address(self.host, self.port)

    @property
    def max_message_bytes(self) -> int:
        """The most bytes of one message."""
        return self.max_message_size_mb * MIB

    @property
    def max_request_bytes(self) -> int:
        """The most bytes of all requests in hand together."""
        return (self.max_request_memory_mb or 10 * self.max_message_size_mb) * MIB

    @model_validator(mode="after")
    def _one_message_fits(self) -> Self:
        if self.max_request_bytes < self.max_message_bytes:
            raise ValueError(
                f"max_request_memory_mb is {self.max_request_memory_mb}; a message alone may have"
                f" {self.max_message_size_mb} (max_message_size_mb)"
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _split_port(cls, data: Any) -> Any:
        try:
            host, port = split_listen_address(str(data["port"]))
        except (KeyError, TypeError, ValueError):
            return data  # what follows says what is wrong with the port
        if host is None:
            return data | {"port": port}
        if (given := data.get("host", host)) != host:
            raise ValueError(
                f"host is {shown(str(given))} and port names the host {shown(host)}; leave one out"
            )
        return data | {"port": port, "host": host}


class CapacitySettings(Section):
    """What is kept in memory, and what goes first when there is too much."""

    max_memory_mb: MemoryMb | None = None
    """The most memory, in MiB, that opened avatars and networks may hold, as measured; without it
    only their number is limited."""
    max_memory_gb: Annotated[float, Field(gt=0, le=1 << 14)] | None = None
    """The same in GiB; one of the two."""
    eviction_policy: Literal["lfu", "lru"] = "lfu"
    """What is unloaded first when there is no room: what is used least often, with old uses
    counting less and less (`lfu`), or what was not used for longest (`lru`). What is in use stays.
    """
    idle_timeout_minutes: Annotated[float, Field(ge=0, le=525_600)] = 60
    """Unload what was not used for so long; 0 is never."""

    @property
    def idle_timeout_s(self) -> float | None:
        """Seconds after which what nobody uses is closed; None is never."""
        return self.idle_timeout_minutes * 60 or None

    @property
    def max_memory_bytes(self) -> int | None:
        """The most bytes that may be held in memory; None is no limit."""
        if self.max_memory_gb is not None:
            return int(self.max_memory_gb * 1024 * MIB)
        return None if self.max_memory_mb is None else self.max_memory_mb * MIB

    @model_validator(mode="after")
    def _one_unit(self) -> Self:
        if self.max_memory_mb is not None and self.max_memory_gb is not None:
            raise ValueError("max_memory_mb and max_memory_gb are both given; leave one out")
        return self


class LoggingSettings(Section):
    """What is logged, and how."""

    level: Literal["debug", "info", "warn", "error"] = "info"
    """The least that is logged."""
    format: Literal["text", "json"] = "text"
    """Lines for people, or one JSON object a line."""
    log_compositing_times: bool = True
    """Log what each batch took: inference, compositing, in all. The inference server takes the key
    and has no such times."""
    log_inference_times: bool = False
    """Log what each batch took in the inference server; the compositing server takes the key and
    has times of its own."""
    log_cache_stats: bool = False
    """Log hits, misses, evictions and memory of what is loaded once a minute."""


class JwtSettings(Section):
    """JSON Web Tokens that count. Their claims say what is allowed: `scope` (operations, blanks
    between them), `avatars` (a list of patterns) and the tenant."""

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
    tenant_claim: Annotated[str, Field(min_length=1, max_length=100)] = "tenant"
    """The claim that names the tenant; a token without it may ask for every tenant."""

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
    """What each tenant may ask each process of the server for. Callers without a tenant are counted
    each by itself."""

    requests_per_minute: Annotated[int, Field(ge=1, le=1_000_000_000)] | None = None
    """Calls of any kind; without it they are not limited."""
    frames_per_second: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Frames of batches, over ten seconds; without it they are not limited."""
    live_sessions: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """Live sessions at a time; without it `live.max_sessions` alone counts."""


class SecuritySettings(Section):
    """Who may ask. Without `keys_file`, `jwt` and `server.tls.client_names` callers are not told
    apart."""

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


class ModelEntry(Section):
    """One avatar of `models`, by the name that requests give as `model_id`.

    Each path means that file or folder, wherever it lies. What is not named is looked for under its
    usual name in the folders that the named ones lie in.
    """

    path: AvatarPath | None = None
    """The avatar's folder, an avatar package. Without it, and without any of the paths below, it is
    the folder of the avatar's name in `models_root`."""
    model_path: AvatarPath | None = None
    """The network, an ONNX file. The compositing server does not need it."""
    background_dir: AvatarPath | None = None
    """The frames, a folder of images or a video. An inference server that has the network alone is
    sent what it has to see of them."""
    crop_rects_path: AvatarPath | None = None
    """The crop rectangles, a JSON file."""
    audio_encoder_path: AvatarPath | None = None
    """The audio encoder, an ONNX file; without it, `audio_encoder.onnx` beside the network. Only
    `raw_audio` needs it, and there the compositing server."""
    num_frames: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """How many frames the avatar has to have; another number is an error when it is opened, which
    finds a folder that was half copied."""
    preload: bool = False
    """Open the avatar and its network when the server starts, not when it is first asked for."""
    preload_backgrounds: bool = False
    """Open the avatar when the server starts, and whenever it is opened read its frames into memory
    (`background_cache_frames` of them), not each when it is first shown."""

    @property
    def foreign_path(self) -> Path | None:
        """The first of its paths that is a Windows path with a drive, on a system that has no
        drives; None where there is no such path."""
        paths = (getattr(self, key) for key in FILE_KEYS)
        return next((path for path in paths if path is not None and is_foreign(path)), None)

    @property
    def _has_a_place(self) -> bool:
        """Whether its paths tell where it is; an audio encoder's alone does not."""
        return any((self.path, self.model_path, self.background_dir, self.crop_rects_path))

    def files(self, folder: Path | None) -> AvatarFiles:
        """Return where the avatar's files lie.

        ``folder`` is the avatar's folder in ``models_root``, None where that is not set. It is used
        where the entry names no path, or a Windows path with a drive on another system.
        """
        if folder is not None and self.foreign_path is not None:
            return AvatarFiles(folder=folder)
        return AvatarFiles(
            folder=self.path if self._has_a_place else folder,
            model=self.model_path,
            frames=self.background_dir,
            rectangles=self.crop_rects_path,
            audio_encoder=self.audio_encoder_path,
        )

    @model_validator(mode="after")
    def _somewhere(self, info: ValidationInfo) -> Self:
        if not self._has_a_place and Origin.of(info).root is None:
            raise ValueError(
                "no file is known of it; give path, model_path or background_dir, or models_root"
                " for all"
            )
        return self


class ServerConfig(Section):
    """What is at the top of both files."""

    models_root: FilePath | None = None
    """A folder of avatars, each a folder of its name: all of them can be asked for without an entry
    in `models`, and new or changed ones are picked up while the server runs."""
    allow_links_outside: bool = False
    """Whether symbolic links in an avatar's folder may lead out of it, as those of Hugging Face's
    cache do. A package from somebody else could show any file of this machine by such a link."""
    models: dict[ModelName, ModelEntry] = {}
    """Avatars by name, for those that lie elsewhere or need settings of their own. A name has 1 to
    128 letters, digits, blanks and signs without / \\ :, and begins with neither . nor - nor a
    blank."""
    logging: LoggingSettings = LoggingSettings()
    """What is logged, and how."""
    security: SecuritySettings = SecuritySettings()
    """Who may ask."""

    _unused: tuple[str, ...] = ()
    """Notes on keys of the file that have no effect."""

    def model_post_init(self, context: Origin | None) -> None:
        """Keep the notes of ``context``, what is known of the file. Pydantic calls it when the
        values have been checked."""
        if context is not None:
            self._unused = context.notes

    @property
    def tells_apart(self) -> bool:
        """Whether callers show an API key or a token, so that each may be allowed other avatars."""
        return self.security.keys_file is not None or self.security.jwt.enabled

    def closed(self, server: ServerSettings) -> bool:
        """Return whether callers of ``server`` have to show who they are, by an API key, a token or
        a client's certificate."""
        return bool(server.tls.client_names) or self.tells_apart

    def check_exposure(self, server: ServerSettings, key: str, host: str) -> None:
        """Raise ValueError where other machines reach ``host``, although nothing is encrypted or
        callers need not show who they are, and ``server.insecure`` does not say that this is
        wanted.

        ``host`` is an address to listen on; ``key`` is the name of the key that has it
        ("server.host"), for the message.
        """
        if server.insecure or is_loopback(host):
            return
        missing = [] if server.tls.enabled else ["server.tls (a certificate)"]
        if not self.closed(server):
            missing.append("security.keys_file or security.jwt (who may ask)")
        if missing:
            raise ValueError(
                f"{key} is {host}, which other machines reach, without"
                f" {' and '.join(missing)}; set these, listen on 127.0.0.1, or say"
                " server.insecure: true on a private network"
            )

    @property
    def drain_timeout_s(self) -> float:
        """For how many seconds at most a server that is asked to stop waits for requests that are
        under way. Orchestrators kill after 30 s (Kubernetes' terminationGracePeriodSeconds); no
        batch takes that."""
        return 30.0

    @property
    def files(self) -> dict[str, AvatarFiles]:
        """Where the files of each avatar of ``models`` lie, by the avatar's name.

        An avatar without a path is the folder of its name in ``models_root``. So is one with a
        Windows path on another system, where that leads nowhere: a file written on Windows serves
        with nothing but ``models_root`` set.
        """
        root = self.models_root
        return {
            name: entry.files(None if root is None else root / name)
            for name, entry in self.models.items()
        }

    def notes(self) -> list[str]:
        """Return warnings about the configuration, one line each, for the log when the server
        starts: paths of Windows that lead nowhere on this system, and keys of the file that are
        accepted and have no effect."""
        root = self.models_root
        paths = {f"models.{name}": entry.foreign_path for name, entry in self.models.items()}
        foreign = [f"{key}: {path}" for key, path in paths.items() if path is not None]
        instead = "" if root is None else f"; its name in {root} is used instead"
        if root is not None and is_foreign(root):
            foreign.append(f"models_root: {shown(str(root))}")
            instead = ""
        if not foreign:
            return list(self._unused)
        more = f" (and {len(foreign) - 1} more)" if len(foreign) > 1 else ""
        nowhere = "is a Windows path and leads nowhere on this system"
        return [f"{foreign[0]} {nowhere}{more}{instead}", *self._unused]
