"""What follows an attempt that failed: another server, a pause, or the end. No clock, no sockets.

Only what can be repeated is: the server did not take the call (Unavailable), or had no room for it
(Overloaded), or on its disk for the avatar (StorageFailed). Inference changes nothing, so a call
that was lost half way may be repeated as well.
All attempts of a call share its one deadline.

    failed with                a server not yet tried    no other server
    ─────────────────────────  ────────────────────────  ───────────────────────────────
    Unavailable                at once, not counted      after a pause, counted
    Overloaded                 at once, counted          after a pause, counted; not sooner
                                                         than the server asked for
    StorageFailed              at once, counted          the end
    anything else              the end                   the end

It also ends when all retries are counted, or when the pause would outlast the deadline: then the
caller gets the error at once, and not "too late" when the time is up.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from lipwire.domain import InvalidInput, LipwireError, Overloaded, StorageFailed, Unavailable

MAX_RETRIES: Final = 100


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often a call is tried again, ``max_retries`` times (0 to 100), and after which pauses:
    they begin at ``first_pause_s``, double up to ``longest_pause_s``, and each is shortened by up
    to half at random, so that clients do not all come at once. Raises InvalidInput for another
    ``max_retries``."""

    max_retries: int = 3
    """Counted retries of one call, 0 to 100."""
    first_pause_s: float = 0.05
    longest_pause_s: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.max_retries <= MAX_RETRIES:
            raise InvalidInput(f"max_retries is {self.max_retries}, allowed are 0 to {MAX_RETRIES}")

    def pause_s(self, retry: int, random: Random) -> float:
        """Return the seconds to wait before retry number ``retry`` of a call, counted from 0: half
        to all of the full pause, drawn from ``random``."""
        full = min(self.longest_pause_s, self.first_pause_s * 2.0**retry)
        return full * random.uniform(0.5, 1.0)


class Tries:
    """The attempts of one call to inference servers: which server is asked next, and after which
    pause. Servers are told apart by their addresses. It sends nothing and does not wait itself. For
    one thread. For each attempt call ``choose``, and ``pause_after`` where it has failed."""

    __slots__ = ("_asked", "_deadline", "_policy", "_random", "counted")

    def __init__(self, policy: RetryPolicy, deadline: float, random: Random) -> None:
        """``policy`` says how often a call is tried, and ``random`` varies the pauses. ``deadline``
        is in the time of the clock whose ``now`` is given to ``pause_after``."""
        self._policy = policy
        self._deadline = deadline
        self._random = random
        self._asked: set[str] = set()
        self.counted = 0
        """Retries counted so far."""

    def choose(self, order: Sequence[str]) -> str:
        """Return the server to ask now: the first of ``order`` that this call has not asked yet.

        ``order`` has the servers that can be asked, best first, and at least one. When all of them
        have been asked, all may be asked again.
        """
        server = next((name for name in order if name not in self._asked), None)
        if server is None:
            self._asked.clear()
            server = order[0]
        self._asked.add(server)
        return server

    def pause_after(self, error: LipwireError, *, order: Sequence[str], now: float) -> float | None:
        """Return how many seconds to wait before the next attempt, after one that failed with
        ``error``; None where there is to be no other attempt, and ``error`` is the call's result.
        After Unavailable a server that was not asked yet is asked at once, without limit until the
        deadline. After Overloaded, after StorageFailed where another server was not asked yet, and
        after Unavailable where none is left, there is another attempt where fewer than the policy's
        ``max_retries`` were counted (``counted`` grows by 1 then) and the pause ends before the
        deadline. After any other error, and once the deadline has passed, there is none.

        ``order`` has the servers that can be asked now; the pause is 0 where one of them was not
        asked by this call yet, and otherwise the policy's, after Overloaded longer by the error's
        ``retry_after_s``. ``now`` is in seconds of the clock that the deadline is in.
        """
        another = any(name not in self._asked for name in order)
        if not isinstance(error, Unavailable | Overloaded | StorageFailed) or now >= self._deadline:
            return None
        if another and isinstance(error, Unavailable):
            return 0.0
        if isinstance(error, StorageFailed) and not another:
            return None
        if self.counted >= self._policy.max_retries:
            return None
        retry, self.counted = self.counted, self.counted + 1
        if another:
            return 0.0
        pause = self._policy.pause_s(retry, self._random)
        if isinstance(error, Overloaded) and error.retry_after_s is not None:
            # Never sooner than asked for, and not all callers at that very moment.
            pause += error.retry_after_s
        return pause if now + pause < self._deadline else None
