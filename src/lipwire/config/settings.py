"""The sections that both servers' configurations have.

Every key carries its type, its range and its default here, and the text below it is what the
documentation, the example file and the JSON schema say about it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BeforeValidator, Field, ValidationInfo, model_validator

from lipwire.config.metrics import MetricsSettings, TracingSettings
from lipwire.config.section import Section
from lipwire.config.securitysettings import SecuritySettings
from lipwire.config.storesettings import ModelsRoot, StoreSettings
from lipwire.config.values import (
    FILE_KEYS,
    HIGHEST_PORT,
    AvatarPath,
    FilePath,
    Host,
    MemoryMb,
    ModelName,
    Origin,
    Port,
    PortNumber,
    Texts,
    is_foreign,
    is_loopback,
    join_address,
    split_listen_address,
)
from lipwire.config.wording import shown
from lipwire.domain import AvatarFiles

MIB: Final = 1024 * 1024


class TlsSettings(Section):
    """The section ``server.tls``, files in PEM. ``cert`` and ``key``, both or neither, are the
    server's certificate and private key; without them nothing is encrypted. ``client_ca`` has the
    certificates of authorities: only clients whose certificate one of them has signed can connect
    (None: clients show no certificate). Clients whose certificate has one of ``client_names`` need
    no key or token, and may do everything. Files that change count for the next connections."""

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
        """Whether connections are encrypted: a certificate is named."""
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
    """The keys of the section ``server`` that both servers have: where the server listens, and how
    large requests may be.

    ``host`` and ``port`` are the address to listen on. ``insecure`` allows other machines to ask
    although nothing is encrypted or nobody has to show who they are; ``tls`` names certificates. A
    message has at most ``max_message_size_mb`` MiB, and those of all requests that are being
    answered ``max_request_memory_mb`` (None: ten of the largest). ``workers`` processes share the
    port. A server that is asked to stop says that it is not ready for ``drain_delay`` seconds,
    before it refuses anything. ``profile_port`` is where this machine can ask for profiles (None:
    nowhere).
    """

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
    drain_delay: Annotated[float, Field(ge=0, le=300)] = 0
    """Seconds for which a server that is asked to stop says that it is not ready, and takes what
    comes all the same: load balancers notice, and send nothing that would be refused. 5 behind the
    HAProxy of `deploy/`."""
    profile_port: PortNumber | None = None
    """The port on 127.0.0.1 at which profiles of the server can be asked for, as
    `http://localhost:6060/debug/pprof/` where this is 6060; 0 is any free one, which the log has.
    Of several processes the second has the next port, and so on. Without it there is none."""

    @property
    def address(self) -> str:
        """The address that gRPC listens on, "HOST:PORT", an IPv6 address in brackets."""
        return join_address(self.host, self.port)

    @property
    def max_message_bytes(self) -> int:
        """The most bytes that a single gRPC message may have."""
        return self.max_message_size_mb * MIB

    @property
    def max_request_bytes(self) -> int:
        """The most bytes that the messages of all requests which are being answered may have
        together: ``max_request_memory_mb``, or ten of the largest messages."""
        return (self.max_request_memory_mb or 10 * self.max_message_size_mb) * MIB

    @model_validator(mode="after")
    def _one_message_fits(self) -> Self:
        if self.max_request_bytes < self.max_message_bytes:
            raise ValueError(
                f"max_request_memory_mb is {self.max_request_memory_mb}; a message alone may have"
                f" {self.max_message_size_mb} (max_message_size_mb)"
            )
        return self

    @model_validator(mode="after")
    def _profiles_have_ports(self) -> Self:
        if self.profile_port and self.profile_port + self.workers - 1 > HIGHEST_PORT:
            raise ValueError(
                f"profile_port is {self.profile_port}; with {self.workers} workers it is"
                f" {HIGHEST_PORT - self.workers + 1} at most"
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
    """The keys of the section ``capacity`` that both servers have: how much is kept in memory, and
    what is unloaded first when there is too much.

    ``max_memory_mb`` or ``max_memory_gb`` (GiB), not both, is the most for opened avatars and
    networks; None is no limit. ``eviction_policy`` is "lfu", what is used least often goes first,
    or "lru", what was not used for longest. What was not used for ``idle_timeout_minutes`` is
    unloaded; 0 is never. With ``compile_sandbox`` avatars are compiled in processes of their own,
    which may take ``compile_memory_mb`` MiB and ``compile_timeout_seconds``.
    """

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
    compile_sandbox: bool = False
    """Compile each avatar in a process of its own, with the limits below. For packages of
    strangers; it takes a second more for each that is not compiled yet, and networks stay in
    float32 (`onnx.precision`)."""
    compile_memory_mb: Annotated[int, Field(ge=1024, le=1 << 24)] = 4096
    """The most memory, in MiB, that compiling one avatar may take in the sandbox. Counts on
    Linux alone."""
    compile_timeout_seconds: Annotated[float, Field(ge=1, le=86_400)] = 600
    """The longest that compiling one avatar may take in the sandbox."""

    @property
    def idle_timeout_s(self) -> float | None:
        """After how many seconds without a use an avatar or a network is unloaded; None where it
        never is."""
        return self.idle_timeout_minutes * 60 or None

    @property
    def max_memory_bytes(self) -> int | None:
        """The most bytes that avatars and networks may hold in memory together; None where that is
        not limited."""
        if self.max_memory_gb is not None:
            return int(self.max_memory_gb * 1024 * MIB)
        return None if self.max_memory_mb is None else self.max_memory_mb * MIB

    @model_validator(mode="after")
    def _one_unit(self) -> Self:
        if self.max_memory_mb is not None and self.max_memory_gb is not None:
            raise ValueError("max_memory_mb and max_memory_gb are both given; leave one out")
        return self


class LoggingSettings(Section):
    """The section ``logging``: the least ``level`` that is logged, the ``format`` (lines for
    people, or JSON objects), a ``file`` to which it is written beside standard output (None: none),
    and whether it is logged how long each batch took (``log_compositing_times``,
    ``log_inference_times``) and, once a minute, hits, misses and memory of what is loaded
    (``log_cache_stats``)."""

    level: Annotated[
        Literal["debug", "info", "warn", "error"],
        BeforeValidator(lambda value: "warn" if value == "warning" else value),
    ] = "info"
    """The least that is logged; warning is warn."""
    format: Literal["text", "json"] = "text"
    """Lines for people, or one JSON object a line."""
    file: FilePath | None = None
    """A file to which the log is appended, beside standard output; its folder has to be there. Then
    SIGHUP opens it anew, for log rotation, and does not end the server. Lines that the disk is too
    slow for, or has no room for, are left out, and the log says how many."""
    log_compositing_times: bool = True
    """Log what each batch took: inference, compositing, in all. The inference server takes the key
    and has no such times."""
    log_inference_times: bool = False
    """Log what each batch took in the inference server; the compositing server takes the key and
    has times of its own."""
    log_cache_stats: bool = False
    """Log hits, misses, evictions and memory of what is loaded once a minute."""


class ModelEntry(Section):
    """The entry of one avatar in the section ``models``, by the name that requests give as
    ``model_id``.

    ``path`` is its folder, a package; the other paths are its network, its frames (a folder of
    images or a video), its crop rectangles and its audio encoder. A file that is not named is
    looked for in the folders of those that are, under the name that ``AvatarFiles`` says.
    ``num_frames`` is how many frames it has to have. ``preload`` opens it and its network when the
    server starts; ``preload_backgrounds`` also reads its frames into memory.
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
        """The first of the entry's paths that is a Windows path with a drive ("D:/anna"), while
        this system is not Windows; None where there is none."""
        paths = (getattr(self, key) for key in FILE_KEYS)
        return next((path for path in paths if path is not None and is_foreign(path)), None)

    @property
    def has_a_place(self) -> bool:
        """Whether one of the entry's paths tells where the avatar is: any but
        ``audio_encoder_path``."""
        return any((self.path, self.model_path, self.background_dir, self.crop_rects_path))

    def files(self, folder: Path | None) -> AvatarFiles:
        """Return where the avatar's files lie, each None where the entry does not say.

        ``folder`` is the avatar's folder in ``models_root``, None where that is not set. It is used
        where the entry names no path but that of an audio encoder, and where one of its paths is a
        Windows path with a drive, on another system.
        """
        if folder is not None and self.foreign_path is not None:
            return AvatarFiles(folder=folder)
        return AvatarFiles(
            folder=self.path if self.has_a_place else folder,
            model=self.model_path,
            frames=self.background_dir,
            rectangles=self.crop_rects_path,
            audio_encoder=self.audio_encoder_path,
        )

    @model_validator(mode="after")
    def _somewhere(self, info: ValidationInfo) -> Self:
        if not self.has_a_place and Origin.of(info).root is None:
            raise ValueError(
                "no file is known of it; give path, model_path or background_dir, or models_root"
                " for all"
            )
        return self


class ServerConfig(Section):
    """The keys at the top of both servers' files; base of ``InferenceConfig`` and
    ``CompositingConfig``.

    ``models_root`` is a folder of avatars, each a folder of its name, or the URL of a store of
    avatars, all of which can be asked for; ``store`` says how they are taken from a store.
    ``models`` has avatars by name that lie elsewhere or need settings of their own.
    ``allow_links_outside`` lets symbolic links lead out of an avatar's folder.
    """

    models_root: ModelsRoot | None = None
    """A folder of avatars, each a folder of its name, or a store of avatars, as
    `s3://BUCKET/FOLDER`: all of them can be asked for without an entry in `models`, and new or
    changed ones are picked up while the server runs."""
    store: StoreSettings = StoreSettings()
    """How avatars are taken from a store; counts where `models_root` is the URL of one."""
    allow_links_outside: bool = False
    """Whether symbolic links in an avatar's folder may lead out of it, as those of Hugging Face's
    cache do. A package from somebody else could show any file of this machine by such a link."""
    models: dict[ModelName, ModelEntry] = {}  # noqa: RUF012 - pydantic copies it
    """Avatars by name, for those that lie elsewhere or need settings of their own. A name has 1 to
    128 letters, digits, blanks and signs without / \\ :, and begins with neither . nor - nor a
    blank."""
    logging: LoggingSettings = LoggingSettings()
    """What is logged, and how."""
    security: SecuritySettings = SecuritySettings()
    """Who may ask."""
    metrics: MetricsSettings = MetricsSettings()
    """Numbers for Prometheus."""
    tracing: TracingSettings = TracingSettings()
    """Spans of requests for OpenTelemetry."""

    _unused: tuple[str, ...] = ()
    """Notes on keys of the file that have no effect."""

    def model_post_init(self, context: Origin | None) -> None:
        """Keep the notes on keys without effect that ``context``, an ``Origin``, has of the file,
        for ``notes``. Pydantic calls this when the values have been checked."""
        if context is not None:
            self._unused = context.notes

    @property
    def shares_minutes(self) -> bool:
        """Whether several machines count together how many minutes each tenant has used in live
        sessions, so that ``security.limits.minutes_file`` is not needed. Always False here;
        ``CompositingConfig``, which may name a Redis server for it, overrides this."""
        return False

    @model_validator(mode="after")
    def _minutes_are_kept(self) -> Self:
        limits = self.security.limits
        wanted = limits.live_minutes_per_month is not None
        if wanted and limits.minutes_file is None and not self.shares_minutes:
            raise ValueError(
                "security.limits: minutes_file is missing, which live_minutes_per_month needs"
            )
        return self

    @property
    def tells_apart(self) -> bool:
        """Whether callers show an API key or a token (``security.keys_file`` or ``security.jwt`` is
        set), so that one may be allowed other avatars than another."""
        return self.security.keys_file is not None or self.security.jwt.enabled

    def closed(self, server: ServerSettings) -> bool:
        """Return whether callers of the server with the settings ``server`` have to show who they
        are, by an API key, a token or a client's certificate."""
        return bool(server.tls.client_names) or self.tells_apart

    def check_exposure(self, server: ServerSettings, key: str, host: str) -> None:
        """Raise ValueError where other machines reach ``host`` without encryption, or without
        having to show who they are, unless ``server.insecure`` says that this is wanted.

        ``host`` is an address that the server with the settings ``server`` is to listen on; ``key``
        is the name of the key that has it ("server.host"), for the message.
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
        """How many seconds a server that was asked to stop waits at most for requests that are
        under way: 30, after which orchestrators kill a process (Kubernetes'
        terminationGracePeriodSeconds)."""
        return 30.0

    @property
    def files(self) -> dict[str, AvatarFiles]:
        """Where the files of each avatar of ``models`` lie, by the avatar's name; those that lie in
        a store are left out.

        An avatar without a path is the folder of its name in ``models_root``. So is one with a
        Windows path on another system, where that leads nowhere: a file written on Windows serves
        with nothing but ``models_root`` set.
        """
        root = self.models_folder
        return {
            name: entry.files(None if root is None else root / name)
            for name, entry in self.models.items()
            if self.store_url is None or entry.has_a_place
        }

    @property
    def models_folder(self) -> Path | None:
        """``models_root`` where it is a folder; None where it is a store, or not given."""
        return self.models_root if isinstance(self.models_root, Path) else None

    @property
    def store_url(self) -> str | None:
        """``models_root`` where it is the URL of a store; None where it is a folder, or not
        given."""
        return self.models_root if isinstance(self.models_root, str) else None

    def notes(self) -> list[str]:
        """Return warnings about the configuration, one line each, for the log when the server
        starts: paths of Windows that lead nowhere on this system, and keys of the file that are
        accepted and have no effect."""
        root = self.models_folder
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
