"""The live sessions that are seen in browsers: who views them, and what they are told."""

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Final
from weakref import WeakKeyDictionary

from lipwire.domain import EVERYTHING, Access, Call, NotFound
from lipwire.session.live import LiveSession, LiveSessions, SessionSettings
from lipwire.session.live.broadcast import Broadcast
from lipwire.session.live.sessions import NO_SESSION
from lipwire.web.audio import AudioIn
from lipwire.web.peers import IceServers, Peer

_OPEN_TIMEOUT_S: Final = 60.0
_OPENING: Final = 8
"""Threads that open avatars, so that what is quick does not wait for them."""


class Hub:
    """The sessions of a server, for browsers. Used in one event loop."""

    def __init__(
        self,
        sessions: LiveSessions,
        ice: IceServers,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``ice`` are the servers that viewers beyond this network need. ``clock`` is that of the
        sessions, in seconds."""
        self._clock = clock
        self.sessions: Final = sessions
        self.ice: Final = ice
        self._broadcasts: dict[str, Broadcast] = {}
        self._peers: dict[str, tuple[Peer, LiveSession, Callable[[], None]]] = {}
        self._watched: Counter[str] = Counter()
        self._audio: WeakKeyDictionary[LiveSession, AudioIn] = WeakKeyDictionary()
        self._tasks: set[asyncio.Task[None]] = set()
        self._opening = ThreadPoolExecutor(_OPENING, thread_name_prefix="lipwire-web-opening")

    async def open(
        self,
        model_id: str,
        settings: SessionSettings | None = None,
        *,
        access: Access = EVERYTHING,
    ) -> LiveSession:
        """Begin a session with avatar ``model_id`` for the caller who has ``access``; ``settings``
        None are the usual ones. Raises NotFound where ``access`` does not allow that avatar or
        there is none, and what ``LiveSessions.open`` raises (Overloaded, Unavailable, ...)."""
        access.check_avatar(model_id)

        def opened() -> LiveSession:
            call = Call(_OPEN_TIMEOUT_S, service="live", tenant=access.tenant, access=access)
            try:
                return self.sessions.open(
                    model_id,
                    settings or SessionSettings(),
                    tenant=access.tenant,
                    call=call,
                    with_outbox=False,
                )
            finally:
                call.end()

        return await asyncio.get_running_loop().run_in_executor(self._opening, opened)

    def find(self, session_id: str, access: Access = EVERYTHING) -> LiveSession:
        """Return the running session with that id. Raises NotFound where there is none, or it is
        not one that the caller with ``access`` may see."""
        session = self.sessions.find(session_id, access.tenant)
        if not access.sees(session.avatar.name):
            raise NotFound(NO_SESSION)
        return session

    def broadcast(self, session: LiveSession) -> Broadcast:
        """Return the one encoder of ``session``, which all its WebRTC viewers share; where there is
        none, it is made and added to the session's outputs."""
        found = self._broadcasts.get(session.id)
        if found is None:
            found = self._broadcasts[session.id] = Broadcast(clock=self._clock)
            session.add_output(found)
        return found

    def audio(self, session: LiveSession) -> AudioIn:
        """Return the one queue through which audio for ``session`` is pushed in its order; made on
        the first call."""
        found = self._audio.get(session)
        if found is None:
            found = self._audio[session] = AudioIn(session)
        return found

    def viewers(self, session: LiveSession) -> int:
        """Return how many viewers ``session`` has now, over WebRTC or a socket."""
        return self._peers_of(session) + self._watched[session.id]

    @contextmanager
    def watched(self, session: LiveSession) -> Iterator[None]:
        """Count a viewer of ``session`` over a socket during the ``with`` block. A context
        manager."""
        self._watched[session.id] += 1
        try:
            yield
        finally:
            self._watched[session.id] -= 1
            if not self._watched[session.id]:
                del self._watched[session.id]

    async def view(self, session: LiveSession, offer: str) -> tuple[str, str]:
        """Connect a WebRTC viewer to ``session``. ``offer`` is the viewer's SDP; returns the
        viewer's id (for ``leave``) and the SDP to answer with. Raises NoCommonCodec where the
        viewer lacks H.264 or Opus, InvalidInput where ``offer`` is not one, Unavailable where the
        TURN server that is needed gives no address."""
        broadcast = self.broadcast(session)
        peer_id = secrets.token_urlsafe(12)

        def gone() -> None:
            self._forget(peer_id)

        peer = Peer(
            self.ice,
            on_key_wanted=broadcast.want_key,
            on_bit_rate=lambda bits: broadcast.limit(peer.deliver, bits),
            on_gone=gone,
        )
        self.sessions.attach(session)
        self._peers[peer_id] = (peer, session, lambda: broadcast.remove(peer.deliver))
        try:
            answer = await peer.answer(offer)
        except BaseException:
            await peer.close()
            raise
        broadcast.add(peer.deliver)
        return peer_id, answer

    async def leave(self, peer_id: str) -> None:
        """Close the connection of the viewer with the id ``peer_id``. Raises NotFound where there
        is no such viewer."""
        found = self._peers.get(peer_id)
        if found is None:
            raise NotFound("there is no such viewer; it may have left")
        await found[0].close()

    async def close(self) -> None:
        """Close the connections of all viewers, and wait for that."""
        peers = [peer for peer, _, _ in self._peers.values()]
        await asyncio.gather(*(peer.close() for peer in peers), *self._tasks)
        self._opening.shutdown(wait=False)

    def _peers_of(self, session: LiveSession) -> int:
        return sum(one is session for _, one, _ in self._peers.values())

    def _forget(self, peer_id: str) -> None:
        found = self._peers.pop(peer_id, None)
        if found is None:
            return
        peer, session, unsubscribe = found
        unsubscribe()
        if not self._peers_of(session):
            broadcast = self._broadcasts.pop(session.id, None)
            if broadcast is not None:
                session.remove_output(broadcast)
        self.sessions.detach(session)
        closing = asyncio.ensure_future(peer.close())
        self._tasks.add(closing)
        closing.add_done_callback(self._tasks.discard)
