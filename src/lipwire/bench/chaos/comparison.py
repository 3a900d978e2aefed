"""What live sessions have to show, made without servers, and the comparison with what they send."""

import threading
from collections.abc import Sequence
from contextlib import ExitStack
from functools import lru_cache
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from lipwire.audio import AudioEncoder, silence_window
from lipwire.avatars import Avatar
from lipwire.avatars.compiled.restpart import mouth_of, stored_form
from lipwire.domain import SAMPLE_RATE_HZ, AudioWindows, Float32Array, UInt8Array, ping_pong
from lipwire.domain.closing import Closing
from lipwire.engine import Engine
from lipwire.session.live import FRAME_MS, FramesDropped, LiveFrame, Sound

_NEAR_MS: Final = 3_000
"""So near to what a session says of frames that were not taken sound may be missing: it keeps two
seconds of sound, and says so once a second."""
_KEPT: Final = 96
"""Mouths of each package that are remembered, unless another number is asked for."""


class Renderer(Closing):
    """Makes the frames that an avatar package shows, in this process and without servers, to
    compare them with a server's. Thread-safe; a context manager, which closes the avatar at its
    end."""

    def __init__(
        self, package: Path, windows: Sequence[AudioWindows], *, kept: int = _KEPT
    ) -> None:
        """``package`` is the avatar's folder. ``windows`` has one array for each speech, what the
        network hears of each frame, (n, 32, 16, 16) float32. At most ``kept`` mouths, 300 kB each,
        are remembered."""
        self._lock = threading.Lock()
        self._windows = windows
        with ExitStack() as stack:
            self._avatar = stack.enter_context(Avatar.open(package, parts=frozenset({"jpeg"})))
            self._engine = stack.enter_context(Engine(threads=1))
            self._model = self._engine.load(self._avatar.model_path)
            if self._avatar.encoder_path is None:
                raise RuntimeError(f"{package.name} has lost its audio encoder")
            self._silence = silence_window(AudioEncoder.open(self._avatar.encoder_path))
            self._opened = stack.pop_all()
        self._mouth = lru_cache(kept)(self._draw)
        self._rest = [self._resting(number) for number in range(self._avatar.frame_count)]

    def close(self) -> None:
        """Close the avatar and its network."""
        self._opened.close()

    def length(self, speech: int) -> int:
        """Return how many frames speech number ``speech`` has (its index in ``windows``)."""
        return len(self._windows[speech])

    def spoken(self, position: int, speech: int, number: int, made_at: int | None = None) -> bytes:
        """Return the JPEG file of the avatar's frame at ``position`` with the mouth of frame
        ``number`` of speech number ``speech``. ``position`` counts from 0; past the last frame it
        walks back and forth over the frames. ``number`` counts from 0; ``speech`` is an index into
        ``windows``.

        The network makes the mouth from the crop of the frame at ``made_at``; None means
        ``position``. Another value is for a mouth that was made for an earlier frame and is shown
        again at ``position``.
        """
        with self._lock:
            shown = position if made_at is None else made_at
            mouth = self._mouth(ping_pong(shown, self._avatar.frame_count), speech, number)
            return self._avatar.jpeg(position, mouth)

    def resting(self, position: int) -> bytes:
        """Return the JPEG file of the avatar's frame at ``position`` with its mouth at rest, which
        the network makes for silence. ``position`` counts from 0; past the last frame it walks back
        and forth over the frames."""
        with self._lock:
            mouth = self._rest[ping_pong(position, self._avatar.frame_count)]
            return self._avatar.jpeg(position, mouth)

    def filmed(self, position: int) -> bytes:
        """Return the JPEG file of the avatar's frame at ``position`` as it was filmed, without a
        mouth of the network. ``position`` counts from 0; past the last frame it walks back and
        forth over the frames."""
        with self._lock:
            return self._avatar.jpeg(position, None)

    def shown(self, frame: LiveFrame, speech: int, number: int) -> str:
        """Return a text that says what ``frame`` shows, where it should show frame ``number`` of
        speech number ``speech`` (an index into ``windows``): the frame without a made mouth, the
        mouth of another frame, or else by how much its pixels differ from the right ones. Tries all
        mouths, which takes seconds."""
        if self.filmed(frame.position) == frame.data:
            return "the frame as it was filmed"
        for other, windows in enumerate(self._windows):
            for mouth in range(len(windows)):
                for made_at in range(self._avatar.frame_count):
                    if self.spoken(frame.position, other, mouth, made_at) == frame.data:
                        return f"speech {other}, frame {mouth}, made for position {made_at}"
        right = np.frombuffer(self.spoken(frame.position, speech, number), np.uint8)
        came = cv2.imdecode(np.frombuffer(frame.data, np.uint8), cv2.IMREAD_COLOR)
        wanted = cv2.imdecode(right, cv2.IMREAD_COLOR)
        if came is None or wanted is None or came.shape != wanted.shape:
            return "no such picture"
        apart = cv2.absdiff(came, wanted).max(axis=2)
        return f"another in {np.count_nonzero(apart)} pixels, by {apart.max()} of 255 at most"

    def _draw(self, number: int, speech: int, frame: int) -> UInt8Array:
        crops = self._avatar.crops(number, 1)
        windows = self._windows[speech][frame : frame + 1]
        mouth: UInt8Array = self._engine.infer(self._model, crops, windows)[0]
        return mouth

    def _resting(self, number: int) -> UInt8Array:
        drawn = self._engine.infer(
            self._model, self._avatar.crops(number, 1), self._silence[None].astype(np.float32)
        )[0]
        mouth = mouth_of(stored_form(drawn))
        assert mouth is not None  # it was stored just now
        return mouth


class Comparison:
    """Compares the frames and the sound that one live session sends with those that it has to send.
    It counts frames that are right (``right``), frames that show an earlier mouth (``held``) and
    frames that the session has left out (``dropped``), and keeps a line about each fault
    (``wrong``). Call the methods in the order in which frames, sound and events arrive; not
    thread-safe."""

    def __init__(self, renderer: Renderer, speech: int, samples: Float32Array) -> None:
        """The session says ``samples``, (n,) float32 at 16 kHz: speech number ``speech`` (from 0)
        of those of which ``renderer`` has the windows."""
        self.right = self.held = self.dropped = 0
        """Frames with their own mouth, with an earlier one because no server made theirs in time,
        and left out."""
        self._wrong: list[str] = []
        self._gaps: list[tuple[int, str]] = []
        """Missing sound of which the session has not said yet that it may be: when, in ms from its
        start, and a line about it."""
        self._unread_ms: list[int] = []
        """When the session has said that its client had not taken what was there."""
        self._renderer = renderer
        self._speech = speech
        self._samples = samples
        self._heard = 0
        self._number_at: dict[int, int] = {}
        """Which frame of the speech is heard, by the time of the session's frame, in ms."""
        self._begins: list[int] = []
        """Positions of frame 0 of the speech, the latest last: frames that wait move it."""
        self._rested = False
        """Whether a mouth at rest has come: from then on, there is one."""
        self._resumed = False
        """Whether a stream has taken the session up again, and no sound has come since."""
        self._next_ms: int | None = None
        """When the next sound is due, in ms from the start of the session."""
        self._missing = 0
        """Frames whose sound did not come since the speech was heard last."""

    @property
    def wrong(self) -> list[str]:
        """A line about each frame and each piece of sound that is wrong, and about each gap in the
        sound that the session has not announced (``left_out``). Empty where all was right."""
        return self._wrong + [line for _, line in self._gaps]

    @property
    def has_gaps(self) -> bool:
        """Whether sound is missing that the session has not explained yet; a later event given to
        ``left_out`` may do so."""
        return bool(self._gaps)

    def is_wrong(self, line: str) -> None:
        """Add ``line``, a text about another fault, to ``wrong``."""
        self._wrong.append(line)

    def resumed(self) -> None:
        """Note that the session goes on in another stream. What it sent while nobody received is
        lost, so a gap before the next sound is not counted as wrong."""
        self._resumed = True

    def left_out(self, event: FramesDropped) -> None:
        """Note ``event``, with which the session says that it has left out frames. Where the reason
        is "unread" (the client did not receive earlier ones in time), sound may be missing as well:
        gaps up to 3 s before and after are not wrong."""
        self.dropped += event.count
        if event.reason == "unread":
            self._unread_ms.append(event.at_ms)
            self._gaps = [gap for gap in self._gaps if not self._is_explained(gap[0])]

    def _is_explained(self, at_ms: int) -> bool:
        return any(abs(at_ms - unread_ms) <= _NEAR_MS for unread_ms in self._unread_ms)

    def _gap(self, at_ms: int, line: str) -> None:
        """Note that sound is missing at that time, unless it is known that it may be."""
        if not self._resumed and not self._is_explained(at_ms):
            self._gaps.append((at_ms, line))

    def frame(self, frame: LiveFrame) -> None:
        """Compare ``frame``, which the session has sent, with what it has to show.

        In speech, add 1 to ``right`` where it shows its own mouth, or to ``held`` where it shows an
        earlier one or is at rest, because its own could not be made; else add a line to ``wrong``.
        The frame's sound says which frame of the speech it belongs to, so give that sound to
        ``sound`` first. Outside of speech, a mouth at rest and an earlier mouth are both right; so
        is none, until a mouth at rest has been shown."""
        if not frame.speech:
            if self._rests(frame) or self._is_held(frame):
                self.right += 1
            else:
                self._wrong.append(f"position {frame.position} at rest")
            return
        number = self._number_at.get(frame.at_ms)
        if number is None:
            self._gap(frame.at_ms, f"position {frame.position} without its sound")
            return
        right = self._renderer.spoken(frame.position, self._speech, number) == frame.data
        if not right and self._rests(frame):  # no mouth was made since it began, or went on
            self.held += 1
            return
        begins = frame.position - number
        if begins not in self._begins[-1:]:
            self._begins.append(begins)
        if right:
            self.right += 1
        elif self._is_held(frame):
            self.held += 1
        else:
            line = f"position {frame.position}, speech {self._speech}, frame {number}"
            if not self._wrong:
                line += f", shows {self._renderer.shown(frame, self._speech, number)}"
            self._wrong.append(line)

    def sound(self, sound: Sound) -> None:
        """Compare ``sound``, the sound of one frame, with the next samples of the speech. Adds a
        line to ``wrong`` where they differ, where the session began another piece of speech in the
        middle, or where sound is missing before it without a reason (``left_out``, ``resumed``).
        The samples of silence between pieces of speech are ignored."""
        missing = (sound.at_ms - (self._next_ms or 0)) // FRAME_MS
        if missing and self._next_ms is not None:
            self._gap(self._next_ms, f"no sound from {self._next_ms} to {sound.at_ms} ms")
        self._missing += missing
        self._next_ms = sound.at_ms + FRAME_MS
        self._resumed = False
        if not sound.speech:
            return
        self._heard = self._found(sound.samples)
        self._missing = 0
        self._number_at[sound.at_ms] = self._heard * 1000 // (SAMPLE_RATE_HZ * FRAME_MS)
        if sound.speech > 1 and not self._wrong:
            self._wrong.append(
                f"the speech was cut {self._heard / SAMPLE_RATE_HZ:.2f} s after it began"
            )
        wanted = self._samples[self._heard : self._heard + len(sound.samples)]
        self._heard += len(sound.samples)
        if not np.array_equal(sound.samples[: len(wanted)], wanted):
            self._wrong.append(f"sound before {self._heard / SAMPLE_RATE_HZ:.2f} s")

    def ended(self, interrupted: bool) -> None:
        """Note that the speech is over. Adds a line to ``wrong`` where not all of it was heard,
        unless it was ``interrupted`` or sound may be missing (``left_out``, ``resumed``)."""
        if not interrupted and self._heard < len(self._samples):
            said = f"{self._heard} of {len(self._samples)} samples were heard"
            self._gap(self._next_ms or 0, said)

    def _found(self, sound: Float32Array) -> int:
        """Where in the speech ``sound`` is: where it was heard to, or as many frames behind that as
        are missing at most, as some of those may have been silence; where it is not found, where it
        was heard to."""
        step = SAMPLE_RATE_HZ * FRAME_MS // 1000
        for first in range(self._heard, self._heard + self._missing * step + 1, step):
            wanted = self._samples[first : first + len(sound)]
            if len(wanted) and np.array_equal(sound[: len(wanted)], wanted):
                return first
        return self._heard

    def _rests(self, frame: LiveFrame) -> bool:
        """Whether it has a mouth at rest; or, as long as none has come, none at all."""
        rests = self._renderer.resting(frame.position) == frame.data
        self._rested |= rests
        return rests or (not self._rested and self._renderer.filmed(frame.position) == frame.data)

    def _is_held(self, frame: LiveFrame) -> bool:
        """Whether it has the mouth of an earlier frame, which need not have been shown itself."""
        return any(
            self._renderer.spoken(frame.position, self._speech, number, begins + number)
            == frame.data
            for begins in reversed(self._begins)
            for number in range(self._renderer.length(self._speech) - 1, -1, -1)
            if begins + number < frame.position
        )
