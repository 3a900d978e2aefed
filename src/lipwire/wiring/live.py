"""Live sessions over the avatars of a server's registry."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Final

from lipwire.config import CompositingConfig, usable_cores
from lipwire.config.compositing import LiveSettings
from lipwire.config.securitysettings import LimitSettings
from lipwire.domain.versions import Choose, one_version
from lipwire.observe.metrics import ServerMetrics
from lipwire.registry import Registry
from lipwire.security import AuditLog, LiveMinutes
from lipwire.security.shared.minutes import SharedMinutes
from lipwire.security.shared.sessions import SharedSessions
from lipwire.serving import AudioEncoders, FrameCost, LoadedAvatar
from lipwire.session.live import (
    Leases,
    LiveSessions,
    LiveThreads,
    Pacer,
    SessionCount,
    SessionRules,
    SessionUsage,
)
from lipwire.stores import RedisConnection
from lipwire.wiring.erasing import watching_for_gone
from lipwire.wiring.measuring import MeasuredSessions
from lipwire.wiring.sessionavatars import SessionAvatar

_MORE_WORKERS: Final = 4
"""Threads for what sessions do besides speaking: ending, renewing leases."""


@contextmanager
def open_live_sessions(
    config: CompositingConfig,
    avatars: Registry[LoadedAvatar],
    encoders: AudioEncoders,
    leases: Leases | None = None,
    *,
    exists: Callable[[str], bool] = lambda name: True,
    count: SessionCount | None = None,
    prefix: str = "",
    metrics: ServerMetrics | None = None,
    cost: FrameCost | None = None,
    redis: RedisConnection | None = None,
    choose: Choose = one_version,
) -> Iterator[LiveSessions]:
    """Give the ``with`` block the live sessions of a server, and end them and their threads
    afterwards. Of ``config``, ``live`` and ``security.limits`` have the limits of the sessions, and
    ``output`` the format of their frames. A context manager.

    ``avatars`` gives the avatars that sessions ask for, with their frames, and ``encoders`` their
    audio encoders; both stay the caller's to close. ``leases`` gives each session its share of a
    device's time, and so limits how many there are; None where they are not limited by that.
    ``exists(name)`` says whether there still is an avatar of that name: where there is not, its
    sessions end. ``count`` counts the sessions of all processes of the server, None where this is
    the only one; ``prefix`` is what the sessions' ids begin with. ``metrics`` counts what happens
    in them, and ``cost`` the processor time that their frames take; None where nobody measures.
    Minutes, and how many sessions a tenant has, are counted with all who share ``redis``, which the
    caller keeps open as long; None: on this machine. ``choose`` says which version of an avatar a
    session shows. Raises InvalidInput where the file of minutes is damaged, StorageFailed where it
    or the file of usage cannot be written.
    """
    live = config.live
    with ExitStack() as outer, ExitStack() as stack:
        pacer = stack.enter_context(Pacer())
        workers = stack.enter_context(
            ThreadPoolExecutor(
                2 * live.max_sessions + _MORE_WORKERS, thread_name_prefix="lipwire-live"
            )
        )
        composing = stack.enter_context(
            ThreadPoolExecutor(usable_cores(), thread_name_prefix="lipwire-frames")
        )
        threads = LiveThreads(pacer, workers, composing)
        sessions = LiveSessions(
            lambda model_id, call: SessionAvatar(model_id, avatars, encoders, call).live_avatar(
                config.output.live_format
            ),
            threads,
            rules=_rules(live, config.security.limits),
            leases=leases,
            count=count,
            prefix=prefix,
            minutes=_minutes(outer, config.security.limits, redis),
            shared=_shared(config.security.limits, redis),
            on_end=_recording(outer, config.security.usage_file),
            observer=MeasuredSessions(metrics or ServerMetrics(), cost or FrameCost()),
            choose=choose,
        )
        stack.enter_context(sessions)
        stack.enter_context(watching_for_gone(sessions, exists, threads))
        yield sessions


def _minutes(
    stack: ExitStack, limits: LimitSettings, redis: RedisConnection | None
) -> LiveMinutes | None:
    """Return what counts the sessions' minutes in the file of ``limits`` and in ``redis``, which
    have all of them when ``stack`` closes."""
    if limits.live_minutes_per_month is None:
        return None
    shared = None if redis is None else SharedMinutes(redis)
    return stack.enter_context(
        LiveMinutes(limits.minutes_file, limits.live_minutes_per_month, shared)
    )


def _shared(limits: LimitSettings, redis: RedisConnection | None) -> SharedSessions | None:
    return None if redis is None or limits.live_sessions is None else SharedSessions(redis)


def _recording(stack: ExitStack, file: Path | None) -> Callable[[SessionUsage], object]:
    """Return what records sessions in ``file``, which is closed with ``stack``."""
    if file is None:
        return lambda usage: None
    log = stack.enter_context(AuditLog(file))
    return lambda usage: log.write(asdict(usage))


def _rules(live: LiveSettings, limits: LimitSettings) -> SessionRules:
    return SessionRules(
        max_sessions_of_tenant=limits.live_sessions,
        max_sessions=live.max_sessions,
        max_duration_s=live.max_duration,
        max_idle_s=live.max_idle or None,
        nobody_joined_timeout_s=live.nobody_joined_timeout,
        reconnect_grace_s=live.reconnect_grace,
    )
