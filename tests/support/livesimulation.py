"""A live conversation in virtual time: a client that sends audio by a schedule, a network that
takes its time, and a clock that may be late."""

import heapq
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Protocol

import numpy as np

from lipwire.domain import Float32Array, UInt8Array
from lipwire.session.live.conversation import Conversation
from lipwire.session.live.events import Event, Picture, Sound, SpeechBegan, SpeechEnded
from lipwire.session.live.hearing import Heard, SpeechPiece
from lipwire.session.live.planning import Work
from lipwire.session.live.settings import SessionSettings
from lipwire.session.live.spoken import Speech

RATE_HZ: Final = 16_000
FRAME_SAMPLES: Final = 640
LOOKAHEAD_SAMPLES: Final = 7240
FRAME_S: Final = 0.04
START_S: Final = 1000.0
LOUD: Final = 0.05
"""Frames of audio with a sample above this are of speech for ``Reader``."""


class Reads(Protocol):
    """Makes windows and sound of a piece of speech, as ``SpeechReader``."""

    def push(self, piece: SpeechPiece) -> Heard: ...

    def flush(self) -> Heard: ...


class Reader:
    """Gives frame k its window when 640 * k + 7240 samples are known, as ``WindowStream`` does. A
    window is the number of its frame, (n, 1, 1, 1) float32. Audio is 16 kHz mono."""

    def __init__(self) -> None:
        self._samples = 0
        self._frames = 0
        self._pending = np.empty(0, np.float32)  # from the next frame on

    def push(self, piece: SpeechPiece) -> Heard:
        assert piece.pcm.dtype == np.float32
        assert piece.rate_hz == RATE_HZ
        pcm = np.asarray(piece.pcm, np.float32)
        self._samples += len(pcm)
        self._pending = np.concatenate([self._pending, pcm])
        known = max(0, (self._samples - LOOKAHEAD_SAMPLES) // FRAME_SAMPLES + 1)
        return self._heard(known, pcm)

    def flush(self) -> Heard:
        return self._heard(-(-self._samples // FRAME_SAMPLES), np.empty(0, np.float32))

    def _heard(self, known: int, sound: Float32Array) -> Heard:
        count = max(0, known - self._frames)
        windows = np.arange(self._frames, self._frames + count, dtype=np.float32)
        weights = [
            float(np.abs(self._pending[at : at + FRAME_SAMPLES]).max(initial=0) > LOUD)
            for at in range(0, count * FRAME_SAMPLES, FRAME_SAMPLES)
        ]
        self._pending = self._pending[count * FRAME_SAMPLES :]
        self._frames += count
        return Heard(windows.reshape(-1, 1, 1, 1), weights, sound)


def mouth_of(speech: int, frame: int, position: int) -> UInt8Array:
    """A mouth that says what it was made for."""
    return np.array([speech, frame, position], np.int32).view(np.uint8)


def tags(mouth: UInt8Array) -> tuple[int, int, int]:
    """Which speech, which frame of it and which position ``mouth`` was made for."""
    speech, frame, position = mouth.view(np.int32).tolist()
    return speech, frame, position


def speech_like(seconds: float, *, offset: int = 0) -> Float32Array:
    """Loud audio at 16 kHz; each sample tells its place, modulo a second."""
    places = (np.arange(round(seconds * RATE_HZ)) + offset) % RATE_HZ
    return ((places + RATE_HZ) / (2.5 * RATE_HZ)).astype(np.float32)


@dataclass(slots=True)
class Left:
    """What left at one tick."""

    at_s: float
    """After the start."""
    sounds: tuple[Sound, ...]
    picture: Picture | None
    events: tuple[Event, ...]


@dataclass
class Simulation:
    """Drives a ``Conversation``; ``run`` moves time on."""

    settings: SessionSettings = field(
        default_factory=lambda: SessionSettings(sound_rate_hz=RATE_HZ)
    )
    processing: Callable[[float], float] = lambda now_s: 0.01
    """Seconds that a frame takes in the network, by the time after the start."""
    workers: int = 1
    """How many times mouths are made side by side; others wait."""
    late: Callable[[int], float] = lambda frame: 0.0
    """How late the tick of a frame is, in seconds."""
    fails: Callable[[Work], bool] = lambda work: False
    reader: Callable[[], Reads] = Reader
    keep: bool = True
    """Whether all that left is kept in ``left``."""
    on_left: Callable[[Left], None] = lambda left: None

    def __post_init__(self) -> None:
        self.now = START_S
        self.conversation = Conversation(self.settings)
        self.left: list[Left] = []
        self.asked: list[Work] = []
        self.sent: dict[int, list[Float32Array]] = {}
        """Audio that was sent, by the number of its speech."""
        self._speeches = 0
        self._open = False
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._works: list[Work] = []
        self._free_s = [0.0] * self.workers
        self._reader: tuple[Speech, Reads] | None = None
        self.conversation.start(self.now)
        self._plan_tick()

    # -- the client

    def at(self, seconds: float, do: Callable[[], object]) -> None:
        """Call ``do`` so long after the start."""

        def call() -> None:
            do()
            self._look()

        heapq.heappush(self._queue, (START_S + seconds, next(self._order), call))

    def push(self, pcm: Float32Array, *, rate_hz: int = RATE_HZ) -> None:
        self.conversation.push(SpeechPiece(pcm, rate_hz), self.now)
        speech = self.conversation._speeches._numbers
        self.sent.setdefault(speech, []).append(pcm)

    def send(
        self,
        pcm: Float32Array,
        at_s: float,
        *,
        rate_hz: int = RATE_HZ,
        piece_s: float = 0.02,
        every_s: float | None = None,
        jitter: Iterator[float] | None = None,
        end: bool = True,
    ) -> float:
        """Send ``pcm`` in pieces of ``piece_s``, one ``every_s`` (as long as they are, where None:
        as a microphone gives them); ``jitter`` is how late each comes. Returns when it ends."""
        step = round(piece_s * rate_hz)
        every_s = piece_s if every_s is None else every_s
        came_s = at_s
        for index, first in enumerate(range(0, len(pcm), step)):
            came_s = max(came_s, at_s + index * every_s + (next(jitter) if jitter else 0.0))
            piece = pcm[first : first + step]
            self.at(came_s, lambda piece=piece: self.push(piece, rate_hz=rate_hz))  # type: ignore[misc]
        if end:
            self.at(came_s, self.conversation.end_of_speech)
        return came_s

    def interrupt(self) -> None:
        self.conversation.interrupt()
        self._reader = None
        for work in self._works:
            self.conversation.failed(work)
        self._works.clear()

    # -- time

    def run(self, until_s: float) -> None:
        """Let time pass until so long after the start."""
        end = START_S + until_s
        while self._queue and self._queue[0][0] <= end:
            self.now, _, do = heapq.heappop(self._queue)
            do()
        self.now = end

    def _plan_tick(self) -> None:
        self._due_s = self.conversation.due_s
        due_s = self._due_s + self.late(self.conversation.frame)
        tick: Callable[[], None] = partial(self._tick, self._due_s)
        heapq.heappush(self._queue, (max(due_s, self.now), next(self._order), tick))

    def _tick(self, due_s: float) -> None:
        if due_s == self._due_s:  # else it was moved meanwhile
            self.tick()
            self._plan_tick()
            self._look()

    def tick(self) -> None:
        """Have the next frame leave now."""
        tick = self.conversation.tick(self.now)
        left = Left(self.now - START_S, tick.sounds, tick.picture, tick.events)
        if self.keep:
            self.left.append(left)
        self.on_left(left)

    def _look(self) -> None:
        """Do what a worker does, as far as it takes no time."""
        self._work()
        if self.conversation.due_s != self._due_s:
            self._plan_tick()

    def _work(self) -> None:
        while (audio := self.conversation.next_speech()) is not None:
            self._hear(*audio)
        while (work := self.conversation.next_frames(self.now, len(self._works))) is not None:
            self._works.append(work)
            if self.keep:
                self.asked.append(work)
            took_s = self.processing(self.now - START_S) * len(work.windows)
            self._free_s.sort()
            self._free_s[0] = max(self.now, self._free_s[0]) + took_s
            done: Callable[[], None] = partial(self._made, work)
            heapq.heappush(self._queue, (self._free_s[0], next(self._order), done))

    def _hear(self, speech: Speech, piece: SpeechPiece | None, last: bool) -> None:
        if self._reader is None or self._reader[0] is not speech:
            self._reader = (speech, self.reader())
        reader = self._reader[1]
        if piece is not None:
            self.conversation.heard(speech, reader.push(piece), last=False)
        if last:
            self.conversation.heard(speech, reader.flush(), last=True)

    def _made(self, work: Work) -> None:
        if work not in self._works:
            return  # interrupted meanwhile
        self._works.remove(work)
        if self.fails(work):
            self.conversation.failed(work)
        else:
            numbers = np.arange(work.first, work.first + len(work.windows))
            if work.windows.shape[1:] == (1, 1, 1):  # of ``Reader``
                numbers = work.windows[:, 0, 0, 0].astype(np.int64)
            mouths = [
                mouth_of(work.speech.number, int(number), work.position + index)
                for index, number in enumerate(numbers)
            ]
            self.conversation.made(work, np.stack(mouths), self.now)
        self._look()

    # -- what left

    @property
    def sounds(self) -> list[Sound]:
        return [sound for left in self.left for sound in left.sounds]

    @property
    def pictures(self) -> list[Picture]:
        return [left.picture for left in self.left if left.picture is not None]

    @property
    def events(self) -> list[Event]:
        return [event for left in self.left for event in left.events]

    def began_s(self, speech: int) -> float:
        """When the first frame of ``speech`` was due, in seconds after the start."""
        (at_ms,) = (
            event.at_ms
            for event in self.events
            if isinstance(event, SpeechBegan) and event.speech == speech
        )
        return at_ms / 1000

    def ended(self, speech: int) -> SpeechEnded:
        (event,) = (
            event
            for event in self.events
            if isinstance(event, SpeechEnded) and event.speech == speech
        )
        return event

    def said(self, speech: int) -> Float32Array:
        """All sound of ``speech`` that was heard."""
        parts = [sound.samples for sound in self.sounds if sound.speech == speech]
        return np.concatenate([np.empty(0, np.float32), *parts])

    def sent_of(self, speech: int) -> Float32Array:
        return np.concatenate(self.sent[speech])

    def frames_of(self, speech: int) -> list[int]:
        return [sound.frame for sound in self.sounds if sound.speech == speech]


def check(simulation: Simulation, *, jumps: bool = False) -> None:
    """Whatever happens, this holds: sound without a gap or repetition, each picture with the sound
    of its time, each mouth for its position and its sound, and nothing that jumps."""
    sounds = simulation.sounds
    assert [sound.frame for sound in sounds] == list(range(len(sounds)))
    assert {len(sound.samples) for sound in sounds} == {FRAME_SAMPLES}
    by_frame = {sound.frame: sound for sound in sounds}
    spoken: dict[int, int] = {}  # frame on the clock to frame of its speech
    counts: dict[int, int] = {}
    for sound in sounds:
        if sound.speech:
            spoken[sound.frame] = counts.get(sound.speech, 0)
            counts[sound.speech] = spoken[sound.frame] + 1
        else:
            assert not sound.samples.any()
    if not jumps:
        for speech in counts:
            said, sent = simulation.said(speech), simulation.sent_of(speech)
            count = min(len(said), len(sent))
            np.testing.assert_array_equal(said[:count], sent[:count])
            assert not said[count:].any()
    before: Picture | None = None
    step = 1 / (simulation.settings.crossfade_frames + 1)
    for left in simulation.left:
        picture = left.picture
        if picture is None:
            continue
        assert picture.frame == left.sounds[-1].frame
        assert picture.at_ms == left.sounds[-1].at_ms
        assert picture.speech == by_frame[picture.frame].speech
        assert (picture.mouth is None) == (picture.weight == 0)
        if picture.mouth is not None and picture.speech and picture.weight == 1:
            expected = (picture.speech, spoken[picture.frame], picture.position)
            if not jumps:
                assert tags(picture.mouth) == expected
            else:
                assert tags(picture.mouth)[::2] == expected[::2]
        if before is not None:
            frames = picture.frame - before.frame
            moved = picture.position - before.position
            assert 0 <= moved <= frames + jumps
            assert abs(picture.weight - before.weight) <= step * frames + 1e-6
        before = picture
