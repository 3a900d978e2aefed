"""A client's live session that goes on on another server when its own stops.

    told that the server stops ──▶ begin another session ──▶ at rest, at the end of a piece of
       ▲      └──refused──▶ try again, while there is time     speech, or when time runs out:
       └──────────── say there what was not said ◀── show it instead ◀──┘

The other server is found at the same address: a load balancer sends new sessions to servers that
stay. Whoever iterates sees one session: times, frames and numbers of speech go on.
"""

import dataclasses
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from lipwire.domain import Cancelled, Float32Array, LipwireError, Overloaded, Unavailable
from lipwire.domain.closing import Closing
from lipwire.rpc.conversing import ConverseStream
from lipwire.rpc.received import Ended, Received, Refused, int16_of
from lipwire.rpc.unsaid import Audio, EndOfSpeech, Given, Text, Unsaid
from lipwire.session.live import (
    FRAME_MS,
    GoingAway,
    LiveFrame,
    SessionSettings,
    Sound,
    SpeechBegan,
    SpeechEnded,
    State,
    StateChanged,
)

_STEP_S: Final = 0.5
"""Audio is sent in pieces of this length, so that little is sent twice."""
_BEFORE_END_S: Final = 4.0
"""So long before the server stops, a session that still speaks is broken off to go on elsewhere."""
_BEGUN_WITHIN_S: Final = 5.0
"""So long the end of the session waits for another one that is being begun."""
_BETWEEN_S: Final = 0.5
"""So long what follows a piece of speech is waited with for the session to be moved."""
_AGAIN_S: Final = 0.5
"""How long is waited where no other server takes the session."""
_SPEAKING: Final = (State.SPEAKING, State.INTERRUPTED)

Begin = Callable[[str, SessionSettings], ConverseStream]
"""Begins a session with an avatar."""


class MovingStream(Closing):
    """The client's side of a live session that goes on elsewhere when its server stops. A context
    manager, which ends the session; iterating gives what the servers send, as of one session:
    ``LiveFrame``, ``Sound``, events, ``Refused``, and ``Ended`` at last. Made by
    ``AvatarConnection.converse_anywhere``.

    One thread iterates, while others may call the methods. Those that tell the server something do
    not wait for its effect, except where they say so, but wait while the session is being moved;
    they raise Cancelled once it has ended.

    Where no other server accepts it, the session goes on where it is, to its end, and iterating
    raises the error that it ends with.
    """

    def __init__(
        self,
        begin: Begin,
        model_id: str,
        settings: SessionSettings,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin a session with avatar ``model_id`` by ``begin(model_id, settings)``, which returns
        the stream of a new session, and is called again for each move. ``settings`` say how the
        sessions are to behave. ``clock`` gives seconds. Raises the error with which the server
        refuses the session."""
        self._begin = begin
        self._avatars = [model_id]
        """Those that were asked for, the latest last."""
        self._settings = settings
        self._clock = clock
        self._stream = self._old = begin(model_id, settings)
        self._order = threading.Lock()
        """Who has it sends; what is said again goes before what is said then."""
        self._changed = threading.Condition()
        self._switching = self._over = False
        self._unsaid = Unsaid()
        self._texts = 0
        """How many texts were sent on the connection that is used now."""
        self._interrupts = 0
        self._listening = False
        self._state = self._stream.state
        self._ends_s = math.inf
        self._mover: threading.Thread | None = None
        self._iterator: Iterator[Received] = iter(self._stream)
        self._following = self._between = False
        """Whether there is a session elsewhere that can be shown; and whether it is to be, as a
        piece of speech has ended."""
        self._frames = self._speech = 0
        """How many frames and pieces of speech there were in sessions before."""
        self._next_frame, self._last_speech = 0, 0
        self._position = settings.start_frame - 1
        self._broken_off: SpeechEnded | None = None
        self.moves = 0
        """How often the session went to another server."""

    @property
    def id(self) -> str:
        """The id of the session as it is now; another one after each move. Whoever has it can take
        part in the session: keep it secret."""
        return self._stream.id

    @property
    def width(self) -> int:
        """Width of the frames, in pixels, of the session as it is now."""
        return self._stream.width

    @property
    def height(self) -> int:
        """Height of the frames, in pixels, of the session as it is now."""
        return self._stream.height

    @property
    def frame_format(self) -> str:
        """ "jpeg", or "bgr24": height x width x 3 bytes."""
        return self._stream.frame_format

    @property
    def sound_rate_hz(self) -> int:
        """Sampling rate of the sound that is received, in Hz."""
        return self._stream.sound_rate_hz

    def push(self, pcm: Float32Array | npt.NDArray[np.int16], rate_hz: int) -> None:
        """Send ``pcm``, audio to be spoken, of any length: (n,) or (n, channels), int16 or float32
        in [-1, 1], at ``rate_hz``. What is not said yet when the session is moved is said on the
        server where it goes on.

        Waits while the server takes no more; what was not sent when ``interrupt`` is called is
        dropped. Raises InvalidInput where ``pcm`` is not such audio or holds NaN or infinity,
        Cancelled once the session has ended. Where the server does not accept the rate or the
        number of channels, a ``Refused`` comes when iterating.
        """
        samples = int16_of(pcm)
        with self._changed:
            interrupts = self._interrupts
        step = max(1, round(rate_hz * _STEP_S))
        for first in range(0, len(samples), step):
            audio = Audio(samples[first : first + step], rate_hz)
            if not self._give(audio, interrupts):
                return

    def end_of_speech(self) -> None:
        """Tell the server that all audio of this piece of speech was sent: it is spoken to its end,
        and audio that follows begins another."""
        self._give(EndOfSpeech())

    def say(self, text: str) -> None:
        """Have the server's voice say ``text``, after the texts before it. Where it cannot be said,
        a ``Refused`` comes when iterating."""
        self._give(Text(text))

    def interrupt(self) -> None:
        """Drop all speech and texts that were sent, also what is being said. Waits until the server
        has done so, 5 s at most, and again for the next server where the session is moved
        meanwhile. Raises Cancelled once the session has ended, DeadlineExceeded where it takes
        longer, NotFound where the server has no such session any more, Overloaded where it is too
        busy, Unavailable where it cannot be reached or is stopping, and Unauthenticated or
        PermissionDenied where it does not allow the caller to do so."""
        with self._changed:
            self._interrupts += 1
            self._unsaid.drop()
            stream, again = self._stream, self._switching
        try:
            stream.interrupt()  # whoever sends waits no more
        except LipwireError:
            with self._changed:
                if self._stream is stream or self._over:
                    raise
                again = True  # it was moved meanwhile
        if again:
            with self._order:  # what was being said again may have come behind that
                self._stream.interrupt()

    def listen(self, listening: bool) -> None:
        """Tell the server whether somebody speaks to the avatar now (``listening``); the session's
        state shows it, and nothing else."""
        self._listening = listening
        self._tell(lambda stream: stream.listen(listening))

    def change_avatar(self, model_id: str) -> None:
        """Ask the server to show the avatar ``model_id`` as soon as nobody speaks. Where it cannot,
        a ``Refused`` comes when iterating."""
        self._avatars.append(model_id)
        self._tell(lambda stream: stream.change_avatar(model_id))

    def keep_alive(self) -> None:
        """Tell the server that the session is wanted though nothing is said, so that it does not
        end as idle."""
        self._tell(lambda stream: stream.keep_alive())

    def end(self) -> None:
        """Ask the server to end the session and drop its speech, waiting 5 s at most for the speech
        to be dropped. What the server sends until the end can still be received by iterating.
        Raises nothing."""
        with self._changed:
            self._over = True
            self._changed.notify_all()
        self._stream.end()

    def close(self) -> None:
        """End the session, and receive nothing more. Closing twice is allowed."""
        with self._changed:
            self._over = True
            self._changed.notify_all()
        self._stream.close()
        if self._mover is not None:
            self._mover.join(_BEGUN_WITHIN_S)
            self._stream.close()  # where it was moved meanwhile

    def __iter__(self) -> Iterator[Received]:
        """Yield what the servers send, as one session whose times and numbers go on over moves,
        until the session ends. Raises the error that it ends with, if any, and Unavailable where
        the connection breaks."""
        while True:
            with self._changed:
                stream, iterator = self._stream, self._iterator
            try:
                for received in iterator:
                    told = self._taken(stream, received)
                    if told is None:
                        break  # it is shown no more
                    yield told
                    if isinstance(told, Ended):
                        return
            except LipwireError:
                if self._stream is stream:
                    raise
            with self._changed:
                if self._stream is stream:
                    return
                broken_off, self._broken_off = self._broken_off, None
            if broken_off is not None:
                yield broken_off

    # -- what is received --------------------------------------------------------------------------

    def _taken(self, stream: ConverseStream, received: Received) -> Received | None:
        """``received`` with the times of the whole session; None where ``stream`` is no longer the
        one that is shown."""
        with self._changed:
            if self._between:
                # The piece that follows is to begin elsewhere, in a moment.
                self._changed.wait_for(lambda: not self._between or self._over, _BETWEEN_S)
                self._between = False
            if stream is not self._stream:
                return None
            match received:
                case GoingAway(left_s=left_s):
                    self._ends_s = self._clock() + left_s
                    self._move()
                case StateChanged(state=state):
                    self._state = state
                case Refused(message="say", number=number):
                    self._unsaid.drop_text(number)
                case LiveFrame(position=position):
                    self._position = position
            told = self._shifted(received)
            if isinstance(told, LiveFrame | Sound):
                self._next_frame = max(self._next_frame, told.frame + 1)
            if isinstance(told, SpeechBegan):
                self._last_speech = told.speech
            self._unsaid.take(told)
            self._between = self._following and isinstance(told, SpeechEnded)
            self._changed.notify_all()
            return told

    def _shifted(self, received: Received) -> Received:
        changes: dict[str, Any] = {}
        if isinstance(received, LiveFrame | Sound):
            changes["frame"] = received.frame + self._frames
        elif not isinstance(received, Refused | Ended):
            changes["at_ms"] = received.at_ms + self._frames * FRAME_MS
        if speech := getattr(received, "speech", 0):
            changes["speech"] = speech + self._speech
        return dataclasses.replace(received, **changes) if self.moves else received

    # -- what is sent ------------------------------------------------------------------------------

    def _give(self, given: Given, interrupts: int | None = None) -> bool:
        """Send ``given``; False where there were other than so many interrupts. Raises Cancelled
        once the session has ended."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: not self._switching or self._over)
            with self._order:
                with self._changed:
                    if self._switching and not self._over:
                        continue
                    if interrupts not in (None, self._interrupts):
                        return False
                    stream = self._stream
                    if isinstance(given, Text):
                        self._texts += 1
                        given = Text(given.text, self._texts)
                    self._unsaid.give(given)
                try:
                    _send(stream, given)
                except Cancelled:
                    with self._changed:
                        if self._over or not (self._switching or self._stream is not stream):
                            raise
                return True  # or it is said where the session goes on

    def _tell(self, tell: Callable[[ConverseStream], object]) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: not self._switching or self._over)
                stream = self._stream
            try:
                tell(stream)
                return
            except Cancelled:
                if self._over or self._stream is stream:
                    raise

    # -- moving ------------------------------------------------------------------------------------

    def _move(self) -> None:
        """Begin to move, unless that was begun. The lock is held."""
        if self._mover is None or not self._mover.is_alive():
            self._mover = threading.Thread(target=self._moving, name="lipwire-moving", daemon=True)
            self._mover.start()

    def _moving(self) -> None:
        while True:
            with self._changed:
                if self._over or self._clock() >= self._ends_s:
                    return
            try:
                following = self._begun()
                break
            except (Unavailable, Overloaded):
                with self._changed:
                    self._changed.wait_for(lambda: self._over, _AGAIN_S)
            except LipwireError:
                return  # it goes on here, to its end
        try:
            moved = self._shown(following)
        except LipwireError:  # it stops, too, or was cut off
            moved = False
        if moved:
            self._say_again(following)
        else:
            following.close()

    def _shown(self, following: ConverseStream) -> bool:
        """Show ``following`` when it may be; False where the session ends before."""
        iterator = iter(following)
        if not self._settings.paced:  # nothing comes of it at rest
            with self._changed:
                self._following = True
                self._changed.wait_for(lambda: self._over or self._leaves())
                return self._swap(following, iterator, 0)
        # Its clock runs while what is said here is said to its end.
        for received in iterator:
            if isinstance(received, LiveFrame):
                with self._changed:
                    self._following = True
                    if self._over or self._leaves():
                        return self._swap(following, iterator, received.frame + 1)
        return False

    def _leaves(self) -> bool:
        """Whether it may go elsewhere now. The lock is held."""
        in_time = self._clock() < self._ends_s - _BEFORE_END_S
        return self._between or self._state not in _SPEAKING or not in_time

    def _begun(self) -> ConverseStream:
        """Another session, with the avatar as it stands now."""
        settings = dataclasses.replace(self._settings, start_frame=max(0, self._position + 1))
        *before, latest = self._avatars
        try:
            return self._begin(latest, settings)
        except (Unavailable, Overloaded):
            raise
        except LipwireError:  # the server had refused it, perhaps
            if not before:
                raise
            return self._begin(before[-1], settings)

    def _swap(self, following: ConverseStream, iterator: Iterator[Received], frames: int) -> bool:
        """Show ``following`` from now on, of which ``iterator`` gives what comes after so many
        ``frames``; False where the session has ended. The lock is held."""
        self._following = self._between = False
        if self._over:
            return False
        self._old, self._stream, self._switching = self._stream, following, True
        self._iterator = iterator
        self._break_off()
        self._frames, self._speech = self._next_frame - frames, self._last_speech
        self._state, self._ends_s = following.state, math.inf
        self.moves += 1
        self._changed.notify_all()
        return True

    def _say_again(self, following: ConverseStream) -> None:
        self._old.close()  # whoever waits for room there waits no more
        with self._order:
            with self._changed:
                self._unsaid.count_texts_anew()
                self._texts = 0
                again, interrupts = tuple(self._unsaid), self._interrupts
            with suppress(Cancelled):
                if self._listening:
                    following.listen(True)
                for given in again:
                    with self._changed:
                        if self._over or self._interrupts != interrupts:
                            break
                        if isinstance(given, Text):
                            self._texts = given.number
                    _send(following, given)
            with self._changed:
                self._switching = False
                self._changed.notify_all()

    def _break_off(self) -> None:
        """What is being said ends here, as far as is shown, and goes on elsewhere."""
        at_ms = self._next_frame * FRAME_MS
        spoken_ms = self._unsaid.break_off(at_ms)
        if spoken_ms is not None:
            self._broken_off = SpeechEnded(at_ms, self._last_speech, round(spoken_ms), False, 0)


def _send(stream: ConverseStream, given: Given) -> None:
    match given:
        case Audio(samples=samples, rate_hz=rate_hz):
            stream.push(samples, rate_hz)
        case Text(text=text):
            stream.say(text)
        case EndOfSpeech():
            stream.end_of_speech()
