"""Who asks for what belongs to another tenant, and must never get it."""

import itertools
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

from tests.support.cluster.cast import Cast
from tests.support.cluster.clients import Connect, Threads
from tests.support.cluster.record import Record
from tests.support.cluster.renders import RenderConnection

from lipwire.bench.chaos.cast import Role
from lipwire.domain import LipwireError, NotFound
from lipwire.rpc.connection import CompositingConnection
from lipwire.rpc.conversing import AvatarConnection

_CALL_S: Final = 10.0
_PAUSE_S: Final = 1.0


class Intruders(Threads):
    """One of each tenant: asks for batches and sessions of the others' avatars, for their sessions
    and their videos, and for lists, in which nothing of theirs may be."""

    def __init__(
        self,
        connect: Connect,
        cast: Cast,
        record: Record,
        *,
        sessions: Mapping[str, str],
        renders: Mapping[str, str],
    ) -> None:
        """``sessions`` and ``renders`` have the id of a session, and of a video, of each
        tenant."""
        super().__init__(record)
        self._connect = connect
        self._cast = cast
        self._sessions = sessions
        self._renders = renders
        for tenant in cast.tenants:
            self.add(f"intruder of {tenant}", self._working(tenant))

    def _working(self, tenant: str) -> Callable[[], None]:
        address, security = self._connect(tenant)

        def work() -> None:
            with (
                CompositingConnection(address, security=security) as batches,
                AvatarConnection(address, security=security) as live,
                RenderConnection(address, security) as renders,
            ):
                for role in itertools.cycle(self._cast.others(tenant)):
                    if self.stopped.wait(_PAUSE_S):
                        return
                    self._try_avatar(tenant, role, batches, live)
                    for other in self._cast.tenants:
                        if other != tenant:
                            self._try_ids(tenant, other, live, renders)
                    with suppress(LipwireError):
                        self._look_at_lists(tenant, batches, renders)

        return work

    def _try_avatar(
        self, tenant: str, role: Role, batches: CompositingConnection, live: AvatarConnection
    ) -> None:
        request = role.whole(1).request
        self._refused(tenant, "a batch", lambda: batches.composite(request, _CALL_S))
        self._refused(tenant, "a session", lambda: live.converse(role.name).close())

    def _try_ids(
        self, tenant: str, other: str, live: AvatarConnection, renders: RenderConnection
    ) -> None:
        session, video = self._sessions.get(other), self._renders.get(other)
        if session is not None:
            self._refused(tenant, "a running session", lambda: live.resume(session).leave())
        if video is not None:
            self._refused(tenant, "a video", lambda: renders.get(video))

    def _look_at_lists(
        self, tenant: str, batches: CompositingConnection, renders: RenderConnection
    ) -> None:
        theirs = {role.name for role in self._cast.others(tenant)}
        theirs |= {video for other, video in self._renders.items() if other != tenant}
        told = {model.model_id for model in batches.models(_CALL_S)} | set(renders.listed())
        if seen := told & theirs:
            self.record.is_foreign(f"{tenant} is told of {', '.join(sorted(seen))}")

    def _refused(self, tenant: str, what: str, ask: Callable[[], object]) -> None:
        try:
            ask()
        except NotFound:
            self.record.count("intrusions refused")
        except LipwireError:
            self.record.count("intrusions without an answer")
        else:
            self.record.is_foreign(f"{tenant} got {what} of another tenant")
