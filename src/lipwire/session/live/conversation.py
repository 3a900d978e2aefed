"""What a live session shows and says at each moment. No threads, no I/O, no clock of its own.

    push ─▶ speech that waits ─▶ heard: windows and sound ─▶ frames to make ─▶ made: mouths
                                                                                  │
    tick, every 40 ms: the sound of one frame, and its picture ◀──────────────────┘

Whoever drives it hears the speech (``next_speech``, ``heard``) and has mouths made
(``next_frames``, ``made``) meanwhile, in other threads; every method is called under one lock.

*Frames* count on the session's clock, one each 40 ms; frame *n* is due ``n * 40 ms`` after the
start. *Positions* are frames of the avatar. They go on with the frames, but wait for the first
mouth of a piece of speech where it takes longer than was expected: the mouths that are being made
for the positions behind it stay right. A piece of speech begins at a position, and its frame *k* is
shown at that position plus *k*. Sound never waits for a mouth: a frame whose mouth is late is left
out. It does wait for audio that has not come yet; the avatar rests then.
"""

import math
from typing import Final

import numpy as np

from lipwire.domain import Cancelled, Mouths
from lipwire.session.live.crossfade import Crossfade
from lipwire.session.live.dropped import DroppedFrames
from lipwire.session.live.events import (
    Caption,
    Event,
    Picture,
    Sound,
    SpeechBegan,
    SpeechEnded,
    StateChanged,
    Tick,
)
from lipwire.session.live.framegrid import FrameGrid
from lipwire.session.live.hearing import Heard, SpeechPiece
from lipwire.session.live.planning import MOST_WAITED_FRAMES, Planning, Work
from lipwire.session.live.settings import FRAME_MS, SessionSettings
from lipwire.session.live.speechqueue import SpeechQueue
from lipwire.session.live.spoken import Speech
from lipwire.session.live.states import State, Trigger, after

_REST_AHEAD_FRAMES: Final = 25
"""Mouths at rest are made for so many frames ahead."""

_EARLY_S: Final = 0.005
"""Speech begins no more than so much before its frames can follow in time."""


class Conversation:
    """What one live session shows and says, without threads or clock. ``settings`` say how it
    behaves: where ``settings.paced`` is true a frame leaves each 40 ms, else when it is made. Its
    owner calls every method under one lock, with the time in seconds of the session's clock; makes,
    in other threads, what ``next_speech`` and ``next_frames`` return; calls ``start`` once, and
    ``tick`` whenever ``can_tick`` is true; and sends what that returns."""

    def __init__(self, settings: SessionSettings) -> None:
        self.settings: Final = settings
        self.state = State.IDLE
        self.frame = 0
        """The next frame to leave."""
        self.position = settings.start_frame
        """The position of that frame."""
        self._grid = FrameGrid()
        self._speeches = SpeechQueue(settings)
        self._listening = False
        self._planning = Planning(settings)
        self._crossfade = Crossfade(settings.crossfade_frames)
        self._events: list[Event] = []
        self.dropped: Final = DroppedFrames()
        """Those that were left out; whoever leaves out a picture of a ``Tick`` adds it."""
        self._silence = np.zeros(settings.frame_samples, np.float32)

    # -- the client --------------------------------------------------------------------------------

    @property
    def buffered_s(self) -> float:
        """Seconds of speech that have come and are not spoken yet."""
        return self._speeches.buffered_s

    @property
    def has_room(self) -> bool:
        """Whether less than ``settings.max_buffered_speech_s`` seconds wait to be spoken. ``push``
        does not check this."""
        return self._speeches.has_room

    @property
    def silent(self) -> bool:
        """Whether there is no speech of the avatar, neither spoken nor waiting."""
        return not self._speeches

    @property
    def at_rest(self) -> bool:
        """Whether there is no speech, and the last frame showed only the mouth at rest."""
        return not self._speeches and self._crossfade.closed

    def push(
        self,
        piece: SpeechPiece,
        now: float,
        sequence: int | None = None,
        *,
        dropped: bool = False,
    ) -> None:
        """Add ``piece``, audio that came at time ``now``, in seconds of the session's clock. It
        continues the last piece of speech, or begins a new one where that has ended or there is
        none. ``sequence`` is its number among all audio of the session, each one more than the one
        before; None where the sender does not count. With ``dropped`` only the number is noted, and
        the audio is not spoken. Raises InvalidInput where ``sequence`` is not the next number, and
        Cancelled once the session is closed."""
        self._check_open()
        self._speeches.push(piece, now, sequence, dropped=dropped)

    def end_of_speech(self) -> None:
        """Mark the piece of speech that was pushed last as complete: no more audio comes for it.
        Does nothing where it has ended or there is none. Raises Cancelled once closed."""
        self._check_open()
        self._speeches.end_last()

    def interrupt(self) -> None:
        """Drop all speech, spoken or waiting: the next frame says nothing of it, and the mouth
        closes within ``settings.crossfade_frames`` frames (at once where frames are not paced).
        Raises Cancelled once the session is closed."""
        self._check_open()
        self.state = after(self.state, Trigger.INTERRUPT)
        for speech in self._speeches:
            self._told_end(speech, interrupted=True)
        if self.state is State.INTERRUPTED:
            spoken = self._speeches.first
            self._tell_state(0 if spoken is None else spoken.number)
        self._speeches.clear()
        if not self.settings.paced:  # no frame follows
            self._crossfade.reset()
            if self.state is State.INTERRUPTED:
                self._mouth_closed()

    def listen(self, listening: bool) -> None:
        """Set whether somebody speaks to the avatar now (``listening``), which makes an idle
        session a listening one. Raises Cancelled once the session is closed."""
        self._check_open()
        before = self.state
        self.state = after(self.state, Trigger.LISTEN if listening else Trigger.REST)
        self._listening = listening
        if self.state is not before:
            self._tell_state(0)

    def close(self) -> None:
        """End the session, dropping its speech; ``last_events`` then returns the events of that.
        Closing twice is allowed."""
        for speech in self._speeches:
            self._told_end(speech, interrupted=True)
        self._speeches.clear()
        if self.state is not State.CLOSED:
            self.state = after(self.state, Trigger.CLOSE)
            self._events += self.dropped.all_untold(self.frame)
            self._tell_state(0)

    # -- who works ---------------------------------------------------------------------------------

    def next_speech(self) -> tuple[Speech, SpeechPiece | None, bool] | None:
        """Remove and return the next audio to be worked on: (its piece of speech, the audio,
        whether the piece of speech ends with it). The audio is None where only the end is left.
        Returns None alone where there is nothing to do now. Make windows (what the network hears)
        and sound of the audio (``SpeechReader``), and call ``heard``."""
        return self._speeches.next_to_hear(self.position)

    def heard(self, speech: Speech, heard: Heard, last: bool) -> None:
        """Add ``heard``, the windows and sound that were made of the audio of ``speech``, which
        ``next_speech`` returned. ``last`` says that nothing of that piece of speech follows. Does
        nothing where ``speech`` was interrupted meanwhile."""
        self._speeches.heard(speech, heard, last=last)

    def check(self, now: float) -> None:
        """End the last piece of speech where no audio of it has come for
        ``settings.end_of_speech_timeout_s`` seconds at time ``now`` (seconds of the session's
        clock). ``tick`` does it too."""
        self._speeches.check(now)

    def next_frames(self, now: float, in_hand: int = 0) -> Work | None:
        """Return frames whose mouths are to be made now, at time ``now`` (seconds of the session's
        clock); None where there are none. Call ``made`` or ``failed`` with the result afterwards.
        Frames that cannot be shown in time any more are left out. ``in_hand`` is how many earlier
        results were given to neither ``made`` nor ``failed`` yet."""
        if not self._grid.started or in_hand >= self._planning.most_in_hand:
            return None
        for speech in self._speeches:
            if speech.begins is None and not self._plan(speech, now):
                return None
            work = self._planning.work_of(speech, self.position, now, self.due_s)
            if work is not None:
                return work
        return None

    @property
    def resting_positions(self) -> list[int]:
        """The next positions (frames of the avatar), at most 25, that will probably show the mouth
        at rest: those that come next while nobody speaks, else those of the pauses in speech that
        was heard."""
        speech = self._speeches.first
        if speech is None:
            return list(range(self.position, self.position + _REST_AHEAD_FRAMES))
        if speech.begins is None:
            return []
        shown = max(0, self.position - speech.begins)
        numbers = range(shown, min(speech.heard, shown + _REST_AHEAD_FRAMES))
        return [speech.begins + number for number in numbers if speech.weight(number) < 1]

    def made(self, work: Work, mouths: Mouths, now: float) -> float:
        """Add the mouths of ``work``, (n, 320, 320, 3) uint8, one for each frame, ready at ``now``
        (seconds of the session's clock). Returns how many seconds a mouth alone takes."""
        for number, mouth in enumerate(mouths, work.first):
            if (made := work.speech.made.get(number)) is not None:
                made.mouth = mouth
        took_s = now - work.asked_s
        return self._planning.took(took_s, len(work.windows), tried=work.tried)

    def failed(self, work: Work) -> None:
        """Note that the mouths of ``work``, which ``next_frames`` returned, could not be made: the
        mouth before them is shown in their place."""
        for number in range(work.first, work.first + len(work.windows)):
            made = work.speech.made.get(number)
            if made is not None:
                made.failed = True

    # -- the clock ---------------------------------------------------------------------------------

    def expect(self, mouth_s: float | None) -> None:
        """Expect from now on that each mouth takes ``mouth_s`` seconds, which is what they took in
        an earlier session of the avatar that is shown (None: there was none), and forget what was
        measured."""
        self._planning = Planning(self.settings, mouth_s)

    def start(self, now: float) -> None:
        """Start the clock: frame 0 is due at time ``now``, in seconds, and each further one 40 ms
        later; where speech begins, that changes by less than a frame (``FrameGrid``)."""
        self._grid.start(now)

    @property
    def due_s(self) -> float:
        """When the next frame is due, in seconds of the session's clock; ``phase_s`` is included.
        Only once ``start`` was called."""
        return self._grid.due_s(self.frame)

    @property
    def phase_s(self) -> float:
        """How much later the next frames leave than at multiples of 40 ms after the start, in
        seconds; negative for earlier. ``next_frames`` and ``tick`` may change it."""
        return self._grid.phase_s

    def can_tick(self, now: float) -> bool:
        """Return whether ``tick`` may be called at time ``now``, in seconds of the session's clock:
        whether the next frame is due or, where frames are not paced, whether a frame of speech is
        complete or the speech is over. False before ``start`` and once closed."""
        if not self._grid.started or self.state is State.CLOSED:
            return False
        if self.settings.paced:
            return now >= self.due_s
        speech = self._speeches.first
        if speech is None or speech.begins is None:
            return False
        frame = self.position - speech.begins
        return frame >= 0 and (self._is_past(speech, frame) or self._is_ready(speech, frame))

    def tick(self, now: float) -> Tick:
        """Return what leaves at time ``now``, in seconds of the session's clock: the frame that is
        due and, where this call is late, also the sound of the frames that were due before it. Call
        it where ``can_tick`` is true, and send everything: nothing is returned twice."""
        self._speeches.check(now)
        sounds: list[Sound] = []
        picture: Picture | None = None
        late = False
        while not sounds or self.can_tick(now):
            if sounds:
                self.dropped.add("late" if late else "pacing")
            self._end_past()
            if not self.settings.paced and not self.can_tick(now):
                break  # that was the end of the speech
            sound, picture, late = self._frame()
            sounds.append(sound)
            if not self.settings.paced:
                break
        if late:
            self.dropped.add("late")
        self._events += self.dropped.to_tell(self.frame)
        return Tick(tuple(sounds), picture, self.last_events())

    def last_events(self) -> tuple[Event, ...]:
        """Remove and return the events that no ``tick`` has returned, for use after ``close``."""
        events, self._events = tuple(self._events), []
        return events

    # -- inside ------------------------------------------------------------------------------------

    def _check_open(self) -> None:
        if self.state is State.CLOSED:
            raise Cancelled("the session has ended")

    def _plan(self, speech: Speech, now: float) -> bool:
        """Choose the position of the first frame; whether that could be done."""
        if not speech.heard:
            return False
        earliest = self.position
        before = self._speeches.before(speech)
        if before is not None:
            if before.begins is None or before.total is None:
                return False
            earliest = before.begins + before.total
        speech.begins = max(earliest, self.position + self._lead(speech, now))
        return True

    def _lead(self, speech: Speech, now: float) -> int:
        """How many frames after the next one ``speech`` can begin. Where its audio comes as it is
        spoken and nobody speaks, the grid of frames is moved so that it need not wait for one."""
        if not self.settings.paced:
            return 0
        ready_s = self._planning.begins_s(speech, now)
        if self._planning.is_live(speech) and self._speeches.first is speech:
            return self._grid.align(self.frame, ready_s) - self.frame
        return max(0, math.ceil((ready_s - self.due_s) * 1000 / FRAME_MS))

    def _end_past(self) -> None:
        """End what has been spoken."""
        while (speech := self._speeches.first) is not None and speech.begins is not None:
            if not self._is_past(speech, self.position - speech.begins):
                return
            self._told_end(speech, interrupted=False)
            self._speeches.remove_first()
            if not self.settings.paced and not self._speeches:
                self._crossfade.reset()
                if self.state is State.SPEAKING:
                    self.state = after(self.state, Trigger.SPEECH_ENDS)
                    self._settle()

    def _frame(self) -> tuple[Sound, Picture | None, bool]:
        """The next frame's sound, its picture, and whether that is left out for want of a mouth."""
        speech = self._speeches.first
        if speech is None or speech.begins is None or speech.begins > self.position:
            return self._rest(stays=False)
        number = self.position - speech.begins
        correction = self._correction(speech, number)
        if correction < 0:
            number = self._leave_out(speech, number)
        elif correction > 0 and not speech.made:
            speech.begins += 1
        early = not correction and self._is_early(speech, number)
        if correction > 0 or early or self._waits(speech, number):
            left = self._rest(stays=speech.begins + number == self.position)
            if early:
                speech.waited += 1
                self._grid.shorten(self.frame, self._planning.ready_s(speech, number))
            return left
        return self._speak(speech, number)

    def _is_early(self, speech: Speech, number: int) -> bool:
        """Whether frame ``number``, the next one and the first of ``speech``, comes so early that
        the mouths of later ones would not be there in time."""
        return (
            self.settings.paced
            and not speech.begun
            and speech.waited < MOST_WAITED_FRAMES
            and self._planning.is_live(speech)
            and self._planning.ready_s(speech, number) > self.due_s + _EARLY_S
        )

    def _correction(self, speech: Speech, number: int) -> int:
        """By how many frames ``speech`` is to be shown later from this frame on, -1 to 1: where
        nobody speaks in it, or, where that is not looked at, where it is quiet; elsewhere only
        where its mouths come too late."""
        if not self.settings.paced or not speech.begun or speech.stalled:
            return 0
        if number >= speech.heard:
            return 0
        correction = self._planning.correction(speech, number, self.due_s)
        if correction < 0 and number + 1 >= speech.heard:
            correction = 0
        if correction and not self._rests(speech, number):
            correction = 0
        if not correction and self._planning.wants_delay(speech, self.due_s):
            correction = 1
        if correction:
            self._planning.corrected(correction, self.due_s)
        return correction

    def _rests(self, speech: Speech, number: int) -> bool:
        """Whether nobody speaks in frame ``number``, the next one."""
        if self.settings.gate:
            return not speech.weight(number) and not speech.made
        return speech.is_quiet(self.settings.frame_samples)

    def _leave_out(self, speech: Speech, number: int) -> int:
        """Leave out frame ``number``, and return the number of the next. Where mouths are being
        made for the positions behind it, the avatar's own frame is left out too."""
        speech.take(number, self.settings.frame_samples)
        if speech.made:
            self.position += 1
        else:
            assert speech.begins is not None
            speech.begins -= 1
        return number + 1

    def _is_past(self, speech: Speech, number: int) -> bool:
        return speech.total is not None and number >= speech.total

    def _is_ready(self, speech: Speech, number: int) -> bool:
        """Whether the frame can be shown whole."""
        if number >= speech.heard or not speech.has_sound(self.settings.frame_samples):
            return False
        if not speech.weight(number):
            return True
        made = speech.made.get(number)
        return made is not None and (made.mouth is not None or made.failed)

    def _waits(self, speech: Speech, number: int) -> bool:
        """Whether the frame is waited for: for its audio, or, where speech begins or goes on, for
        its mouth."""
        heard = number < speech.heard
        if not heard or not speech.has_sound(self.settings.frame_samples):
            if not heard:
                assert speech.begins is not None
                speech.begins += 1  # nothing is being made for what was not heard
            speech.stalled = speech.begun
            return True
        if (speech.begun and not speech.stalled) or self._is_ready(speech, number):
            speech.waited = 0
            return False
        speech.waited += 1
        return speech.waited <= MOST_WAITED_FRAMES

    def _speak(self, speech: Speech, number: int) -> tuple[Sound, Picture | None, bool]:
        if not speech.begun:
            speech.begun = True
            self._events.append(SpeechBegan(self.frame * FRAME_MS, speech.number))
            if self.state is not State.SPEAKING:
                self.state = after(self.state, Trigger.SPEECH_BEGINS)
                self._tell_state(speech.number)
        speech.stalled = False
        weight = speech.weight(number)
        end = speech.spoken_samples + self.settings.frame_samples
        for text in speech.captions_until(end / self.settings.sound_rate_hz):
            self._events.append(Caption(self.frame * FRAME_MS, speech.number, text))
        samples, made = speech.take(number, self.settings.frame_samples)
        mouth = None if made is None else made.mouth
        late = weight > 0 and mouth is None and (made is None or not made.failed)
        self._planning.spoke(late=late)
        shown, weight = self._crossfade.toward(weight, mouth)
        sound = Sound(self.frame, samples, speech.number)
        picture = None
        if not late:
            picture = Picture(self.frame, self.position, shown, weight, speech.number)
        self._advance()
        return sound, picture, late

    def _rest(self, *, stays: bool) -> tuple[Sound, Picture | None, bool]:
        """Nobody speaks. ``stays`` keeps the position, for what is being made for it."""
        if self.state is State.SPEAKING and not self._any_begun():
            self.state = after(self.state, Trigger.SPEECH_ENDS)
            self._settle()
        mouth, weight = self._crossfade.toward(0.0)
        if self.state is State.INTERRUPTED and self._crossfade.closed:
            self._mouth_closed()
        sound = Sound(self.frame, self._silence, 0)
        picture = Picture(self.frame, self.position, mouth, weight, 0)
        self._advance(stays=stays)
        return sound, picture, False

    def _any_begun(self) -> bool:
        speech = self._speeches.first
        return speech is not None and speech.begun

    def _mouth_closed(self) -> None:
        self.state = after(self.state, Trigger.MOUTH_CLOSED)
        self._settle()

    def _settle(self) -> None:
        """What the session returns to when it has spoken."""
        if self._listening:
            self.state = after(self.state, Trigger.LISTEN)
        self._tell_state(0)

    def _advance(self, *, stays: bool = False) -> None:
        self.frame += 1
        if not stays:
            self.position += 1

    def _told_end(self, speech: Speech, *, interrupted: bool) -> None:
        spoken_ms = round(speech.spoken_samples * 1000 / self.settings.sound_rate_hz)
        come_ms = round(speech.come_s * 1000)
        self._events.append(
            SpeechEnded(
                self.frame * FRAME_MS,
                speech.number,
                min(spoken_ms, come_ms),
                interrupted,
                max(0, come_ms - spoken_ms) if interrupted else 0,
            )
        )

    def _tell_state(self, speech: int) -> None:
        self._events.append(StateChanged(self.frame * FRAME_MS, self.state, speech))
