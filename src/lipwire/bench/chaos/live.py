"""Live sessions among the clients: they speak, interrupt and vanish, and compare every frame and
all sound."""

import random
import threading
from pathlib import Path
from typing import Final

from lipwire.bench.chaos.cast import Cast, Role
from lipwire.bench.chaos.clients import Tally
from lipwire.bench.chaos.comparison import Comparison, Renderer
from lipwire.domain import SAMPLE_RATE_HZ, LipwireError, Overloaded
from lipwire.rpc.conversing import AvatarConnection, ConverseStream
from lipwire.session.live import (
    FramesDropped,
    LiveFrame,
    SessionSettings,
    Sound,
    SpeechEnded,
)

_INTERRUPTED: Final = 0.25
_VANISHING: Final = 0.15
"""Shares of the sessions; the others say all of a speech."""
_BEFORE: Final = 40
"""Frames after which a session is interrupted or left, at most."""
_SETTINGS: Final = SessionSettings(
    SAMPLE_RATE_HZ, gate=False, crossfade_frames=0, end_of_speech_timeout_s=60
)
"""No rest mouth is mixed in, and sound comes as it was sent, so that both can be compared; and a
busy machine does not make two pieces of speech of one, which sound and look different."""
_REFUSED_PAUSE_S: Final = 1.0
_SAYS_WHY_MS: Final = 2_000
"""Within that time a session has said why sound is missing."""


class LiveClients:
    """Threads that begin one live session after another, from ``start`` to ``stop``, let the avatar
    speak, and compare the frames and the sound that arrive with what the session has to send.
    Results, and errors too, are counted in the tally."""

    def __init__(
        self,
        address: str,
        cast: Cast,
        tally: Tally,
        *,
        count: int,
        seed: int,
    ) -> None:
        """``count`` clients begin sessions at the server at ``address`` (HOST:PORT), and count
        results in ``tally``. They use only those avatars of ``cast`` that have a single package.
        What they do is drawn from ``seed``."""
        self._address = address
        self._tally = tally
        self._speeches = cast.speeches
        self._roles = [role for role in cast.roles if len(role.looks) == 1]
        self._renderers: dict[Path, Renderer] = {}
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._threads = [
            threading.Thread(target=self._speak, args=(random.Random(f"live {seed} {number}"),))
            for number in range(count)
        ]

    def start(self) -> None:
        """Start the threads: each begins one session after another, until ``stop``. Returns at
        once. Call it once."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Make each thread end after the session that it has begun, and wait for all of them.
        Nothing is raised where sessions failed: those are in the tally."""
        self._stopped.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()
        for renderer in self._renderers.values():
            renderer.close()
        self._renderers.clear()

    def _speak(self, chance: random.Random) -> None:
        with AvatarConnection(self._address) as server:
            while not self._stopped.is_set():
                role = chance.choice(self._roles)
                try:
                    self._converse(server, role, chance)
                except Overloaded:
                    self._tally.count("session refused")
                    self._stopped.wait(_REFUSED_PAUSE_S)
                except Exception as error:
                    self._tally.error(f"a session of {role.name}: {error!r}")
                    self._stopped.wait(_REFUSED_PAUSE_S)

    def _converse(self, server: AvatarConnection, role: Role, chance: random.Random) -> None:
        number = chance.randrange(len(self._speeches))
        comparison = Comparison(self._renderer(role), number, self._speeches[number])
        draw, before = chance.random(), chance.randint(1, _BEFORE)
        session = server.converse(role.name, _SETTINGS)
        try:
            session.push(self._speeches[number], SAMPLE_RATE_HZ)
            session.end_of_speech()
            if draw < _VANISHING:
                self._listen(session, comparison, before, interrupt=False)
                session.leave()
                self._tally.count("session vanished")
            else:
                interrupt = draw < _VANISHING + _INTERRUPTED
                self._listen(
                    session, comparison, before if interrupt else None, interrupt=interrupt
                )
                self._tally.count("session interrupted" if interrupt else "session heard out")
        except LipwireError:
            session.leave()
            raise
        if draw >= _VANISHING:
            session.close()
        self._tally.session(role.name, comparison)

    def _listen(
        self,
        session: ConverseStream,
        comparison: Comparison,
        before: int | None,
        *,
        interrupt: bool,
    ) -> None:
        """Receive until the speech has ended; where ``before`` is given, interrupt it after so many
        frames of it, or return."""
        spoken = 0
        ended: SpeechEnded | None = None
        for received in session:
            if isinstance(received, LiveFrame):
                comparison.frame(received)
                spoken += received.speech > 0
                if ended is not None and received.at_ms >= ended.at_ms:  # not one that came late
                    if received.speech:
                        comparison.is_wrong("a frame speaks after its speech has ended")
                    if not comparison.has_gaps or received.at_ms >= ended.at_ms + _SAYS_WHY_MS:
                        return
                if before is not None and spoken == before:
                    if not interrupt:
                        return
                    session.interrupt()
                    before = None
            elif isinstance(received, Sound):
                comparison.sound(received)
            elif isinstance(received, FramesDropped):
                comparison.left_out(received)
            elif isinstance(received, SpeechEnded):
                ended = received
                comparison.ended(received.interrupted)
        raise RuntimeError("it ended before its speech did")

    def _renderer(self, role: Role) -> Renderer:
        package = role.looks[0].package
        with self._lock:
            if package not in self._renderers:
                self._renderers[package] = Renderer(package, role.windows)
            return self._renderers[package]
