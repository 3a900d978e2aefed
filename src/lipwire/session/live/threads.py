"""The threads that live sessions share, and what each session has done with them."""

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass

from lipwire.session.live.pacing import Pacer


@dataclass(frozen=True, slots=True)
class LiveThreads:
    """The threads that the live sessions of a process share; closed by whoever opened them.
    ``pacer`` calls sessions when frames are due; ``workers`` work on speech and wait for mouths,
    two threads for each session that may speak at once; ``composing`` paste mouths and encode
    frames, as many threads as cores."""

    pacer: Pacer
    workers: Executor
    """Hear speech, and wait for mouths; two threads for each session that may speak at once."""
    composing: Executor
    """Paste mouths and encode frames; as many threads as cores."""

    def call_later(self, call: Callable[[], object]) -> None:
        """Have a worker call ``call``, without arguments, and return at once. Where the workers
        accept no more calls because they are being shut down, ``call`` is called in this thread
        before this method returns. What ``call`` raises in a worker is lost."""
        try:
            self.workers.submit(call)
        except RuntimeError:
            call()


@dataclass(slots=True)
class LiveCounts:
    """What one live session has done since it began: how many frames were composed (``frames``) and
    left out (``dropped``), how many milliseconds of speech were heard (``spoken_ms``), and how many
    mouths the network made for it (``mouths``). The session counts; others read."""

    frames: int = 0
    """Frames that were composed."""
    dropped: int = 0
    """Frames that were left out."""
    spoken_ms: int = 0
    mouths: int = 0
    """Mouths that the network made for it."""
