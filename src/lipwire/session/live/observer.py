"""What is told of live sessions as it happens, for whoever measures a server."""

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from lipwire.domain.tracing import current_trace, span_passed
from lipwire.domain.versions import Chosen
from lipwire.session.live.dropped import DroppedFrames, Reason
from lipwire.session.live.events import Event, SpeechBegan, SpeechEnded

_UNSEEN: Final = 256
"""Pieces of work that are kept where nobody sees a picture."""


class SessionObserver:
    """Told what happens in live sessions, as it happens, by their threads; this one does nothing
    with it. Derive from it to count or measure. Methods are called from several threads at once,
    some while a session's lock is held: they have to be quick, must not call the session, and must
    not raise."""

    def of(self, chosen: Chosen) -> "SessionObserver":
        """Return the observer of a session that shows the avatar's version ``chosen``: this object,
        unless versions are to be told apart."""
        return self

    def first_frame(self, seconds: float) -> None:
        """Called once for each session: its first picture left ``seconds`` after the session was
        asked for."""

    def picture_left(self, seconds: float) -> None:
        """Called for each further picture of a paced session: it left ``seconds`` after the sound
        of its moment."""

    def composed(self, processor_s: float) -> None:
        """Called for each picture: it took ``processor_s`` seconds of a core to compose and encode
        it, and to hear and to send what came since the picture before."""

    def left_out(self, reason: Reason, count: int) -> None:
        """Called when a session has left out ``count`` more frames for ``reason``: "late", "pacing"
        or "unread" (see ``FramesDropped``)."""

    def failed(self, code: str) -> None:
        """Called when a session has ended with an error, whose ``code`` is the name of a gRPC
        status, as "UNAVAILABLE"."""


NO_OBSERVER: Final = SessionObserver()


class Observed:
    """One live session as its observer sees it: the session's threads say here what happens, and
    the observer is told of it. Pieces of speech become spans of the trace of the request that this
    is made for (``domain.tracing``), each from its first frame to its last.

    ``ticked`` and ``told`` are called with the session's lock held, ``showing`` by the one thread
    that composes for it, and ``working`` by any thread.
    """

    def __init__(
        self,
        observer: SessionObserver,
        clock: Callable[[], float],
        asked_s: float | None = None,
        *,
        processor_clock: Callable[[], float] = time.thread_time,
    ) -> None:
        """``clock`` gives seconds, and by it ``asked_s`` is when the session was asked for; None is
        now. ``processor_clock`` gives the seconds that a core has worked for the thread."""
        self.observer = observer
        """Who is told; another one from when it is set."""
        self._clock = clock
        self._processor_clock = processor_clock
        self._worked_s: deque[float] = deque(maxlen=_UNSEEN)
        self._asked_s: float | None = clock() if asked_s is None else asked_s
        self._sound_s = 0.0
        self._told: Counter[Reason] = Counter()
        self._trace = current_trace()
        self._spoken_from_ms = 0

    def ticked(self, now: float, events: Iterable[Event], dropped: DroppedFrames) -> None:
        """Note that the sound of a frame left at ``now``, in seconds of the clock, with ``events``:
        does what ``told`` does with these, and tells the observer of the frames that ``dropped``
        has counted since the last call."""
        self._sound_s = now
        self.told(events)
        if dropped.total != self._told.total():
            for reason, count in (dropped.of - self._told).items():
                self.observer.left_out(reason, count)
            self._told = dropped.of.copy()

    def told(self, events: Iterable[Event]) -> None:
        """Note that the client was told of ``events``: for a piece of speech that has ended, of
        which something was spoken, a span is recorded."""
        for event in events:
            if isinstance(event, SpeechBegan):
                self._spoken_from_ms = event.at_ms
            elif isinstance(event, SpeechEnded) and event.spoken_ms:
                span_passed(
                    "speech",
                    self._trace,
                    (event.at_ms - self._spoken_from_ms) / 1000,
                    spoken_ms=event.spoken_ms,
                    interrupted=event.interrupted,
                    left_out=self._told.total(),
                )

    @contextmanager
    def working(self) -> Iterator[None]:
        """Measure the processor time that the block takes in this thread; it counts as a part of
        the next picture, whose ``showing`` tells the observer of it (``composed``). A context
        manager; for any thread."""
        begun_s = self._processor_clock()
        yield
        self._worked_s.append(self._processor_clock() - begun_s)

    @contextmanager
    def showing(self, *, paced: bool) -> Iterator[None]:
        """Measure the block, which composes, encodes and sends a picture in this thread, and tell
        the observer how much processor time that took, together with what ``working`` has measured
        since the picture before, and how late the picture left. ``paced`` says that pictures leave
        each when its time has come; else lateness is told of the first one only. Where the block
        raises, nothing is told. A context manager."""
        begun_s = self._processor_clock()
        yield
        worked_s = self._processor_clock() - begun_s
        while self._worked_s:
            worked_s += self._worked_s.popleft()
        self.observer.composed(worked_s)
        now = self._clock()
        if self._asked_s is not None:
            self.observer.first_frame(now - self._asked_s)
            self._asked_s = None
        elif paced:
            self.observer.picture_left(now - self._sound_s)
