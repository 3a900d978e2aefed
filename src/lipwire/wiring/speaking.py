"""Texts that live sessions say: a voice makes sound of them, which is pushed as if a client had."""

import logging
import threading
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from typing import Final

from lipwire.config import CompositingConfig
from lipwire.domain import (
    Cancelled,
    DeadlineExceeded,
    LipwireError,
    Overloaded,
    Tell,
    Unavailable,
)
from lipwire.domain.closing import Closing
from lipwire.session.live import LiveSession
from lipwire.speech import SpokenPiece, Voice, open_voice

_LOG: Final = logging.getLogger(__name__)
MOST_TEXTS: Final = 8
"""Texts of a session that wait while one is said; further ones are refused."""
_STEP_S: Final = 0.5
"""How much sound is pushed at a time."""
_LOOK_EVERY_S: Final = 0.25
"""While a session has no room for more, how often it is looked whether it is still wanted."""
_RETRY_AFTER_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class _Text:
    sound: Generator[SpokenPiece, None, None]
    interrupts: int
    """How many interrupts had arrived in its session before it."""


class Speaking(Closing):
    """Has live sessions say texts with ``voice``: ``speaking(session, text)`` adds a text to those
    that the session is to say, in order, and returns at once. It raises InvalidInput where there is
    nothing to say, or too much, Overloaded where 8 texts of the session wait, and Unavailable once
    closed; what fails later is logged. Thread-safe; a context manager.

    When a session is interrupted, the text that is being said and those that wait are dropped;
    texts that are added afterwards are said. A session that says something uses one of the threads.
    """

    def __init__(self, voice: Voice, threads: Executor) -> None:
        """``threads`` are closed with it."""
        self.voice: Final = voice
        """What says texts."""
        self._threads = threads
        self._lock = threading.Lock()
        self._waiting: dict[str, deque[_Text]] = {}
        """Of the sessions that say something, by their ids."""
        self._prepared: Future[None] | None = None
        self._closed = threading.Event()

    def __call__(self, session: LiveSession, text: str) -> None:
        """Have ``session`` say ``text`` behind the texts before it; does not wait for that.

        Raises InvalidInput where there is nothing to say, or too much, Overloaded where 8 texts
        wait, and Unavailable once closed.
        """
        said = _Text(self.voice.say(text), session.interrupts)
        with self._lock:
            if self._closed.is_set():
                raise Unavailable("the server is shutting down; ask another one")
            waiting = self._waiting.get(session.id)
            if waiting is not None:
                _drop_interrupted(waiting, said.interrupts)
                if len(waiting) >= MOST_TEXTS:
                    raise Overloaded(
                        f"{len(waiting)} texts wait to be said; allowed are {MOST_TEXTS}",
                        retry_after_s=_RETRY_AFTER_S,
                    )
                waiting.append(said)
                return
            self._waiting[session.id] = deque([said])
        self._submit(session)

    def prepare(self) -> None:
        """Load the voice in another thread, so that the first text is said sooner. Returns at once;
        a voice that cannot be loaded is logged. Does nothing on later calls, or once closed."""
        with self._lock:
            if self._prepared is None and not self._closed.is_set():
                self._prepared = self._threads.submit(self._prepare)

    def wait_prepared(self, timeout_s: float) -> None:
        """Wait until the voice is loaded, or it turned out that it cannot be, at most ``timeout_s``
        seconds; which of the three it was is not said. Returns at once where ``prepare`` was not
        called."""
        if self._prepared is not None:
            wait([self._prepared], timeout_s)

    def close(self) -> None:
        """Stop saying texts, drop those that wait, and wait until the threads have ended. Sessions
        go on, and sound that they were given already is still heard."""
        with self._lock:
            self._closed.set()
            for waiting in self._waiting.values():
                waiting.clear()
        self._threads.shutdown(wait=True)

    def _submit(self, session: LiveSession) -> None:
        try:
            self._threads.submit(self._work, session)
        except RuntimeError:
            raise Unavailable("the server is shutting down; ask another one") from None

    def _prepare(self) -> None:
        try:
            self.voice.prepare()
        except LipwireError as error:
            _LOG.warning("the voice %s cannot be used: %s", self.voice.name, error)
        except Exception:
            _LOG.exception("the voice %s cannot be used", self.voice.name)

    def _work(self, session: LiveSession) -> None:
        """Say the texts of ``session`` until there are none."""
        while (text := self._next(session)) is not None:
            try:
                self._say(session, text)
            except Cancelled:
                continue  # the session has ended
            except LipwireError as error:
                _LOG.warning("a text was not said to its end: %s", error)
            except Exception:
                _LOG.exception("a text was not said to its end")

    def _next(self, session: LiveSession) -> _Text | None:
        with self._lock:
            waiting = self._waiting[session.id]
            if session.closed:
                waiting.clear()
            _drop_interrupted(waiting, session.interrupts)
            if waiting:
                return waiting.popleft()
            del self._waiting[session.id]
            return None

    def _say(self, session: LiveSession, text: _Text) -> None:
        try:
            with closing(text.sound) as pieces:
                for piece in pieces:
                    if not self._push(session, piece, text.interrupts):
                        return
        finally:
            with suppress(Cancelled):  # the session has ended
                session.end_of_speech(after_interrupts=text.interrupts)

    def _push(self, session: LiveSession, piece: SpokenPiece, interrupts: int) -> bool:
        """Push a piece when there is room; whether more is wanted."""
        step = max(1, round(piece.rate_hz * _STEP_S))
        for first in range(0, len(piece.pcm), step):
            while True:
                if self._closed.is_set() or session.interrupts != interrupts:
                    return False
                try:
                    session.push(
                        piece.pcm[first : first + step],
                        piece.rate_hz,
                        after_interrupts=interrupts,
                        caption="" if first else piece.text,
                        timeout_s=_LOOK_EVERY_S,
                    )
                except DeadlineExceeded:
                    continue
                break
        return True


def _drop_interrupted(waiting: deque[_Text], interrupts: int) -> None:
    while waiting and waiting[0].interrupts != interrupts:
        waiting.popleft()


@contextmanager
def open_speaking(config: CompositingConfig, *, tell: Tell) -> Iterator[Speaking | None]:
    """Give the ``with`` block a ``Speaking``, with which live sessions say texts in the voice that
    ``config`` names, and close it afterwards; None where there is no voice. A context manager.
    ``tell(heading, facts)`` is called, for people who start the server, with the voice's name.
    Raises DependencyMissing where the voice that ``config`` asks for is not installed, InvalidInput
    where its settings are not usable, Unavailable where its program does not run."""
    voice = open_voice(config.speech)
    if voice is None:
        yield None
        return
    tell("Voice", {"Texts are said by": voice.name})
    threads = ThreadPoolExecutor(config.live.max_sessions, thread_name_prefix="lipwire-speaking")
    with Speaking(voice, threads) as speaking:
        yield speaking
