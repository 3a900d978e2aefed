"""Live sessions over the avatars of a server's registry."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Final

from lipwire.config import CompositingConfig, usable_cores
from lipwire.config.compositing import LiveSettings
from lipwire.config.settings import LimitSettings
from lipwire.registry import Registry
from lipwire.security import AuditLog
from lipwire.serving import AudioEncoders, LoadedAvatar
from lipwire.session.live import (
    Leases,
    LiveSessions,
    LiveThreads,
    Pacer,
    SessionCount,
    SessionRules,
    SessionUsage,
)
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
    count: SessionCount | None = None,
    prefix: str = "",
) -> Iterator[LiveSessions]:
    """Give the ``with`` block the live sessions of a server as ``config`` says, and end them
    afterwards. A context manager.

    ``avatars`` are loaded with their frames, and ``encoders`` are their audio encoders. ``leases``
    decides how many sessions the machine can carry; None where that is not limited. ``count``
    counts the sessions of all processes of the server, None where this is the only one; ``prefix``
    is what the sessions' ids begin with.
    """
    live = config.live
    with (
        ExitStack() as stack,
        Pacer() as pacer,
        ThreadPoolExecutor(
            2 * live.max_sessions + _MORE_WORKERS, thread_name_prefix="lipwire-live"
        ) as workers,
        ThreadPoolExecutor(usable_cores(), thread_name_prefix="lipwire-frames") as composing,
        LiveSessions(
            lambda model_id, call: SessionAvatar(model_id, avatars, encoders, call).live_avatar(
                config.output.live_format
            ),
            LiveThreads(pacer, workers, composing),
            rules=_rules(live, config.security.limits),
            leases=leases,
            count=count,
            prefix=prefix,
            on_end=_recording(stack, config.security.usage_file),
        ) as sessions,
    ):
        yield sessions


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
