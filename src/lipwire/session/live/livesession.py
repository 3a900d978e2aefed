"""A live session at work: its conversation, the threads that hear and make frames for it, and what
it has ready for its client.

    client ─▶ push ─▶ conversation ◀─▶ one worker at a time: hears, asks for mouths
                          │       └─▶ further workers: wait for mouths
                          │ tick, by the pacing thread
                          ├─▶ sound, events ─▶ outputs ─▶ client, viewers
                          └─▶ picture ─▶ composed in another thread ─▶ outputs

Workers run only while there is something to do, in threads that all sessions share.
"""

import logging
import secrets
import threading
import time
from collections.abc import Callable
from typing import Final

from lipwire.domain import Cancelled, DeadlineExceeded, LipwireError, Unavailable
from lipwire.domain.closing import Closing
from lipwire.domain.tracing import current_trace, traced
from lipwire.session.live.avatarslot import AvatarSlot
from lipwire.session.live.conversation import Conversation
from lipwire.session.live.events import GoingAway, Picture
from lipwire.session.live.hearing import STEP_S, Pcm, SpeechPiece, SpeechReader, check_piece
from lipwire.session.live.liveavatar import LiveAvatar
from lipwire.session.live.mouthrequests import MouthRequests
from lipwire.session.live.mouthtimes import MouthTimes
from lipwire.session.live.observer import NO_OBSERVER, Observed
from lipwire.session.live.outbox import Outbox
from lipwire.session.live.outputs import Output, Outputs
from lipwire.session.live.settings import FRAME_MS, SessionSettings
from lipwire.session.live.spoken import Speech
from lipwire.session.live.states import State
from lipwire.session.live.threads import LiveCounts, LiveThreads

_LOG: Final = logging.getLogger(__name__)
_CHECK_S: Final = 0.1
"""How often a session that is not paced is looked at."""


class LiveSession(Closing):
    """One client's session with an avatar: speech in, frames and sound out, to ``outbox`` once
    ``fill_outbox`` was called, and to what ``add_output`` adds. Made by ``LiveSessions.open``. When
    it has ended, ``ended_because`` and ``error`` say why. Thread-safe."""

    def __init__(
        self,
        avatar: LiveAvatar,
        settings: SessionSettings,
        threads: LiveThreads,
        *,
        tenant: str = "",
        session_id: str | None = None,
        times: MouthTimes | None = None,
        observed: Observed | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin a session with ``avatar``, which is closed with it. ``tenant`` is who it is for.
        ``session_id`` is its id; None has one made. ``times`` has how long mouths took in earlier
        sessions; None where there were none. ``observed`` is told what leaves. ``clock`` is that of
        ``threads.pacer``, in seconds."""
        self.id: Final = session_id or secrets.token_urlsafe(16)
        self.outbox: Final = Outbox()
        """What the session has ready for its client, once ``fill_outbox`` was called."""
        self._outputs: Final = Outputs()
        self.counts: Final = LiveCounts()
        self.settings: Final = settings
        self.tenant: Final = tenant
        trace = current_trace()
        self.trace: Final = None if trace is None else trace.unrecorded()
        """That of the request that began the session, for the thousands that follow."""
        self._slot = AvatarSlot(avatar, tenant, clock)
        self._threads = threads
        self._clock = clock
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self.observed: Final = observed or Observed(NO_OBSERVER, clock)
        self._times = times or MouthTimes()
        self._conversation = Conversation(settings)
        self._conversation.expect(self._times.expected_s(avatar.name))
        self._reader: tuple[Speech, SpeechReader] | None = None
        self._requests = MouthRequests(
            self._conversation,
            self._lock,
            threads,
            tenant=tenant,
            clock=clock,
            counts=self.counts,
            times=self._times,
            on_done=self._request_done,
            trace=self.trace,
        )
        self._working = self._again = False
        self._interrupts = 0
        """Interrupts by the client's count."""
        self._composing: set[int] = set()
        self._closed = self._freed = False
        self.ended_because = ""
        """Why the session has ended; empty where the client ended it, and before."""
        self.error: LipwireError | None = None
        """What it has ended with; None where with nothing."""
        self.pushed_s = clock()
        """When audio was last pushed, and before that, when it was made; by its clock."""

    def fill_outbox(self) -> None:
        """Have ``outbox`` take all that leaves the session from now on, if it does not yet."""
        self._outputs.add(self.outbox)

    def add_output(self, output: Output) -> None:
        """Give ``output`` all that leaves from now on, too: pictures, sound, events. It is closed
        when the session ends; at once where that has ended."""
        self._outputs.add(output)

    def remove_output(self, output: Output) -> None:
        """Give ``output`` nothing any more, and close it."""
        self._outputs.remove(output)

    @property
    def avatar(self) -> LiveAvatar:
        """The avatar that is shown."""
        return self._slot.avatar

    @property
    def state(self) -> State:
        """What the session does now; "interrupted" is while the mouth closes. See ``State``."""
        return self._conversation.state

    @property
    def closed(self) -> bool:
        """Whether the session has ended, whoever ended it."""
        return self._closed

    @property
    def silent(self) -> bool:
        """Whether there is no speech of the avatar, neither spoken nor waiting."""
        return self._conversation.silent

    @property
    def interrupts(self) -> int:
        """How many interrupts have arrived, by the client's count where it counts them: what
        ``after_interrupts`` is compared with."""
        return self._interrupts

    def start(self) -> None:
        """Make the first frame's mouth at rest, waiting at most 10 s, then have frames leave, the
        first at once. Does nothing once closed. Raises errors of the network that are not due to
        load or time: NotFound, AvatarInvalid or AvatarChanged."""
        with self._lock:
            if self._closed:
                return
            self._working = True
        try:
            self._slot.resting.prepare([self._conversation.position])
        finally:
            with self._lock:
                self._working = False
            self._free()
        with self._lock:
            if self.closed:
                return
            now = self._clock()
            self._conversation.start(now)
        self._threads.pacer.add(self, now)
        self._wake()

    # -- the client --------------------------------------------------------------------------------

    def push(
        self,
        pcm: Pcm,
        rate_hz: int,
        *,
        sequence: int | None = None,
        after_interrupts: int | None = None,
        caption: str = "",
        timeout_s: float | None = None,
    ) -> None:
        """Add audio to be spoken, of any length: ``pcm`` is (n,) or (n, channels), int16 or float32
        in [-1, 1], of 1 to 64 channels, at ``rate_hz``, 1,000 to 768,000. It continues the last
        piece of speech, or begins another where that was ended. Waits while more than
        ``max_buffered_speech_s`` waits to be spoken, and returns when all audio was added, not when
        it is spoken. An interrupt meanwhile drops what is not added yet. ``sequence`` is the number
        of this audio among all of the session, any for the first and then each one more than the
        one before; None where the sender does not count. ``after_interrupts`` is how many
        interrupts the sender had sent before (None: it does not count); where more have arrived,
        the audio is dropped. ``caption`` is the text that is said from its beginning on; the client
        is sent it when that is spoken. Raises InvalidInput where ``pcm`` and ``rate_hz`` are not
        such audio or ``sequence`` not the next number, DeadlineExceeded where there is no room for
        ``timeout_s`` seconds (None: no limit; what was added before is spoken), and Cancelled where
        the session has ended or ends meanwhile."""
        check_piece(pcm, rate_hz)
        step = max(1, round(rate_hz * STEP_S))

        def late() -> bool:
            return after_interrupts is not None and after_interrupts < self._interrupts

        with self._lock:
            interrupts = self._interrupts
        for first in range(0, max(1, len(pcm)), step):
            text = "" if first else caption
            piece = SpeechPiece(pcm[first : first + step].copy(), rate_hz, text)
            with self._changed:
                free = self._changed.wait_for(
                    lambda: (
                        self._closed
                        or late()
                        or self._interrupts != interrupts
                        or self._conversation.has_room
                    ),
                    timeout_s,
                )
                if self._closed:
                    raise Cancelled("the session has ended")
                if self._interrupts != interrupts:
                    if not first:  # it counts as any other
                        nothing = SpeechPiece(piece.pcm[:0], rate_hz)
                        self._conversation.push(nothing, self._clock(), sequence)
                    return
                if not free:
                    raise DeadlineExceeded(
                        f"{self._conversation.buffered_s:.1f} s of speech wait to be spoken;"
                        f" allowed are {self.settings.max_buffered_speech_s:g}"
                    )
                self.pushed_s = self._clock()
                self._conversation.push(
                    piece, self.pushed_s, None if first else sequence, dropped=late()
                )
            self._wake()

    def end_of_speech(self, *, after_interrupts: int | None = None) -> None:
        """Mark the piece of speech that was pushed last as complete: it is spoken to its end, and
        audio that follows begins another. ``after_interrupts`` is how many interrupts the sender
        had sent before (None: uncounted). Does nothing where more have arrived, or where there is
        no speech. Raises Cancelled once closed."""
        with self._lock:
            if after_interrupts is not None and after_interrupts < self._interrupts:
                return
            self._conversation.end_of_speech()
        self._wake()

    def interrupt(self, number: int | None = None) -> None:
        """Drop all speech, spoken or waiting, and return at once: the mouth closes from the next
        frame on. ``number`` is how many interrupts the client has sent, this one included (None:
        uncounted); does nothing where so many have arrived. Raises Cancelled once closed."""
        with self._changed:
            if number is not None and number <= self._interrupts:
                return
            self._interrupts = self._interrupts + 1 if number is None else number
            self._conversation.interrupt()
            self._reader = None
            calls = self._requests.under_way()
            self._changed.notify_all()
        for call in calls:
            call.end()
        self._wake()

    def listen(self, listening: bool) -> None:
        """Set whether somebody speaks to the avatar now (``listening``): while it does not speak,
        the state is then listening, else idle. Raises Cancelled once closed."""
        with self._lock:
            self._conversation.listen(listening)

    def change_avatar(self, avatar: LiveAvatar) -> None:
        """Show ``avatar`` from the next frame on in which nobody speaks. Before, its first mouth at
        rest is made, waiting up to 10 s. The session closes ``avatar`` when it ends, or at once
        where this fails, and closes the avatar shown before when nothing uses it. Raises errors of
        the network that are not due to load or time: NotFound, AvatarInvalid or AvatarChanged."""
        try:
            resting = self._slot.prepared(avatar, self._conversation.position)
        except BaseException:
            avatar.close()
            raise
        with self._lock:
            unused = avatar if self._closed else self._slot.set_next(avatar, resting)
        if unused is not None:
            unused.close()

    def going_away(self, reason: str, left_s: float) -> None:
        """Tell the client that the session will end in ``left_s`` seconds, for ``reason``, text for
        people. The caller ends it."""
        self._outputs.put(GoingAway(self._conversation.frame * FRAME_MS, reason, left_s))

    def close(self, because: str = "", error: LipwireError | None = None) -> None:
        """End the session: speech is dropped, outputs and, later, the avatar are closed.
        ``because`` is a word for the reason, kept in ``ended_because``, and ``error`` what the
        client is told, None for nothing. Closing twice is allowed; the first reason stays."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self.ended_because = because
            self.error = error
            self._conversation.close()
            events = self._conversation.last_events()
            self.observed.told(events)
            calls = self._requests.under_way()
            self._reader = None
            self._changed.notify_all()
        self._threads.pacer.remove(self)
        for call in calls:
            call.end()
        self._outputs.put(*events)
        self._outputs.close()
        self._free()

    # -- the pacing thread -------------------------------------------------------------------------

    def on_due(self, now: float) -> float | None:
        """Send the frame that is due at ``now``, in seconds of the session's clock, and return when
        to call this again; None once closed. For the pacing thread (``Paced``)."""
        with self._changed:
            if self._closed:
                return None
            self._swap_if_at_rest()
            if not self.settings.paced:
                self._conversation.check(now)
                due_s = now + _CHECK_S
                picture = None
            else:
                due = self._conversation.can_tick(now)  # a worker may have moved the frame
                picture = self._tick(now) if due else None
                due_s = self._conversation.due_s
        if picture is not None:
            self._threads.composing.submit(self._compose, picture)
        self._wake_if_needed()
        return due_s

    def _tick(self, now: float) -> Picture | None:
        """Under the lock: send sound and events, return the picture that is to be composed."""
        tick = self._conversation.tick(now)
        self._outputs.put(*tick.sounds, *tick.events)
        self._changed.notify_all()
        self.counts.spoken_ms += FRAME_MS * sum(sound.speech > 0 for sound in tick.sounds)
        picture = tick.picture if self._outputs else None
        # The frame before is not done, or the client does not take them.
        busy = bool(self._composing)
        if picture is not None and self.settings.paced and (busy or not self._outputs.have_room):
            self._conversation.dropped.add("pacing" if busy else "unread")
            picture = None
        if picture is not None:
            self._composing.add(picture.frame)
        elif self._outputs.want_planes:
            self._threads.composing.submit(self._outputs.put)  # sound need not wait for it
        self.counts.dropped = self._conversation.dropped.total
        self.observed.ticked(now, tick.events, self._conversation.dropped)
        if self._outputs.want_planes:
            self._slot.avatar.look_ahead(self._conversation.position)
        return picture

    def _swap_if_at_rest(self) -> None:
        """Under the lock: show the next avatar where nothing is done with the one before."""
        if self._slot.replacing and not self._in_use and self._conversation.at_rest:
            self._threads.call_later(self._slot.replace().close)
            self._conversation.expect(self._times.expected_s(self._slot.avatar.name))

    def _compose(self, picture: Picture) -> None:
        avatar = self._slot.avatar  # stays while something is being composed
        try:
            with self.observed.showing(paced=self.settings.paced):
                self._outputs.show(avatar.shown(picture))
            self.counts.frames += 1
        except Exception as error:
            self._fail(error, "a frame could not be composed")
        finally:
            with self._changed:
                self._composing.discard(picture.frame)
                self._changed.notify_all()
            self._free()

    # -- the worker --------------------------------------------------------------------------------

    def _wake_if_needed(self) -> None:
        """Have a worker look for work where time alone may have brought some."""
        if not self._conversation.silent or self._slot.rest_wanted:
            self._wake()

    def _wake(self) -> None:
        """Have a worker look for work, unless one does."""
        with self._lock:
            self._again = True
            if self._working or self._closed:
                return
            self._working = True
        self._threads.workers.submit(self._work)

    def _work(self) -> None:
        with traced(self.trace):
            try:
                while self._step():
                    pass
            except Exception as error:
                self._fail(error, "the session failed", working=True)
            self._free()

    def _step(self) -> bool:
        """Do one thing; whether to go on."""
        with self._lock:
            if self._closed:
                self._working = False
                self._changed.notify_all()
                return False
            self._again = False
            speech = self._conversation.next_speech()
        busy = speech is not None
        if speech is not None:
            self._hear(*speech)
        busy = self._ask() or busy
        busy = self._send_unpaced() or busy
        if not busy and self._slot.rest_wanted:
            busy = self._prepare_rest()
        with self._lock:
            if busy or self._again:
                return True
            self._working = False
            self._changed.notify_all()
            return False

    def _hear(self, speech: Speech, piece: SpeechPiece | None, last: bool) -> None:
        reader = self._reader
        if reader is None or reader[0] is not speech:
            reader = (speech, SpeechReader(self._slot.avatar.encoder, self.settings))
        with self.observed.working():
            parts = [] if piece is None else [reader[1].push(piece)]
            if last:
                parts.append(reader[1].flush())
        with self._lock:
            for index, part in enumerate(parts):
                self._conversation.heard(speech, part, last and index == len(parts) - 1)
            self._reader = None if last else reader

    def _ask(self) -> bool:
        """Ask for the mouths that are wanted next; whether there are any."""
        with self._lock:
            if self._closed:
                return False
            phase_s = self._conversation.phase_s
            asked = self._requests.ask(self._slot.avatar)
            if self._conversation.phase_s != phase_s:  # the pacer has the time before
                self._threads.pacer.add(self, max(self._conversation.due_s, self._clock()))
            return asked

    def _request_done(self, error: LipwireError | None) -> None:
        if error is not None:
            self._fail(error, "")
        self._wake()
        self._free()

    def _prepare_rest(self) -> bool:
        """Have a mouth at rest made that will be shown; whether one was."""
        with self._lock:
            positions = self._conversation.resting_positions
            spoken = not self._conversation.silent
        return self._slot.resting.prepare(positions, spoken=spoken)

    def _send_unpaced(self) -> bool:
        """Let frames leave as they are made, where they are not paced; whether one did."""
        if self.settings.paced or not self._outputs:
            return False
        with self._lock:
            if not self._conversation.can_tick(self._clock()):
                return False
        if not self._outputs.wait_for_room(_CHECK_S):
            return not self._closed
        with self._lock:
            picture = None if self._closed else self._tick(self._clock())
        if picture is not None:
            if picture.weight < 1:  # it is waited for, as the mouths of the speech are
                self._slot.resting.prepare([picture.position], spoken=True)
            self._compose(picture)
        return True

    def _fail(self, error: Exception, what: str, *, working: bool = False) -> None:
        """End with ``error``; one that nobody foresaw is logged, and told as ``what``. ``working``
        says that it is the worker's, which ends with it."""
        if not isinstance(error, LipwireError):
            with traced(self.trace):
                name = self._slot.avatar.name
                _LOG.error("a live session of avatar %s: %s", name, what, exc_info=error)
            error = Unavailable(what)
        if working:
            with self._lock:
                self._working = False
        self.close("error", error)

    @property
    def _in_use(self) -> bool:
        """Whether a thread of the session uses the avatar now."""
        return self._working or bool(self._requests or self._composing)

    def _free(self) -> None:
        """Close the avatar once the session has ended and nobody uses it any more."""
        with self._lock:
            if not self._closed or self._freed or self._in_use:
                return
            self._freed = True
            avatars = self._slot.take_all()
        for avatar in avatars:
            self._threads.call_later(avatar.close)
