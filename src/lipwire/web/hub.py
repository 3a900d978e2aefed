"""The live sessions that are seen in browsers: who views them, and what they are told."""

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import copy_context
from typing import Final
from weakref import WeakKeyDictionary

from lipwire.domain import EVERYTHING, Access, Call, NotFound, Overloaded, PermissionDenied
from lipwire.session.live import LiveSession, LiveSessions, SessionSettings
from lipwire.session.live.broadcast import Broadcast
from lipwire.session.live.sessions import NO_SESSION
from lipwire.web.audio import AudioIn
from lipwire.web.ice import IceServers
from lipwire.web.peers import Peer

_OPEN_TIMEOUT_S: Final = 60.0
PART_AFTER_S: Final = 5.0
"""How long a viewer stays connected to a session that has ended, unless it leaves by itself: it is
to hear of the end first."""
MOST_VIEWERS: Final = 400
"""Over WebRTC, of all sessions of a process: each has sockets and keys of its own."""
MOST_OF_SESSION: Final = 100
_FULL_S: Final = 5.0
_OPENING: Final = 8
"""Threads that open avatars, so that what is quick does not wait for them."""


class Hub:
    """The live sessions of a server as its HTTP API uses them, and the WebRTC viewers of each. Made
    and used in one event loop."""

    def __init__(
        self,
        sessions: LiveSessions,
        ice: IceServers,
        *,
        clock: Callable[[], float] = time.monotonic,
        part_after_s: float = PART_AFTER_S,
    ) -> None:
        """``ice`` are the servers that viewers beyond this network need. ``clock`` is that of the
        sessions, in seconds. ``part_after_s`` is how many seconds after the end of a session its
        viewers are disconnected."""
        self._loop = asyncio.get_running_loop()
        self._clock = clock
        self._part_after_s = part_after_s
        self.sessions: Final = sessions
        self._ice = ice
        self._broadcasts: dict[str, Broadcast] = {}
        self._peers: dict[str, tuple[Peer, LiveSession, Callable[[], None]]] = {}
        self._watched: Counter[str] = Counter()
        self._audio: WeakKeyDictionary[LiveSession, AudioIn] = WeakKeyDictionary()
        self._tasks: set[asyncio.Task[None]] = set()
        self._opening = ThreadPoolExecutor(_OPENING, thread_name_prefix="lipwire-web-opening")

    def ice(self) -> IceServers:
        """Return the STUN and TURN servers to name to one viewer. Where this server shares a secret
        with the TURN server, they have a username and a credential for this viewer alone, which are
        valid for a day from now; otherwise they have those that all viewers are told."""
        return self._ice.issued(time.time())

    async def open(
        self,
        model_id: str,
        settings: SessionSettings | None = None,
        *,
        access: Access = EVERYTHING,
        lasts_s: float | None = None,
    ) -> LiveSession:
        """Begin a session with avatar ``model_id`` for the caller who has ``access``; wait until it
        has begun, up to 60 s for the avatar to be loaded. It ends after ``lasts_s`` seconds at most
        (None: only the server's rules count); ``settings`` None are the defaults of
        ``SessionSettings``. Where the wait is cancelled, the session is ended.

        Raises PermissionDenied where ``access`` is to one session alone, NotFound where it does not
        allow that avatar or there is none, Overloaded where there are too many sessions or the
        machine has no time or memory left for one more, MinutesUsedUp where the tenant has had its
        minutes of the month, Unavailable where the server is stopping or no server can run the
        network, AvatarInvalid where the avatar's files are damaged, InvalidInput where it has no
        audio encoder, AvatarChanged where it is being replaced at this moment, and DeadlineExceeded
        where it is not loaded in time.
        """
        if access.session:
            raise PermissionDenied("this is for one session, and opens no other")
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
                    lasts_s=lasts_s,
                )
            finally:
                call.end()

        opening = self._opening.submit(copy_context().run, opened)  # with the request's id
        try:
            return await asyncio.wrap_future(opening)
        except asyncio.CancelledError:  # nobody waits for it any more
            opening.add_done_callback(self._end_opened)
            raise

    def _end_opened(self, opening: Future[LiveSession]) -> None:
        if not opening.cancelled() and opening.exception() is None:
            self.sessions.end(opening.result())

    def find(self, session_id: str, access: Access = EVERYTHING) -> LiveSession:
        """Return the running session with the id ``session_id``. Raises NotFound where there is
        none, or it is not one that the caller with ``access`` may see."""
        session = self.sessions.find(session_id, access.tenant)
        if access.session not in ("", session_id) or not access.sees(session.avatar.name):
            raise NotFound(NO_SESSION)
        return session

    def broadcast(self, session: LiveSession) -> Broadcast:
        """Return the one encoder of ``session``, which all its WebRTC viewers share. Where there is
        none yet, it is made and added to the outputs of the session; it is removed from them when
        the last viewer has left."""
        found = self._broadcasts.get(session.id)
        if found is None:
            found = self._broadcasts[session.id] = Broadcast(
                clock=self._clock, on_close=lambda: self._ended(session)
            )
            session.add_output(found)
        return found

    def audio(self, session: LiveSession) -> AudioIn:
        """Return the ``AudioIn`` of ``session``, the one queue through which audio is pushed to the
        session in the order of the calls. It is made at the first call."""
        found = self._audio.get(session)
        if found is None:
            found = self._audio[session] = AudioIn(session)
        return found

    @property
    def all_viewers(self) -> int:
        """How many viewers all sessions have now, over WebRTC or a socket. May be read in any
        thread."""
        return len(self._peers) + self._watched.total()

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
        viewer's id (for ``leave`` and ``peer``) and the SDP to answer with. The connection itself
        is made afterwards.

        Raises NoCommonCodec where the viewer lacks H.264 or Opus, InvalidInput where ``offer`` is
        no SDP that can be answered, Unavailable where the TURN server that is needed gives no
        address, NotFound where the session ends meanwhile, and Overloaded where the session has 100
        WebRTC viewers, or all sessions of this process together have 400.
        """
        for count, most in (
            (self._peers_of(session), MOST_OF_SESSION),
            (len(self._peers), MOST_VIEWERS),
        ):
            if count >= most:
                raise Overloaded(
                    f"{count} viewers are connected; allowed are {most}", retry_after_s=_FULL_S
                )
        broadcast = self.broadcast(session)
        peer_id = secrets.token_urlsafe(12)

        def gone() -> None:
            self._forget(peer_id)

        peer = Peer(
            self.ice(),
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
        if session.closed or peer_id not in self._peers:  # it has ended meanwhile
            await peer.close()
            raise NotFound(NO_SESSION)
        broadcast.add(peer.deliver)
        return peer_id, answer

    async def leave(self, peer_id: str, session_id: str, access: Access = EVERYTHING) -> None:
        """Close the connection of the viewer with the id ``peer_id`` to the session ``session_id``.
        Raises NotFound where there is no such viewer, or the session is not one that the caller
        with ``access`` may see."""
        await self.peer(peer_id, session_id, access).close()

    def peer(self, peer_id: str, session_id: str, access: Access = EVERYTHING) -> Peer:
        """Return the connection of the viewer with the id ``peer_id`` to the session
        ``session_id``. Raises NotFound where there is no such viewer, or the session is not one
        that the caller with ``access`` may see."""
        found = self._peers.get(peer_id)
        if found is None or found[1] is not self.find(session_id, access):
            raise NotFound("there is no such viewer; it may have left")
        return found[0]

    async def close(self) -> None:
        """Close the connections of all viewers, and wait until they are closed. Sessions go on."""
        peers = [peer for peer, _, _ in self._peers.values()]
        await asyncio.gather(*(peer.close() for peer in peers), *self._tasks)
        self._opening.shutdown(wait=False)

    def _peers_of(self, session: LiveSession) -> int:
        return sum(one is session for _, one, _ in self._peers.values())

    def _ended(self, session: LiveSession) -> None:
        """Disconnect the viewers of ``session`` in some seconds, where it has ended. In any
        thread."""
        if not session.closed:
            return  # its last viewer has left

        def part() -> None:
            for peer_id in [one for one, (_, of, _) in self._peers.items() if of is session]:
                self._forget(peer_id)

        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._loop.call_later, self._part_after_s, part)

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
