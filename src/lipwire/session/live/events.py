"""What a live session tells about itself, and what leaves it."""

from dataclasses import dataclass

from lipwire.domain import Float32Array, UInt8Array
from lipwire.session.live.settings import FRAME_MS
from lipwire.session.live.states import State


@dataclass(frozen=True, slots=True)
class StateChanged:
    """The session does something else from this frame on."""

    at_ms: int
    """Time of the frame on the session's clock."""
    state: State
    speech: int
    """Number of the piece of speech that it is about; 0 where there is none."""


@dataclass(frozen=True, slots=True)
class SpeechBegan:
    """The first frame of a piece of speech is shown."""

    at_ms: int
    speech: int


@dataclass(frozen=True, slots=True)
class SpeechEnded:
    """A piece of speech is over, spoken to its end or interrupted."""

    at_ms: int
    speech: int
    spoken_ms: int
    """How much of it was spoken."""
    interrupted: bool
    left_ms: int
    """How much had come and was not spoken."""


@dataclass(frozen=True, slots=True)
class Caption:
    """What is said from this frame on, as text: a sentence, or so."""

    at_ms: int
    speech: int
    text: str


@dataclass(frozen=True, slots=True)
class FramesDropped:
    """Frames were left out, for the time stamps to stay right."""

    at_ms: int
    count: int
    """Since the last such event."""
    reason: str
    """``late``: its mouth was not made in time; ``pacing``: the machine was too busy to show it;
    ``unread``: the client had not taken those before it."""


@dataclass(frozen=True, slots=True)
class GoingAway:
    """The server will end the session; the client should open one on another server."""

    at_ms: int
    reason: str
    left_s: float
    """How long the session goes on for."""


Event = StateChanged | SpeechBegan | SpeechEnded | Caption | FramesDropped | GoingAway


@dataclass(frozen=True, slots=True)
class Picture:
    """What one frame is to show. It is composed outside of the session's lock."""

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
    """The sound of one frame."""

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
    """What leaves the session at one moment."""

    sounds: tuple[Sound, ...]
    """One; more where the tick came late and makes up for earlier ones."""
    picture: Picture | None
    """None where it is left out."""
    events: tuple[Event, ...]
