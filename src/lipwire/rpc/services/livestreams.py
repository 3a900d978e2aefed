"""The streams of live sessions: of each session one at a time is answered, the newest."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from lipwire.domain import Call, LipwireError
from lipwire.session.live import Item, LiveSession, LiveSessions

_MOST_REFUSALS: Final = 100


@dataclass(frozen=True, slots=True)
class Refusal:
    """A message of a client that was not followed, because of ``error``: ``message`` is its field
    of ``ConverseRequest``, such as "say", empty where it has none that is known, and ``number``
    says that it was the first (1), second and so on of its kind."""

    error: LipwireError
    message: str
    number: int


class LiveStream:
    """One gRPC stream over which a client takes what a live session sends, and is told which of
    its messages were not followed. A session has one stream at a time: a newer one
    replaces it. Made by ``LiveStreams.open``. Thread-safe."""

    def __init__(self, session: LiveSession, call: Call) -> None:
        """``call`` is the request whose answer the stream is."""
        self.session: Final = session
        self.access: Final = call.access
        """What the client may do."""
        self._call = call
        self._taking = threading.Lock()
        self._lock = threading.Lock()
        self._replaced = False
        self._refusals: list[Refusal] = []

    @property
    def replaced(self) -> bool:
        """Whether a newer stream goes on with the session."""
        return self._replaced

    @property
    def over(self) -> bool:
        """Whether this stream sends nothing more: a newer one goes on with the session, or its
        request has ended."""
        return self._replaced or self._call.ended

    def take(self, timeout_s: float) -> list[Item] | None:
        """Wait for items of the session, at most ``timeout_s`` seconds, and remove and return all
        there are; an empty list where that time has passed, or a newer stream takes them. None once
        the session has ended and all was taken."""
        with self._taking:
            return [] if self._replaced else self.session.outbox.take(timeout_s)

    def replace(self) -> None:
        """Have ``take`` return no more items: a newer stream takes them from now on. Waits until a
        ``take`` under way has returned."""
        self._replaced = True
        with self._taking:  # what was being taken was taken
            pass

    def refuse(self, refusal: Refusal) -> None:
        """Keep ``refusal``, so that ``refusals`` returns it, and the client is told. Where 100 are
        waiting to be sent already, it is left out."""
        with self._lock:
            if len(self._refusals) < _MOST_REFUSALS:
                self._refusals.append(refusal)

    def refusals(self) -> list[Refusal]:
        """Remove and return what the client has not been told of yet."""
        with self._lock:
            refusals, self._refusals = self._refusals, []
        return refusals


class LiveStreams:
    """The gRPC streams of a server's live sessions, one for each session at a time. Thread-safe."""

    def __init__(self, sessions: LiveSessions) -> None:
        self._sessions = sessions
        self._lock = threading.Lock()
        self._newest: dict[str, LiveStream] = {}

    @contextmanager
    def open(self, session: LiveSession, call: Call) -> Iterator[LiveStream]:
        """Give the ``with`` block a new stream of ``session``, which replaces the stream that the
        session has, if any. A context manager. ``call`` is the request whose answer the stream is.
        What the earlier stream has not taken is dropped: its client was not reached, or has
        gone."""
        stream = LiveStream(session, call)
        session.fill_outbox()
        outbox = session.outbox
        with self._lock:
            before = self._newest.get(session.id)
            self._newest[session.id] = stream
        if before is not None:
            before.replace()
            outbox.clear()
        self._sessions.attach(session)
        try:
            yield stream
        finally:
            self._sessions.detach(session)
            with self._lock:
                if self._newest.get(session.id) is stream:
                    del self._newest[session.id]
