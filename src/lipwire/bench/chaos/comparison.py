"""What live sessions have to show, made without servers, and the comparison with what they send."""

import threading
from collections.abc import Sequence
from contextlib import ExitStack
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np

from lipwire.audio import AudioEncoder, silence_window
from lipwire.avatars import Avatar
from lipwire.avatars.compiled.restpart import mouth_of, stored_form
from lipwire.domain import SAMPLE_RATE_HZ, AudioWindows, Float32Array, UInt8Array, ping_pong
from lipwire.domain.closing import Closing
from lipwire.engine import Engine
from lipwire.session.live import FRAME_MS, LiveFrame, Sound

_SHIFTS: Final = (0, -1, 1, -2, 2, -3, 3, -4, 4)
"""By how many frames a speech may be shown earlier or later than it began: the session follows its
sender's clock."""
_KEPT: Final = 96
"""Mouths of each package that are remembered."""


class Renderer(Closing):
    """What a package shows, made without servers. Thread-safe; a context manager."""

    def __init__(self, package: Path, windows: Sequence[AudioWindows]) -> None:
        """``windows``, (n, 32, 16, 16) float32, are those of each speech."""
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
        self._mouth = lru_cache(_KEPT)(self._draw)
        self._rest = [self._resting(number) for number in range(self._avatar.frame_count)]

    def close(self) -> None:
        """Close the avatar and its network."""
        self._opened.close()

    def length(self, speech: int) -> int:
        """Return how many frames speech number ``speech`` has (its index in ``windows``)."""
        return len(self._windows[speech])

    def spoken(self, position: int, speech: int, number: int, made_at: int | None = None) -> bytes:
        """Return the JPEG file of the frame at ``position``, a frame of the avatar before the walk
        back and forth, with the mouth of frame ``number`` of speech number ``speech`` (its index in
        ``windows``).

        The network makes a mouth from the crop of the frame at ``made_at``; None for ``position``
        itself. Another one is for a mouth that is shown again, on a later frame than it was made
        for.
        """
        with self._lock:
            shown = position if made_at is None else made_at
            mouth = self._mouth(ping_pong(shown, self._avatar.frame_count), speech, number)
            return self._avatar.jpeg(position, mouth)

    def rests(self, position: int, frame: bytes) -> bool:
        """Return whether ``frame``, a JPEG file, shows the frame at ``position`` with a rest mouth:
        its own, or that of another frame, which is shown where its own was not made yet."""
        with self._lock:
            own = ping_pong(position, self._avatar.frame_count)
            order = [self._rest[own], *self._rest]
            return any(self._avatar.jpeg(position, mouth) == frame for mouth in order)

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
    """Compares what one session sends with what it has to."""

    def __init__(self, renderer: Renderer, speech: int, samples: Float32Array) -> None:
        """The session says ``samples``, which is number ``speech`` of those that ``renderer``
        knows."""
        self.right = self.held = self.dropped = 0
        """Frames with their own mouth, with an earlier one because no server made theirs in time,
        and left out."""
        self.wrong: list[str] = []
        self._renderer = renderer
        self._speech = speech
        self._samples = samples
        self._began_ms = 0
        self._begins: int | None = None
        """Position of frame 0 of the speech."""
        self._heard = 0

    def began(self, at_ms: int) -> None:
        """Note that the speech began ``at_ms`` milliseconds after the session's start."""
        self._began_ms = at_ms

    def frame(self, frame: LiveFrame) -> None:
        """Compare a frame that came with what it has to show; count it as right or held, or add a
        line to ``wrong``."""
        if not frame.speech:
            if self._renderer.rests(frame.position, frame.data) or self._is_held(frame):
                self.right += 1
            else:
                self.wrong.append(f"position {frame.position} at rest")
            return
        if self._begins is None:  # frames before it may have been left out
            self._begins = frame.position - (frame.at_ms - self._began_ms) // FRAME_MS
        number = frame.position - self._begins
        for shift in _SHIFTS:
            of = number + shift
            if not 0 <= of < self._renderer.length(self._speech):
                continue
            if self._renderer.spoken(frame.position, self._speech, of) == frame.data:
                self._begins -= shift
                self.right += 1
                return
        if self._is_held(frame) or self._renderer.rests(frame.position, frame.data):
            self.held += 1
        else:
            self.wrong.append(f"position {frame.position}, speech {self._speech}, frame {number}")

    def sound(self, sound: Sound) -> None:
        """Compare the sound of a frame with the next samples of the speech; add a line to ``wrong``
        where it differs. Silence between speeches is ignored."""
        if not sound.speech:
            return
        wanted = self._samples[self._heard : self._heard + len(sound.samples)]
        self._heard += len(sound.samples)
        if not np.array_equal(sound.samples[: len(wanted)], wanted):
            self.wrong.append(f"sound before {self._heard / SAMPLE_RATE_HZ:.2f} s")

    def ended(self, interrupted: bool) -> None:
        """Note that the speech is over; add a line to ``wrong`` where not all of it was heard and
        it was not ``interrupted``."""
        if not interrupted and self._heard < len(self._samples):
            self.wrong.append(f"{self._heard} of {len(self._samples)} samples were heard")

    def _is_held(self, frame: LiveFrame) -> bool:
        """Whether it has the mouth of an earlier frame, which need not have been shown itself."""
        if self._begins is None:
            return False
        begins = self._begins
        latest = min(frame.position - begins, self._renderer.length(self._speech)) - 1
        return any(
            self._renderer.spoken(frame.position, self._speech, number, begins + number)
            == frame.data
            for number in range(latest, -1, -1)
        )
