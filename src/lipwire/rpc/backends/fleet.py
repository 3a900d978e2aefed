"""Which of several servers can be asked: who is out, who comes back, and when. No sockets.

          ┌──────────────────── serving ─────────────────────┐
   new ───┤                                                  ▼
          └── refused, lost, silent ──▶ out ── serving ──▶   up   ── refused, lost, silent ──▶ out
                                        (after its hold)

``serving``, ``refused`` and ``silent`` are verdicts of health checks, ``lost`` is a call that the
server did not take or did not finish. One call is enough to put a server out, so that the next goes
elsewhere at once; a check that gets no answer is not, because a busy server answers late: it
takes several in a row without an answer to any call.

A server that is lost again and again is held out for longer each time. One that is back gets its
models bit by bit while its weight grows, so that it need not load thousands at once.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from lipwire.rpc.backends.affinity import rendezvous

Verdict = Literal["serving", "refused", "silent"]
Change = Literal["out", "back"]

LEAST_WEIGHT: Final = 0.05
"""The weight of a server that has just come back."""


@dataclass(frozen=True, slots=True)
class FleetPolicy:
    """When an inference server counts as unreachable, and when it is used again. Times are in
    seconds.

    A server is out after ``silent_checks`` health checks in a row without an answer, except where
    it has answered a call within ``silence_s``. A server is lost, and out at once, where a call to
    it was not accepted or its connection broke. Where it is lost a second time it stays out for
    ``first_hold_s`` at least, then for twice as long each time, up to ``longest_hold_s``; a server
    that was up for ``forgive_s`` counts as never lost. The share of avatars that a server is asked
    for after it is back grows to its full size within ``ramp_s``.
    """

    silent_checks: int = 3
    """Checks in a row without an answer that put out a server that was up."""
    silence_s: float = 2.0
    """A check without an answer is not counted where the server has answered a call within this
    time."""
    first_hold_s: float = 1.0
    """A server that is lost a second time is out for at least this long; each further time, for
    twice as long as the last."""
    longest_hold_s: float = 30.0
    """The longest that a server that is lost again and again is held out."""
    forgive_s: float = 60.0
    """A server that was up for this long counts as never lost."""
    ramp_s: float = 10.0
    """Time in which the share of models of a server that is back grows from few to all that it
    had."""


class Standing:
    """How one server stands: whether it is up, out, or not asked yet (``state`` is "up", "out" or
    "new"), since when, for what reason, and how often calls to it were lost (``losses``); how many
    checks in a row had no answer (``unanswered``), and when it last answered a call
    (``answered_at``). Times are of the fleet's clock, in seconds. Not thread-safe: its ``Fleet``
    uses it under its lock."""

    __slots__ = ("answered_at", "losses", "reason", "returned", "since", "state", "unanswered")

    def __init__(self, now: float) -> None:
        """``now`` is the time of the fleet's clock, in seconds."""
        self.state: Literal["new", "up", "out"] = "new"
        self.since = now
        """When ``state`` began."""
        self.returned = False
        """Whether it was out before it was up."""
        self.reason = "not asked yet"
        """Why it is not up; one line."""
        self.losses = 0
        self.unanswered = 0
        self.answered_at = float("-inf")


class Fleet:
    """Which of several inference servers are up, so that they can be asked, and which are out, by
    health checks and by how calls end: whoever makes the checks and calls reports how they ended
    (``judge``, ``answered``, ``lost``). A server is neither up nor out until the first report about
    it. Servers have the names that the fleet was made with; another name raises KeyError. Does no
    I/O itself. Methods may be called from any thread, and return at once, but for ``wait_known``
    and ``rest``."""

    def __init__(
        self, servers: Sequence[str], *, clock: Callable[[], float], policy: FleetPolicy
    ) -> None:
        """``servers`` are their names, each once. ``clock`` gives seconds and never goes back.
        ``policy`` says when a server counts as unreachable."""
        self._clock = clock
        self._policy = policy
        self._changed = threading.Condition()
        self._standings = {server: Standing(clock()) for server in servers}
        self._may_wait = True

    def order(self, model_id: str) -> list[str]:
        """Return the servers that are up, in the order in which they are to be asked for avatar
        ``model_id``.

        Where none is up, all servers are returned, because health checks may be wrong about every
        one of them.
        """
        with self._changed:
            now = self._clock()
            weights = {
                server: self._weight(standing, now)
                for server, standing in self._standings.items()
                if standing.state == "up"
            }
            servers = weights or dict.fromkeys(self._standings, 1.0)
        return rendezvous(model_id, servers)

    def up(self) -> list[str]:
        """Return the servers that are up, in the order in which they were given."""
        with self._changed:
            return [name for name, standing in self._standings.items() if standing.state == "up"]

    def reasons(self) -> dict[str, str]:
        """Return, for each server that is not up, why it is not: a line of text by the server's
        name. A server that nothing was reported about yet is one of them."""
        with self._changed:
            return {
                server: standing.reason
                for server, standing in self._standings.items()
                if standing.state != "up"
            }

    def judge(
        self, server: str, verdict: Verdict, *, asked_at: float, reason: str = ""
    ) -> Change | None:
        """Take in the ``verdict`` of a health check of ``server`` that was sent at ``asked_at``, in
        seconds of the fleet's clock: "serving", "refused" or "silent" (no answer in time). One that
        was sent before the server came into its present state is ignored.

        ``reason`` says in one line why the verdict is not "serving". Returns "out" where the server
        is out now and was not before, "back" where it was out and is up again, else None.
        """
        with self._changed:
            standing, now = self._standings[server], self._clock()
            if standing.state != "new" and asked_at < standing.since:
                return None  # from before the state that it would change
            standing.unanswered = standing.unanswered + 1 if verdict == "silent" else 0
            if verdict == "serving":
                held = standing.state == "out" and now < standing.since + self._hold_s(standing)
                return "back" if not held and self._take_in(standing, now) else None
            if verdict == "silent" and standing.state == "up":
                patient = standing.unanswered < self._policy.silent_checks
                if patient or now - standing.answered_at < self._policy.silence_s:
                    return None
            return "out" if self._put_out(standing, reason, now) else None

    def answered(self, server: str) -> None:
        """Take in that ``server`` has answered a call, with a result or an error: for a while (the
        policy's ``silence_s``) silent health checks do not put it out. One that was never checked
        is up then; one that is out stays so until a health check says otherwise."""
        with self._changed:
            standing = self._standings[server]
            standing.answered_at = self._clock()
            if standing.state == "new":
                self._take_in(standing, standing.answered_at)

    def lost(self, server: str, reason: str, *, asked_at: float) -> bool:
        """Take in that a call to ``server``, sent at ``asked_at`` in seconds of the fleet's clock,
        was not accepted, or that its connection broke: it is out from now on, unless it has come
        back since ``asked_at``. ``reason`` says why in one line.

        Returns whether the server was not out before and is now.
        """
        with self._changed:
            standing, now = self._standings[server], self._clock()
            if standing.state == "up" and asked_at < standing.since:
                return False  # it has come back since
            if standing.state == "up" and now - standing.since >= self._policy.forgive_s:
                standing.losses = 0
            put_out = self._put_out(standing, reason, now)
            standing.losses += put_out
            return put_out

    def wait_known(self, timeout_s: float) -> bool:
        """Wait, at most ``timeout_s`` seconds, until every server is known to be up or out. Returns
        whether that is so.

        Once ``end_waiting`` was called, it returns True at once, also in threads that are waiting
        then. Waits in real time, whatever the fleet's clock.
        """
        with self._changed:
            return self._changed.wait_for(self._known, timeout_s)

    def rest(self, pause_s: float, stop: Callable[[], bool]) -> None:
        """Wait for ``pause_s`` seconds, in real time.

        Ends earlier where a server comes up that was not, where ``stop()`` returns true (it is
        called at the beginning, when a server's state changes, and on ``recheck``, with the fleet's
        lock held: it must be quick), and after ``end_waiting``.
        """
        with self._changed:
            before = self._ups()
            self._changed.wait_for(
                lambda: not self._may_wait or stop() or bool(self._ups() - before), pause_s
            )

    def recheck(self) -> None:
        """Make each thread that waits in ``rest`` call its ``stop`` again; ``rest`` returns there
        where that is true. Call this when something has changed that a ``stop`` looks at. Does not
        wait for the threads."""
        with self._changed:
            self._changed.notify_all()

    def end_waiting(self) -> None:
        """Make all threads that wait in ``rest`` or ``wait_known`` return, and later calls return
        at once."""
        with self._changed:
            self._may_wait = False
            self._changed.notify_all()

    def _known(self) -> bool:
        return not self._may_wait or all(s.state != "new" for s in self._standings.values())

    def _ups(self) -> set[str]:
        return {server for server, standing in self._standings.items() if standing.state == "up"}

    def _take_in(self, standing: Standing, now: float) -> bool:
        """Whether it had been out."""
        if standing.state == "up":
            return False
        standing.returned = standing.state == "out"
        standing.state, standing.since, standing.unanswered = "up", now, 0
        self._changed.notify_all()
        return standing.returned

    def _put_out(self, standing: Standing, reason: str, now: float) -> bool:
        standing.reason = reason
        if standing.state == "out":
            return False
        standing.state, standing.since = "out", now
        self._changed.notify_all()
        return True

    def _hold_s(self, standing: Standing) -> float:
        if standing.losses < 2:
            return 0.0
        doubled = self._policy.first_hold_s * 2.0 ** min(standing.losses - 2, 32)
        return min(self._policy.longest_hold_s, doubled)

    def _weight(self, standing: Standing, now: float) -> float:
        if not standing.returned or self._policy.ramp_s <= 0:
            return 1.0
        return min(1.0, max(LEAST_WEIGHT, (now - standing.since) / self._policy.ramp_s))
