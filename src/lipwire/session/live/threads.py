"""The threads that live sessions share, and what each session has done with them."""

from concurrent.futures import Executor
from dataclasses import dataclass

from lipwire.session.live.pacing import Pacer


@dataclass(frozen=True, slots=True)
class LiveThreads:
    """The threads that the sessions of a process share; closed by whoever opened them."""

    pacer: Pacer
    workers: Executor
    """Hear speech, and wait for mouths; two threads for each session that may speak at once."""
    composing: Executor
    """Paste mouths and encode frames; as many threads as cores."""


@dataclass(slots=True)
class LiveCounts:
    """What a session has done since it began."""

    frames: int = 0
    """Frames that were composed."""
    dropped: int = 0
    """Frames that were left out."""
    spoken_ms: int = 0
    mouths: int = 0
    """Mouths that the network made for it."""
