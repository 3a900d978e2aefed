"""The speech of a live session that has come and is not over: piece by piece, in order."""

from collections import deque
from collections.abc import Iterator
from typing import Final

from lipwire.domain import InvalidInput
from lipwire.session.live.hearing import Heard, SpeechPiece, joined
from lipwire.session.live.settings import SessionSettings
from lipwire.session.live.spoken import Speech

_HEARD_AHEAD_FRAMES: Final = 50
"""So much speech is heard ahead of what is shown; a window is 32 KB."""


class SpeechQueue:
    """The pieces of speech of one session that are not over, in their order; iterable, and
    ``len()`` is their number. The first is being spoken, or is next. Not thread-safe: its owner
    calls it under the session's lock."""

    def __init__(self, settings: SessionSettings) -> None:
        self._settings: Final = settings
        self._all: deque[Speech] = deque()
        self._numbers = 0
        self._sequence: int | None = None

    def __len__(self) -> int:
        """How many pieces of speech there are."""
        return len(self._all)

    def __iter__(self) -> Iterator[Speech]:
        """Give them in their order."""
        return iter(self._all)

    @property
    def first(self) -> Speech | None:
        """The piece of speech that is spoken now or is next; None where there is none."""
        return self._all[0] if self._all else None

    def before(self, speech: Speech) -> Speech | None:
        """Return the piece of speech before ``speech`` in the queue, None where ``speech`` is the
        first. Raises ValueError where ``speech`` is not in the queue."""
        index = self._all.index(speech)
        return self._all[index - 1] if index else None

    @property
    def buffered_s(self) -> float:
        """Seconds of speech that have come and are not spoken yet."""
        rate = self._settings.sound_rate_hz
        return sum(max(0.0, speech.come_s - speech.spoken_samples / rate) for speech in self._all)

    @property
    def has_room(self) -> bool:
        """Whether more audio may be pushed: whether less than the settings'
        ``max_buffered_speech_s`` waits to be spoken."""
        return self.buffered_s < self._settings.max_buffered_speech_s

    def push(self, piece: SpeechPiece, now: float, sequence: int | None, *, dropped: bool) -> None:
        """Add ``piece``, audio that came at time ``now`` (seconds of the session's clock): to the
        last piece of speech, or as a new one where that has ended or there is none. Empty audio
        adds nothing.

        ``sequence`` is its number among all audio of the session, each one more than the one
        before; None where the sender does not count. With ``dropped`` only the number is noted, and
        the audio is not spoken. Raises InvalidInput where ``sequence`` is not the next number.
        """
        if sequence is not None:
            expected = sequence if self._sequence is None else self._sequence + 1
            if sequence != expected:
                raise InvalidInput(f"audio number {sequence}; expected is {expected}")
            self._sequence = sequence
        if dropped or not len(piece.pcm):
            return
        last = self._all[-1] if self._all else None
        if last is None or last.ended:
            self._numbers += 1
            last = Speech(self._numbers)
            self._all.append(last)
        last.came(piece, now)

    def end_last(self) -> None:
        """Mark the last piece of speech as complete, so that audio that follows begins another.
        Does nothing where there is none, or where it is marked already."""
        if self._all:
            self._all[-1].ended = True

    def check(self, now: float) -> None:
        """End the last piece of speech where no audio of it has come for
        ``end_of_speech_timeout_s`` at time ``now`` (seconds of the session's clock), because the
        client may have forgotten to end it. Time in which ``has_room`` is false does not count."""
        if self._all:
            last = self._all[-1]
            if not self.has_room:
                last.waited_s = now
            if now - last.waited_s >= self._settings.end_of_speech_timeout_s:
                last.ended = True

    def next_to_hear(self, position: int) -> tuple[Speech, SpeechPiece | None, bool] | None:
        """Take the audio that is to be worked on next out of its piece of speech, and return (the
        piece of speech, the audio, whether the piece of speech ends with it). The caller makes of
        it what the network hears of each frame (windows) and the sound for listeners, with the
        ``SpeechReader`` of that piece of speech, and gives both to ``heard``. The audio is None
        where all of it was returned before and the piece of speech has ended since.

        Returns None, in place of the three, where there is nothing to do now: no audio is left, or
        the windows of the next 50 frames are made already. ``position`` is the number of the
        avatar's frame that is shown next, counted on past its last: it tells how much was shown.
        """
        for speech in self._all:
            shown = 0 if speech.begins is None else max(0, position - speech.begins)
            if speech.total is None and speech.heard - shown >= _HEARD_AHEAD_FRAMES:
                return None
            if speech.incoming:
                piece = joined(speech.incoming)
                return speech, piece, speech.ended and not speech.incoming
            if speech.ended and speech.total is None:
                return speech, None, True
        return None

    def heard(self, speech: Speech, heard: Heard, *, last: bool) -> None:
        """Add ``heard``, the windows and sound made of the audio that ``next_to_hear`` returned, to
        ``speech``, the piece of speech returned with it. ``last`` says that nothing of ``speech``
        follows. Ignored where ``speech`` is not in the queue any more."""
        if speech in self._all:
            speech.take_in(heard)
            if last:
                speech.total = speech.heard

    def remove_first(self) -> None:
        """Remove the first piece of speech, once it is over. Raises IndexError where there is
        none."""
        self._all.popleft()

    def clear(self) -> None:
        """Remove all pieces of speech, spoken or not. The numbers of later ones go on."""
        self._all.clear()
