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
    """Called for what happens in live sessions, as it happens, by their threads; this class does
    nothing with the calls. Derive from it to count or measure. Methods are called from several
    threads at once, some while a session's lock is held: they have to be quick, must not call the
    session, and must not raise."""

    def of(self, chosen: Chosen) -> "SessionObserver":
        """Return the observer for a session that shows ``chosen``, a version of an avatar. This
        object itself, here; a subclass that tells versions apart returns another one."""
        return self

    def first_frame(self, seconds: float) -> None:
        """Called once for each session: its first picture left ``seconds`` after the session was
        asked for."""

    def picture_left(self, seconds: float) -> None:
        """Called for each further picture of a session whose pictures leave at their time, one each
        40 ms (``SessionSettings.paced``): it left ``seconds`` after the sound of the same frame."""

    def composed(self, processor_s: float) -> None:
        """Called for each picture. ``processor_s`` is how many seconds of one core it took to
        compose, encode and send the picture and to hear the speech that arrived since the picture
        before."""

    def left_out(self, reason: Reason, count: int) -> None:
        """Called when a session has left out ``count`` more frames for ``reason``: "late" (a mouth
        was not made in time), "pacing" (the machine was too busy to compose) or "unread" (the
        client had not taken the frames before)."""

    def failed(self, code: str) -> None:
        """Called when a session has ended with an error. ``code`` is the name of a gRPC status,
        such as "UNAVAILABLE"."""


NO_OBSERVER: Final = SessionObserver()


class Observed:
    """One live session as its observer sees it: the session's threads report here what happens, and
    this object calls the observer. Each piece of speech becomes a span, from its first frame to its
    last, of the trace of the request during which this object was made
    (``lipwire.domain.tracing``).

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
        """``clock`` gives seconds; ``asked_s`` is when the session was asked for, by that clock
        (None: now). ``processor_clock`` gives the processor time of the calling thread, in
        seconds."""
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
        calls ``told`` with these events, and reports to the observer the frames that ``dropped``
        has counted since the last call."""
        self._sound_s = now
        self.told(events)
        if dropped.total != self._told.total():
            for reason, count in (dropped.of - self._told).items():
                self.observer.left_out(reason, count)
            self._told = dropped.of.copy()

    def told(self, events: Iterable[Event]) -> None:
        """Note that the client was sent ``events``. For each piece of speech that has ended and of
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
        """Return a context manager that measures the processor time of its block in this thread.
        That time counts as part of the next picture: the ``showing`` of that picture reports it to
        the observer (``composed``). For any thread."""
        begun_s = self._processor_clock()
        yield
        self._worked_s.append(self._processor_clock() - begun_s)

    @contextmanager
    def showing(self, *, paced: bool) -> Iterator[None]:
        """Return a context manager whose block composes, encodes and sends one picture in this
        thread. Afterwards the observer is told how much processor time that took, together with
        what ``working`` has measured since the picture before, and how late the picture left.
        ``paced`` says that each picture leaves when its time has come; without it, only the
        lateness of the first picture is reported. Where the block raises, nothing is reported."""
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
