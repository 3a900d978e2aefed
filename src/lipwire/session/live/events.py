"""What a live session tells about itself, and what leaves it."""

from dataclasses import dataclass

from lipwire.domain import Float32Array, UInt8Array
from lipwire.session.live.settings import FRAME_MS
from lipwire.session.live.states import State


@dataclass(frozen=True, slots=True)
class StateChanged:
    """Event: the session is in state ``state`` from the frame at ``at_ms`` on, in milliseconds from
    the session's start. ``speech`` is the number, from 1, of the piece of speech because of which
    it changed; 0 where there is none."""

    at_ms: int
    """Time of the frame on the session's clock."""
    state: State
    speech: int
    """Number of the piece of speech that it is about; 0 where there is none."""


@dataclass(frozen=True, slots=True)
class SpeechBegan:
    """Event: the first frame of piece of speech number ``speech`` (from 1) is shown at ``at_ms``
    milliseconds from the session's start."""

    at_ms: int
    speech: int


@dataclass(frozen=True, slots=True)
class SpeechEnded:
    """Event: piece of speech number ``speech`` (from 1) is over at ``at_ms`` milliseconds from the
    session's start, spoken to its end or ``interrupted``. ``spoken_ms`` milliseconds of it were
    spoken; ``left_ms`` milliseconds had come and were not spoken, 0 unless interrupted."""

    at_ms: int
    speech: int
    spoken_ms: int
    """How much of it was spoken."""
    interrupted: bool
    left_ms: int
    """How much had come and was not spoken."""


@dataclass(frozen=True, slots=True)
class Caption:
    """Event: ``text``, a sentence or so, is what is said from the frame at ``at_ms`` on, in
    milliseconds from the session's start. ``speech`` is the number of its piece of speech, from
    1."""

    at_ms: int
    speech: int
    text: str


@dataclass(frozen=True, slots=True)
class FramesDropped:
    """Event: ``count`` frames were left out since the last such event, so that the others keep
    their time. ``at_ms`` is now, in milliseconds from the session's start. ``reason`` is "late" (a
    mouth was not made in time), "pacing" (the machine was too busy to compose) or "unread" (the
    client had not taken the frames before)."""

    at_ms: int
    count: int
    """Since the last such event."""
    reason: str
    """``late``: its mouth was not made in time; ``pacing``: the machine was too busy to show it;
    ``unread``: the client had not taken those before it."""


@dataclass(frozen=True, slots=True)
class GoingAway:
    """Event: the server will end the session in ``left_s`` seconds, and the client should open one
    on another server. ``at_ms`` is now, in milliseconds from the session's start; ``reason`` is
    text for people."""

    at_ms: int
    reason: str
    left_s: float
    """How long the session goes on for."""


Event = StateChanged | SpeechBegan | SpeechEnded | Caption | FramesDropped | GoingAway


@dataclass(frozen=True, slots=True)
class Picture:
    """What one frame of a session is to show, before it is composed. ``frame`` counts from 0, 25 a
    second. ``position`` is the avatar's frame under it; past the avatar's last frame, positions run
    back and forth over its frames. ``mouth`` is a speaking mouth, (320, 320, 3) uint8, in the
    colour order of the avatar's package ("bgr" or "rgb"), shown with ``weight`` (above 0, to 1),
    the rest being the mouth at rest; None, and ``weight`` 0, where only that is shown. ``speech``
    is the number of the piece of speech shown; 0 for none."""

    frame: int
    """On the session's clock, from 0."""
    position: int
    """Frame of the avatar, before the walk back and forth."""
    mouth: UInt8Array | None
    """(320, 320, 3) uint8 mouth that speaks; None where the avatar only rests."""
    weight: float
    """Of ``mouth``, the rest being that of the mouth at rest: above 0 where there is one, up to
    1."""
    speech: int
    """Number of the piece of speech that is being shown; 0 at rest."""

    @property
    def at_ms(self) -> int:
        """When the frame is due, in milliseconds from the start of the session."""
        return self.frame * FRAME_MS


@dataclass(frozen=True, slots=True)
class Sound:
    """The sound of one frame of a session: 40 ms, (samples,) float32, mono, in [-1, 1], at the
    session's sound rate. ``frame`` counts from 0; ``speech`` is the number of the piece of speech
    that is heard, from 1, and 0 in silence."""

    frame: int
    samples: Float32Array
    """(samples,) float32 mono in [-1, 1], two pieces of 20 ms."""
    speech: int
    """Number of the piece of speech that is heard; 0 in silence."""

    @property
    def at_ms(self) -> int:
        """When the sound is due, in milliseconds from the start of the session."""
        return self.frame * FRAME_MS


@dataclass(frozen=True, slots=True)
class Tick:
    """What leaves a session at one moment: ``sounds``, the sound of one frame, or of several where
    the moment came late; ``picture``, the picture of the last of these frames, None where it is
    left out; and ``events``, in order."""

    sounds: tuple[Sound, ...]
    """One; more where the tick came late and makes up for earlier ones."""
    picture: Picture | None
    """None where it is left out."""
    events: tuple[Event, ...]
