"""The compositing server's configuration: the guide's file, and what Lipwire adds to it."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, model_validator

from lipwire.config.redissettings import RedisSettings
from lipwire.config.rendersettings import RendersSettings
from lipwire.config.section import Section
from lipwire.config.settings import MIB, CapacitySettings, ServerConfig, ServerSettings
from lipwire.config.values import (
    FilePath,
    Host,
    HttpUrl,
    IceUrls,
    Language,
    MemoryMb,
    ModelCount,
    Origins,
    Port,
    PortNumber,
    Targets,
    Texts,
)


class CompositingServerSettings(ServerSettings):
    """The section ``server`` of a compositing server's file, with the port that it listens on by
    default. The keys are those of ``ServerSettings``."""

    port: Port = 50052
    """The port to listen on; 0 is any free one. A host before the colon sets `host`."""


class ClientTlsSettings(Section):
    """The section ``inference_server.tls`` of a compositing server's file: whether the connections
    to inference servers are encrypted, and how.

    They are where ``enabled`` is set or a file is named. ``ca`` is the file of certificates by
    which the servers are checked, without it those that gRPC brings; ``cert`` and ``key``, both or
    neither, are a certificate to show them and its private key; all are PEM. ``server_name`` is the
    name in the servers' certificates, where they are reached by another.
    """

    enabled: bool = False
    """Whether the connections are encrypted; also where any of the files is named."""
    ca: FilePath | None = None
    """Certificates, PEM, by which they are checked; without it those that gRPC brings."""
    cert: FilePath | None = None
    """A certificate to show them, PEM; with `key`."""
    key: FilePath | None = None
    """Its private key, PEM."""
    server_name: Annotated[str, Field(min_length=1, max_length=253)] | None = None
    """The name in their certificates, where they are reached by another."""

    @property
    def wanted(self) -> bool:
        """Whether the connections are encrypted: ``enabled`` is set, or one of the files is
        named."""
        return self.enabled or self.ca is not None or self.cert is not None

    @model_validator(mode="after")
    def _both(self) -> Self:
        if (self.cert is None) != (self.key is None):
            raise ValueError("cert and key belong together; give both or neither")
        return self


class InferenceAddressSettings(Section):
    """The section ``inference_server`` of a compositing server's file: which inference servers are
    asked for mouths, and how.

    ``url`` has one or several addresses, host:port. ``timeout_seconds`` is the longest that a
    request may take, all tries together, ``max_retries`` how many tries follow the first one, and
    ``replicas`` how many of several servers one avatar may be asked of.
    ``use_proxy`` says whether variables as ``https_proxy`` count, ``token`` is an API key or token
    that the servers ask for, and ``tls`` says how connections are encrypted.
    """

    url: Targets = ("localhost:50051",)
    """One inference server, several, or a load balancer. Of several, each avatar has one that is
    asked first, so that it is not loaded everywhere; the others take over when that one is away."""
    timeout_seconds: Annotated[float, Field(gt=0, le=3600)] = 10
    """The longest that a request to an inference server may take, all tries together; a shorter
    deadline of the client goes first."""
    use_proxy: bool = False
    """Whether the variables `grpc_proxy`, `https_proxy`, `http_proxy` and `no_proxy` count for the
    connections to inference servers."""
    token: Annotated[SecretStr, Field(min_length=1, max_length=8192)] | None = None
    """An API key or a token that they ask for. Better set by the variable
    `LIPWIRE_INFERENCE_SERVER__TOKEN`."""
    tls: ClientTlsSettings = ClientTlsSettings()
    """How they are checked, and what they are shown; without it nothing is encrypted."""
    max_retries: Annotated[int, Field(ge=0, le=100)] = 3
    """Tries after the first one, with growing pauses, of what is safe to try again."""
    replicas: Annotated[int, Field(ge=1, le=100)] = 1
    """Of several servers, how many one avatar may be asked of while it is more than one carries:
    its calls wait for longer than they are worked on, or its live sessions find no room. Each has
    its network in memory then. With 1 it is always one."""


class CompositingCapacitySettings(CapacitySettings):
    """The section ``capacity`` of a compositing server's file: how much is kept in memory.

    ``max_models`` avatars are open at a time. ``background_cache_frames`` is how many frames of an
    avatar ``preload_backgrounds`` reads into memory. ``frame_cache_mb`` is the most MiB for whole
    decoded frames; None is 768, or a quarter of the memory where that is less. The other keys are
    those of ``CapacitySettings``.
    """

    max_models: ModelCount = 11_000
    """Avatars open at a time; how many are known is not limited."""
    background_cache_frames: Annotated[int, Field(ge=0, le=1_000_000)] = 600
    """Frames of each avatar that `preload_backgrounds` reads into memory; the others are read from
    disk when they are first shown, and stay as long as the system has room."""
    frame_cache_mb: MemoryMb | None = None
    """The most memory, in MiB, for whole frames, from which raw output is made and which are
    decoded when they are first shown; all avatars of a process share it. Without it 768, or a
    quarter of the memory where that is less."""

    @property
    def frame_cache_bytes(self) -> int | None:
        """The most bytes of memory for whole decoded frames; None where the file does not say it:
        then ``FrameCache`` takes 768 MiB, or a quarter of the machine's memory where that is less.
        """
        return None if self.frame_cache_mb is None else self.frame_cache_mb * MIB


class OutputSettings(Section):
    """The section ``output`` of a compositing server's file: the ``format`` of the frames that
    clients get, JPEG files, raw pixels (BGR) or H.264; ``jpeg_quality``, 1 to 100, more is better;
    and ``h264_crf``, x264's quality, 1 to 51, less is better."""

    format: Literal["jpeg", "raw", "h264"] = "jpeg"
    """JPEG files; raw pixels: height x width x 3 bytes in the order blue, green, red; or H.264, of
    which an answer's first frame is a key frame. In live sessions over gRPC `h264` gives JPEG."""
    jpeg_quality: Annotated[int, Field(ge=1, le=100)] = 75
    """75 is a good balance, 85 high quality. Avatars are prepared for one quality, so the first
    start after a change takes longer."""
    h264_crf: Annotated[int, Field(ge=1, le=51)] = 23
    """Quality of `h264`, x264's: less is better, 18 is hard to tell from the source."""

    @property
    def live_format(self) -> Literal["jpeg", "raw"]:
        """The format of frames in live sessions over gRPC: ``format``, but "jpeg" in place of
        "h264", since a client that misses a frame of H.264 cannot show the next one."""
        return "jpeg" if self.format == "h264" else self.format


class LiveSettings(Section):
    """The section ``live`` of a compositing server's file: how many live sessions there may be
    (``max_sessions``, in all processes together), and for how long, in seconds.

    A session lasts ``max_duration`` at most (None: no limit). It ends where nothing was said for
    ``max_idle`` (0: never), where its client takes nothing for ``nobody_joined_timeout`` after it
    began, and where a client whose connection broke is not back within ``reconnect_grace``. A
    server that is asked to stop goes on for ``drain_timeout`` at most while there are sessions.
    """

    max_sessions: Annotated[int, Field(ge=1, le=10_000)] = 64
    """Sessions at a time, in all processes together. Fewer are admitted where the machine is too
    slow."""
    max_duration: Annotated[float, Field(ge=1, le=31_536_000)] | None = None
    """How long a session lasts at most; without it there is no limit."""
    max_idle: Annotated[int, Field(ge=0, le=31_536_000)] = 900
    """A session ends in which nothing was said for so long, and no keep-alive came; 0 is never."""
    nobody_joined_timeout: Annotated[float, Field(ge=1, le=3600)] = 30
    """A session ends whose client does not take anything for so long after it began."""
    reconnect_grace: Annotated[float, Field(ge=0, le=3600)] = 30
    """A session goes on for so long when its connection breaks; the client that comes back finds it
    as it is."""
    drain_timeout: Annotated[float, Field(ge=0, le=86_400)] = 30
    """A server that is asked to stop tells its sessions' clients, and goes on for so long at most
    while there are any."""


class IceSettings(Section):
    """The section ``web.ice`` of a compositing server's file: STUN and TURN servers, for viewers
    that cannot reach this machine directly by WebRTC.

    ``urls`` are their addresses ("stun:example.org:3478"). TURN needs ``username`` and
    ``credential``, which viewers are told, or ``secret``, which the TURN server shares with this
    one and from which each viewer gets a credential of its own. ``relay_only`` sends all media over
    the TURN server.
    """

    urls: IceUrls = ()
    """As `stun:example.org:3478`, or `turn:example.org:3478?transport=tcp`. Viewers are told all of
    them; the server itself uses the first STUN and the first TURN server."""
    username: Annotated[str, Field(min_length=1, max_length=1000)] | None = None
    """For TURN; viewers are told it."""
    credential: Annotated[SecretStr, Field(min_length=1, max_length=1000)] | None = None
    """For TURN; those who may view are told it, and it is not shown anywhere else."""
    secret: Annotated[SecretStr, Field(min_length=1, max_length=1000)] | None = None
    """In place of `credential`, the secret that the TURN server shares with this one (coturn's
    `static-auth-secret`): each viewer is told a credential of its own, which ends after a day."""
    relay_only: bool = False
    """Whether all media goes over the TURN server; with `?transport=tcp`, over that one port."""

    @model_validator(mode="after")
    def _has_a_relay(self) -> Self:
        relays = [url for url in self.urls if url.startswith("turn")]
        if self.relay_only and not relays:
            raise ValueError("relay_only is true and urls name no TURN server; name one")
        if self.credential is not None and self.secret is not None:
            raise ValueError("credential and secret are both set; set one of them")
        if relays and self.secret is None and (self.username is None or self.credential is None):
            raise ValueError(
                f"urls name {relays[0]}, which needs username and credential, or secret; set them"
            )
        secrets = {
            name: "" if value is None else value.get_secret_value()
            for name, value in (("credential", self.credential), ("secret", self.secret))
        }
        for name, text in {"username": self.username or "", **secrets}.items():
            if not (text.isascii() and (text.isprintable() or not text)):
                raise ValueError(f"{name} has other characters than printable ones of ASCII")
        return self


class WebSettings(Section):
    """The section ``web`` of a compositing server's file: its web page, HTTP API and WebRTC.

    ``enabled`` says whether they are there; where it is None they are in ``lipwire serve`` alone.
    ``host`` and ``port`` are where they listen; ``hosts`` are names, besides localhost, under which
    requests are answered. ``token`` lets who sends it change something from anywhere;
    ``allowed_origins`` are other origins whose pages may do what the server's own may.
    ``max_connections`` are open at a time. ``ice`` has STUN and TURN servers.
    """

    enabled: bool | None = None
    """Whether they are there; without it they are in `lipwire serve`, and not in the compositing
    server."""
    host: Host = "127.0.0.1"
    """The address to listen on; one that other machines reach needs `token`."""
    port: PortNumber = 8080
    """The port to listen on; 0 is any free one."""
    hosts: Texts = ()
    """The names that this server is reached by, besides `localhost`: a request under another name
    is refused; `*` is any name."""
    token: Annotated[str, Field(min_length=16, max_length=1000)] | None = None
    """Who sends it may change something from anywhere; without it each start makes one, which the
    log has. The server's own page needs none."""
    allowed_origins: Origins = ()
    """Pages of other origins that may do what the server's own page does, as
    `https://app.example.org`. With `*` those of any origin may ask and read; it needs `token`, and
    who changes something has to send that."""
    max_connections: Annotated[int, Field(ge=16, le=100_000)] = 1000
    """Connections at a time, WebSockets among them, of each process. Where there are more, that
    which has asked nothing for longest is closed."""
    ice: IceSettings = IceSettings()
    """STUN and TURN servers."""

    @model_validator(mode="after")
    def _has_a_token(self) -> Self:
        if "*" in self.allowed_origins and self.token is None:
            raise ValueError(
                "allowed_origins has *, any page, and token is missing; set it, or name the origins"
            )
        return self


class SpeechSettings(Section):
    """The section ``speech`` of a compositing server's file: the voice that makes speech of texts.

    ``voice`` is who does: ``hibari`` (a Python package), the program ``espeak-ng``, a server with
    OpenAI's API (``openai``), or ``none``; None is hibari where it is installed. ``speed`` is a
    factor. ``language`` is for espeak-ng; ``url``, ``model``, ``voice_name`` and ``api_key`` are
    for a server. ``timeout_seconds`` is how long espeak-ng may take for a sentence, and a server to
    connect and for each part of an answer.
    """

    voice: Literal["hibari", "espeak-ng", "openai", "none"] | None = None
    """Who says texts: `hibari`, English, of `lipwire[speech]`; the program `espeak-ng`; a server
    with OpenAI's `/v1/audio/speech`; or nobody. Without it `hibari` where that is installed."""
    speed: Annotated[float, Field(ge=0.5, le=2)] = 1
    """How fast they are said."""
    language: Language = "en-us"
    """For `espeak-ng`, one of those that `espeak-ng --voices` lists."""
    url: HttpUrl | None = None
    """For `openai`, as `https://api.example.org/v1`; texts are sent there."""
    model: Annotated[str, Field(min_length=1, max_length=200)] = "tts-1"
    """For `openai`."""
    voice_name: Annotated[str, Field(min_length=1, max_length=200)] = "alloy"
    """For `openai`, one of the server's voices."""
    api_key: Annotated[SecretStr, Field(min_length=1, max_length=2000)] | None = None
    """For `openai`; not shown anywhere. Better set by the variable `LIPWIRE_SPEECH__API_KEY`."""
    timeout_seconds: Annotated[float, Field(gt=0, le=600)] = 10
    """How long `espeak-ng` may take for a sentence, and `openai` to connect and for each part of an
    answer."""

    @model_validator(mode="after")
    def _has_a_url(self) -> Self:
        if self.voice == "openai" and self.url is None:
            raise ValueError("voice is openai and url is missing; name the server")
        return self


class CompositingConfig(ServerConfig):
    """The whole configuration of a compositing server. Each field is a section of the file, a
    mapping."""

    server: CompositingServerSettings = CompositingServerSettings()
    """Where the server listens."""
    inference_server: InferenceAddressSettings = InferenceAddressSettings()
    """The inference servers that are asked."""
    capacity: CompositingCapacitySettings = CompositingCapacitySettings()
    """How many avatars are kept open."""
    output: OutputSettings = OutputSettings()
    """The frames that clients get."""
    live: LiveSettings = LiveSettings()
    """Live sessions: how many there may be, and for how long."""
    web: WebSettings = WebSettings()
    """The page, its HTTP API and WebRTC."""
    speech: SpeechSettings = SpeechSettings()
    """The voice that says texts."""
    renders: RendersSettings = RendersSettings()
    """Finished videos, made and kept by the server."""
    redis: RedisSettings = RedisSettings()
    """The Redis server by which several servers share limits, tickets, minutes and finished
    videos."""

    @model_validator(mode="after")
    def _closed_by_default(self) -> Self:
        self.check_exposure(self.server, "server.host", self.server.host)
        if self.web.enabled is not False:
            self.check_exposure(self.server, "web.host", self.web.host)
        if self.metrics.enabled:
            self.check_exposure(self.server, "metrics.host", self.metrics.host)
        return self

    @model_validator(mode="after")
    def _shares_renders_by_redis(self) -> Self:
        if self.renders.cache.url is not None and not self.redis.enabled:
            raise ValueError(
                "renders.cache.url is set and redis.url is missing, by which servers find what is"
                " shared; set it"
            )
        return self

    @property
    def shares_minutes(self) -> bool:
        """Whether several machines count together how many minutes each tenant has used in live
        sessions, in Redis (``redis.url`` is set), so that ``security.limits.minutes_file`` is not
        needed."""
        return self.redis.enabled

    @property
    def drain_timeout_s(self) -> float:
        """How many seconds a server that was asked to stop waits at most for requests and live
        sessions that are under way: 30, or ``live.drain_timeout`` where that is more."""
        return max(super().drain_timeout_s, self.live.drain_timeout)

    def notes(self) -> list[str]:
        """Return warnings about the configuration, one line each, for the log when the server
        starts.

        They are those of every server (keys without effect, paths of another system), that an
        avatar has more frames than ``preload_backgrounds`` reads into memory, and that Redis is
        another machine without encryption.
        """
        notes = super().notes() + self.redis.notes()
        cached = self.capacity.background_cache_frames
        for name, entry in self.models.items():
            if entry.preload_backgrounds and (entry.num_frames or 0) > cached:
                notes.append(
                    f"models.{name}: {cached} of its {entry.num_frames} frames are preloaded;"
                    " capacity.background_cache_frames is the limit"
                )
                break
        return notes
