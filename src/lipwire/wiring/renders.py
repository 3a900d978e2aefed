"""The renders of a server, over the avatars of its registry and its existing backend."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from lipwire.config import CompositingConfig
from lipwire.config.compositing import SpeechSettings
from lipwire.config.rendersettings import (
    RenderCacheSettings,
    RendersSettings,
    RenderWebhookSettings,
)
from lipwire.domain import FPS, Call, Tell
from lipwire.domain.versions import Choose, one_version
from lipwire.observe.metrics import ServerMetrics
from lipwire.registry import Registry
from lipwire.renders import Job, RenderRules, Renders, SignedLinks, WebhookRules
from lipwire.renders.cache import RenderCache
from lipwire.renders.files import RenderFiles
from lipwire.renders.rendering import Rendering
from lipwire.renders.sharedvideos import SharedVideos
from lipwire.renders.told import Telling
from lipwire.renders.versions import AvatarVersions
from lipwire.security import AuditLog
from lipwire.serving import AudioEncoders, Backend, LoadedAvatar
from lipwire.speech import Voice
from lipwire.stores import RedisConnection
from lipwire.stores.objects import ObjectStore
from lipwire.wiring.measuring import measure_render_cache, measure_renders
from lipwire.wiring.periodic import every

_SWEEP_EVERY_S = 30.0


@dataclass(frozen=True, slots=True)
class OpenedRenders:
    """The ``renders`` of a server, and ``links``, which checks signed links to their videos;
    ``links`` is None where links are not signed."""

    renders: Renders
    links: SignedLinks | None


@contextmanager
def open_renders(
    config: CompositingConfig,
    avatars: Registry[LoadedAvatar],
    encoders: AudioEncoders,
    *,
    voice: Voice | None,
    tell: Tell,
    metrics: ServerMetrics,
    backend: Backend | None = None,
    redis: RedisConnection | None = None,
    first: bool = True,
    choose: Choose = one_version,
) -> Iterator[OpenedRenders | None]:
    """Give the ``with`` block what makes and keeps finished videos (renders) in a server, and stop
    making them afterwards. ``config.renders`` has its settings; the block is given None where that
    names no folder. A context manager.

    ``avatars`` gives avatars that were opened for video, and ``encoders`` their audio encoders;
    both stay the caller's to close. ``voice`` makes speech of texts; None where there is none.
    ``tell(heading, facts)`` is called once with what is to be shown to whoever starts the server: a
    heading, and values by their names. ``metrics`` counts what is made. ``backend`` is asked which
    revision (hash of the files) of a network the inference servers have; None where networks are in
    this process. Finished videos are shared with other servers by ``redis``, which the caller keeps
    open as long, and the store that ``config`` names; None where nothing is shared. ``first`` says
    whether this process is the one whose ``metrics`` show what all of the server's processes have
    together. ``choose`` says which version of an avatar is rendered. Raises StorageFailed where the
    folder or the file of usage cannot be used.
    """
    settings = config.renders
    if settings.folder is None:
        yield None
        return
    links = _links(settings)
    with ExitStack() as stack:
        files = stack.enter_context(RenderFiles(settings.folder))
        cache = _cache(config, files, avatars, backend, redis, voice)
        renders = stack.enter_context(
            Renders(
                files,
                _rules(settings),
                Rendering(files, avatars, encoders, voice=voice, choose=choose),
                telling=Telling(links, settings.public_url or ""),
                webhooks=_webhooks(settings.webhooks),
                cache=cache,
                ended=_recording(stack, config),
            )
        )
        stack.enter_context(every(_SWEEP_EVERY_S, renders.sweep, "removing old renders"))
        measure_renders(metrics, renders, shared=first)
        if cache is not None:
            measure_render_cache(metrics, cache)
        counts = renders.counts()
        tell(
            "Renders",
            {
                "Kept in": settings.folder,
                "Waiting": counts.queued,
                "Made at a time": settings.workers,
                **({} if cache is None else {"Shared by": settings.cache.url}),
            },
        )
        yield OpenedRenders(renders, links)


def _cache(
    config: CompositingConfig,
    files: RenderFiles,
    avatars: Registry[LoadedAvatar],
    backend: Backend | None,
    redis: RedisConnection | None,
    voice: Voice | None,
) -> RenderCache | None:
    settings = config.renders.cache
    if settings.url is None or redis is None:
        return None
    store = open_shared_store(settings, settings.url)
    retention_s = config.renders.retention_hours * 3600

    def network(name: str, call: Call) -> str:
        return "" if backend is None else backend.load(name, call=call).revision

    return RenderCache(
        SharedVideos(redis, store, retention_s=retention_s),
        files,
        AvatarVersions(avatars, network),
        "" if voice is None else _said_by(config.speech, voice),
    )


def open_shared_store(settings: RenderCacheSettings, url: str) -> ObjectStore:
    """Return the store at ``url`` in which servers share finished videos, with the endpoint and the
    time limit of ``settings``. Nothing is asked yet. Raises DependencyMissing where the package
    that the store needs is not installed, and InvalidInput where ``url`` is not the URL of a store.
    """
    return ObjectStore(
        url,
        endpoint_url=settings.endpoint_url,
        timeout_s=settings.timeout_seconds,
        what="store of renders",
    )


def _said_by(speech: SpeechSettings, voice: Voice) -> str:
    """All that the sound of a text depends on besides the text, as one text."""
    settings = speech.model_dump(exclude={"voice", "api_key", "timeout_seconds"}, mode="json")
    return json.dumps([voice.name, settings], sort_keys=True)


def _rules(settings: RendersSettings) -> RenderRules:
    return RenderRules(
        max_queued=settings.max_queued,
        max_queued_of_tenant=settings.max_queued_of_tenant,
        workers=settings.workers,
        max_duration_s=settings.max_duration,
        retention_s=settings.retention_hours * 3600,
        disk_budget_bytes=settings.disk_budget_bytes,
    )


def _links(settings: RendersSettings) -> SignedLinks | None:
    if settings.url_secret is None:
        return None
    previous = settings.previous_url_secret
    return SignedLinks(
        settings.url_secret.get_secret_value(),
        None if previous is None else previous.get_secret_value(),
        lasts_s=settings.url_lifetime,
    )


def _webhooks(settings: RenderWebhookSettings) -> WebhookRules | None:
    if not settings.enabled or settings.secret is None:
        return None
    return WebhookRules(
        settings.secret.get_secret_value(),
        settings.url,
        settings.from_requests,
        settings.timeout_seconds,
        settings.max_tries,
    )


def _recording(stack: ExitStack, config: CompositingConfig) -> Callable[[Job], object]:
    """Return what records renders that have ended in the file of usage, which is closed with
    ``stack``."""
    file = config.security.usage_file
    if file is None:
        return lambda job: None
    log = stack.enter_context(AuditLog(file))

    def record(job: Job) -> None:
        log.write(
            {
                "tenant": job.order.tenant,
                "avatar": job.order.avatar,
                "render": job.id,
                "reason": job.state,
                "video_s": job.done_frames / FPS,
                "frames": job.done_frames,
                "bytes": 0 if job.video is None else job.video.size_bytes,
                "cached": job.cached,
            }
        )

    return record
