"""A run of ``lipwire bench chaos``, from starting the first process to the last exit code."""

import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lipwire.bench.chaos.cast import Cast, make_cast
from lipwire.bench.chaos.clients import Clients, Tally
from lipwire.bench.chaos.live import LiveClients
from lipwire.bench.chaos.servers import Farm
from lipwire.bench.chaos.troubles import Troubles
from lipwire.bench.chaos.watch import Held, Watch
from lipwire.domain import LipwireError
from lipwire.rpc.connection import CompositingConnection

REQUESTS_AN_HOUR: Final = 3600 * 25 // 24
"""What one session of 25 frames a second asks for in an hour, 24 frames a request."""

_TIMEOUT_S: Final = 60.0
_SETTLING_S: Final = 3.0
"""Changed packages are noticed within a second and may take another to be opened."""
_SETTLED_S: Final = 60.0
"""On a busy machine opening takes longer, and what was open is shown for as long as that."""
_AGAIN_S: Final = 0.2
_TOLD_EVERY_S: Final = 15.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What ``run_chaos`` does. It runs for ``minutes``, and draws all random choices from ``seed``.
    ``clients`` clients send requests for batches, ``rate`` a second all together (0: as many as
    they can), and ``live_clients`` clients hold live sessions. Each of the ``inference_servers``
    but the first is killed, ended or paused every ``kill_every_s`` seconds on average. An avatar is
    loaded or unloaded every ``manage_every_s`` seconds, and, with ``replace_packages``, a package
    is replaced every ``replace_every_s`` seconds, both on average. Each server keeps at most
    ``most_avatars`` avatars open."""

    minutes: float = 2.0
    seed: int = 0
    rate: float = 0.0
    """Requests a second of all clients; 0 is as many as there can be."""
    clients: int = 4
    live_clients: int = 2
    """Clients that begin one live session after another."""
    inference_servers: int = 3
    most_avatars: int = 12
    """Open at a time in each server: fewer than there are, so that some are evicted."""
    replace_packages: bool = False
    kill_every_s: float = 12.0
    """Mean seconds between two kills of each inference server but the first."""
    manage_every_s: float = 0.5
    replace_every_s: float = 2.0


@dataclass(frozen=True, slots=True)
class Chaos:
    """What a run of ``run_chaos`` has found: how many ``seconds`` it took, how many ``requests``
    were answered, how many ``frames`` were compared, how often each kind of thing happened
    (``counts``), and what servers hold at the end (``held``). ``wrong``, ``errors`` and ``unclean``
    have a line for each wrong frame, for each error that a client saw, and for each crash, error in
    a log, or exit with another code than 0."""

    seconds: float
    requests: int
    """Those whose frames came and were looked at."""
    frames: int
    counts: dict[str, int]
    """Requests, and what happened to the servers, by kind."""
    held: list[Held]
    wrong: list[str]
    errors: list[str]
    unclean: list[str]
    """Exits with another code, errors in logs, crashes."""

    @property
    def hours(self) -> float:
        """``requests`` as hours of a single live session: how long one would last that asks for a
        batch of 24 frames each time, at 25 frames a second."""
        return self.requests / REQUESTS_AN_HOUR

    @property
    def problems(self) -> list[str]:
        """All that was wrong, a line each: frames, errors, exits and leaks, and that no request was
        answered. Empty where all was well."""
        leaks = [leak for held in self.held for leak in held.leaks]
        found = [
            *(f"wrong frame: {line}" for line in self.wrong),
            *(f"error: {line}" for line in self.errors),
            *(f"unclean: {line}" for line in self.unclean),
            *(f"leak: {line}" for line in leaks),
        ]
        return found if self.requests else [*found, "no request was answered"]


def run_chaos(plan: Plan, *, tell: Callable[[str], None] = lambda _: None) -> Chaos:
    """Run ``plan`` with real processes on free ports of this machine, and return what was found. It
    takes the minutes of the plan, and some seconds to start and end. Files are written to a
    temporary folder, which is removed. Wrong frames and errors are in the result, not raised.
    Raises RuntimeError where a server does not start.

    ``tell(line)`` is called every few seconds with a line of text about the progress, and with one
    for each wrong frame and error.
    """
    with tempfile.TemporaryDirectory(prefix="lipwire-chaos-") as name, ExitStack() as stack:
        folder = Path(name)
        cast = make_cast(folder, changing=plan.replace_packages)
        farm = stack.enter_context(
            Farm(
                cast.models_root,
                folder,
                inference=plan.inference_servers,
                most=plan.most_avatars,
            )
        )
        tally = Tally(cast)
        clients = Clients(
            f"127.0.0.1:{farm.compositing.port}",
            cast,
            tally,
            count=plan.clients,
            rate=plan.rate,
            seed=plan.seed,
        )
        live = LiveClients(
            f"127.0.0.1:{farm.compositing.port}",
            cast,
            tally,
            count=plan.live_clients,
            seed=plan.seed,
        )
        troubles = Troubles(
            farm,
            cast,
            tally,
            kill_every_s=plan.kill_every_s,
            manage_every_s=plan.manage_every_s,
            replace_every_s=plan.replace_every_s,
            seed=plan.seed,
        )
        seconds = plan.minutes * 60
        watch = Watch(
            [farm.compositing, farm.inference[0]], lambda: tally.answered, max(0.2, seconds / 300)
        )
        stack.callback(clients.stop)
        stack.callback(live.stop)
        stack.callback(troubles.stop)
        begun_s = time.monotonic()
        with watch:
            clients.start()
            live.start()
            troubles.start()
            _wait(seconds, tally, tell)
            troubles.stop()
            clients.stop()
            live.stop()
        elapsed_s = time.monotonic() - begun_s
        _ask_everybody(farm, cast, tally)
        left = _sessions_left(farm)
        farm.end()
        return Chaos(
            seconds=elapsed_s,
            requests=tally.answered,
            frames=tally.frames,
            counts=dict(tally.counts),
            held=watch.held(),
            wrong=tally.wrong,
            errors=tally.errors,
            unclean=[
                *([f"{left} live sessions are left at the end"] if left else []),
                *(line for process in farm.processes for line in process.troubles()),
            ],
        )


def _wait(seconds: float, tally: Tally, tell: Callable[[str], None]) -> None:
    until_s = time.monotonic() + seconds
    told: set[str] = set()
    while (left_s := until_s - time.monotonic()) > 0:
        time.sleep(min(left_s, _TOLD_EVERY_S))
        for line in [*tally.wrong, *tally.errors]:
            if line not in told:
                tell(line)
                told.add(line)
        tell(
            f"{tally.answered} requests ({tally.answered / REQUESTS_AN_HOUR:.2f} h),"
            f" {tally.counts['wrong']} wrong, {tally.counts['error']} errors"
        )


def _sessions_left(farm: Farm) -> int:
    """Live sessions that are not freed although their clients have gone."""
    until_s = time.monotonic() + _SETTLED_S
    with CompositingConnection(f"127.0.0.1:{farm.compositing.port}") as connection:
        while left := connection.health(_TIMEOUT_S).live_sessions:
            if time.monotonic() > until_s:
                break
            time.sleep(_AGAIN_S)
    return left


def _ask_everybody(farm: Farm, cast: Cast, tally: Tally) -> None:
    """When all is quiet, every avatar is what its package says."""
    time.sleep(_SETTLING_S)
    with CompositingConnection(f"127.0.0.1:{farm.compositing.port}") as connection:
        for role in cast.roles:
            question = role.whole()
            until_s = time.monotonic() + _SETTLED_S
            try:
                answer = connection.composite(question.request, _TIMEOUT_S)
                while answer.frames not in question.answers and time.monotonic() < until_s:
                    time.sleep(_AGAIN_S)
                    answer = connection.composite(question.request, _TIMEOUT_S)
            except LipwireError as error:
                tally.error(f"{role.name}, at the end: {error}")
                continue
            if answer.frames not in question.answers:
                tally.count("wrong")
                tally.wrong.append(f"{role.name}, at the end: not what its package says")
