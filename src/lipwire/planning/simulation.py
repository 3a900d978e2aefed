"""Servers, the avatars behind them and the people who talk to them, in virtual time.

    people ──▶ an avatar, by Zipf's law ──▶ a server, by ``Fleet`` ──▶ its leases: refused, or
               its cache: loaded, or waited for ──▶ a talk, its lease renewed ──▶ the end
    requests ─▶ the same ──▶ the server's queue ──▶ refused, or runs of a few frames

What a server decides is decided by the code that decides it in a real one (``SimulatedServer``);
which server has an avatar, by ``rpc.backends.fleet``. Modelled are when people come, how long they
talk, how long a run, a load and a start take. The seed makes all of it repeatable.
"""

import random
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final

import numpy as np

from lipwire.domain import FPS, DeadlineExceeded, Overloaded
from lipwire.planning.autoscaling import Autoscaler
from lipwire.planning.capacity import avatar_name, server_name
from lipwire.planning.popularity import Draws, Zipf
from lipwire.planning.scenario import Outcome, Scenario, Window
from lipwire.planning.server import SimulatedServer
from lipwire.planning.virtualtime import VirtualTime
from lipwire.registry.items import Item
from lipwire.rpc.backends.fleet import Fleet, FleetPolicy
from lipwire.scheduling.jobs import Job
from lipwire.serving.leases import LEASE_S

_RENEW_EVERY_S: Final = LEASE_S / 3
"""As ``session.live.sessions`` has it."""
_LIVE_FRAMES: Final = 4
_LIVE_DEADLINE_S: Final = 0.36
"""A live session asks for mouths of so many frames at a time, and they have to be there within
nine frames' time, as ``session.live.planning`` has it."""
_SERVERS_TRIED: Final = 4
"""A request that finds no room is asked of three servers more, as ``retry.max_retries`` is."""
_CACHED_ORDERS: Final = 200_000


def simulate(
    scenario: Scenario,
    tell: Callable[[float], None] = lambda _share: None,
    *,
    requests: Iterable[tuple[float, int]] = (),
) -> Outcome:
    """Simulate ``scenario`` in virtual time, and return what was counted when it is over. The same
    ``scenario`` and ``requests`` give the same outcome.

    ``tell`` is called in this thread, about 200 times, with the share that is done, 0 to 1; what it
    raises ends the simulation, and is raised. ``requests`` are requests for mouths besides those of
    the scenario, such as a real server has received: for each (its time, in seconds from the
    beginning of the warm-up; the rank of its avatar, from 0 for the most popular one).
    """
    return _Simulation(scenario).run(tell, requests)


class _Session:
    """A live session: where its lease and its avatar are."""

    __slots__ = ("began_s", "ended", "holder", "item", "leased", "model_id", "server")

    def __init__(self, holder: str, model_id: str, server: SimulatedServer, now: float) -> None:
        self.holder = holder
        self.model_id = model_id
        self.server = server
        self.leased = {server}
        self.item: Item[None] | None = None
        self.began_s = now
        self.ended = False


class _Simulation:
    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._time = VirtualTime()
        self._random = random.Random(scenario.seed)
        zipf = Zipf(scenario.avatars, scenario.exponent)
        self._draws = Draws(zipf, np.random.default_rng(scenario.seed))
        most = scenario.servers if scenario.scaling is None else scenario.scaling.most
        naming = scenario.seed if scenario.naming is None else scenario.naming
        self._names = [server_name(naming, number) for number in range(max(most, scenario.servers))]
        self._servers = {
            name: SimulatedServer(name, self._time, scenario.server, self._random)
            for name in self._names
        }
        self._policy = FleetPolicy()
        self._fleet = Fleet(self._names, clock=self._time, policy=self._policy)
        for number, name in enumerate(self._names):
            if number < scenario.servers:
                self._fleet.answered(name)
            else:
                self._fleet.judge(name, "refused", asked_at=0.0, reason="not started")
        self._serving = self._asked_for = scenario.servers
        self._orders: dict[str, list[str]] = {}
        self._settled_s = 0.0
        """From then on servers' weights do not change."""
        self._surge = 1.0
        self._arrivals = 0
        """Changes where people come at another rate."""
        self._sessions = 0
        self._talking = 0
        self._talking_since_s = 0.0
        self._talked_s = 0.0
        """Of all sessions together."""
        self._share = FPS * scenario.server.speed.frame_s / scenario.server.speed.side_by_side
        self._offered_s = 0.0
        """Time of servers, each for itself."""
        self._out = Outcome(scenario.measured_s)
        self._seen: list[tuple[float, float]] = [(0.0, 0.0)]
        self._window = Window(0.0)
        self._before = (0, 0, 0)

    def run(self, tell: Callable[[float], None], requests: Iterable[tuple[float, int]]) -> Outcome:
        scenario, time = self._scenario, self._time
        for at_s, rank in requests:
            time.after(at_s, partial(self._batch_of, avatar_name(rank)))
        if scenario.talking:
            self._next_session(self._arrivals)
        if scenario.batches_a_second:
            self._next_batch()
        if scenario.scaling is not None:
            time.after(scenario.scaling.poll_s, partial(self._scale, Autoscaler(scenario.scaling)))
        end_s = scenario.warm_up_s + scenario.measured_s
        events = self._run_until(scenario.warm_up_s, end_s, tell)
        self._begin_measuring()
        events += self._run_until(end_s, end_s, tell)
        return self._counted(events)

    def _run_until(self, until_s: float, end_s: float, tell: Callable[[float], None]) -> int:
        events, step_s = 0, end_s / 200
        while self._time.now < until_s:
            events += self._time.run(min(until_s, self._time.now + step_s))
            tell(self._time.now / end_s)
        return events

    # -- what is counted -------------------------------------------------------------------------

    def _begin_measuring(self) -> None:
        self._account()
        self._out = Outcome(self._scenario.measured_s)
        self._talked_s = self._offered_s = 0.0
        for server in self._servers.values():
            server.busy_s = 0.0
        self._before = self._cache_counts()
        self._window = Window(0.0)
        self._time.after(10.0, self._next_window)
        if self._scenario.surge != 1.0:
            self._time.after(self._scenario.surge_s, self._begin_surge)

    def _counted(self, events: int) -> Outcome:
        self._account()
        out, seconds = self._out, self._scenario.measured_s
        out.events = events
        out.talking = self._talked_s / seconds
        out.talked_s /= max(1, out.ended)
        busy_s = sum(server.busy_s for server in self._servers.values())
        workers = self._scenario.server.speed.side_by_side
        given_s = 0.0 if self._scenario.frames else self._talked_s * self._share
        out.utilisation = (given_s + busy_s / workers) / self._offered_s
        hits, misses, evictions = self._cache_counts()
        out.hits, out.misses = hits - self._before[0], misses - self._before[1]
        out.evictions = evictions - self._before[2]
        out.servers = self._serving
        return out

    def _cache_counts(self) -> tuple[int, int, int]:
        counts = [server.cache.counts for server in self._servers.values()]
        return (
            sum(each.hits for each in counts),
            sum(each.misses for each in counts),
            sum(each.evictions for each in counts),
        )

    def _account(self) -> None:
        """Add up the time since this was called last."""
        passed_s = self._time.now - self._talking_since_s
        self._talking_since_s = self._time.now
        self._talked_s += passed_s * self._talking
        self._offered_s += passed_s * self._serving

    def _next_window(self) -> None:
        window = self._window
        window.talking, window.servers = self._talking, self._serving
        self._out.windows.append(window)
        self._window = Window(window.from_s + 10.0)
        self._time.after(10.0, self._next_window)

    # -- which server ----------------------------------------------------------------------------

    def _order(self, model_id: str) -> list[str]:
        """The servers to be asked for ``model_id``, best first."""
        if self._time.now < self._settled_s:
            return self._fleet.order(model_id)
        order = self._orders.get(model_id)
        if order is None:
            if len(self._orders) >= _CACHED_ORDERS:
                self._orders.clear()
            order = self._orders[model_id] = self._fleet.order(model_id)[:_SERVERS_TRIED]
        return order

    def _changed(self) -> None:
        self._orders.clear()
        self._settled_s = self._time.now + self._policy.ramp_s

    def _scale(self, scaler: Autoscaler) -> None:
        rules, now = scaler.rules, self._time.now
        self._seen.append((now, self._talking * self._share))
        while len(self._seen) > 1 and self._seen[1][0] <= now - rules.age_s:
            self._seen.pop(0)
        wanted = scaler.wanted(self._asked_for, self._seen[0][1], now)
        for _ in range(self._asked_for, wanted):
            self._time.after(rules.start_s, self._started)
        for _ in range(wanted, min(self._asked_for, self._serving)):
            self._stop()
        self._asked_for = wanted
        self._time.after(rules.poll_s, partial(self._scale, scaler))

    def _started(self) -> None:
        if self._serving >= self._asked_for:
            return  # not wanted any more
        self._account()
        name = self._names[self._serving]
        self._fleet.judge(name, "serving", asked_at=self._time.now)
        self._serving += 1
        self._changed()

    def _stop(self) -> None:
        self._account()
        self._serving -= 1
        name = self._names[self._serving]
        self._fleet.judge(name, "refused", asked_at=self._time.now, reason="stopped")
        self._changed()

    # -- live sessions ---------------------------------------------------------------------------

    def _begin_surge(self) -> None:
        self._surge = self._scenario.surge
        self._arrivals += 1
        self._next_session(self._arrivals)

    def _next_session(self, arrivals: int) -> None:
        rate = self._scenario.talking * self._surge / self._scenario.talk_s
        if rate > 0:
            gap_s = self._random.expovariate(rate)
            self._time.after(gap_s, partial(self._session, arrivals))

    def _session(self, arrivals: int) -> None:
        if arrivals != self._arrivals:
            return
        self._next_session(arrivals)
        self._sessions += 1
        self._out.sessions += 1
        self._window.came += 1
        model_id = avatar_name(self._draws.next())
        server = self._servers[self._order(model_id)[0]]
        session = _Session(f"session-{self._sessions}", model_id, server, self._time.now)
        if server.lease(session.holder, model_id) is not None:
            self._out.refused += 1
            self._window.refused += 1
            return
        server.use(model_id, partial(self._begin, session))

    def _begin(self, session: _Session, item: Item[None] | None) -> None:
        if item is None:
            self._out.refused_memory += 1
            self._window.refused += 1
            session.server.release(session.holder)
            return
        self._account()
        self._talking += 1
        session.item, session.began_s = item, self._time.now
        lasts_s = self._random.expovariate(1 / self._scenario.talk_s)
        self._time.after(lasts_s, partial(self._end, session))
        self._time.after(_RENEW_EVERY_S, partial(self._renew, session))
        if self._scenario.frames:
            # Sessions begin at any moment, so that they do not ask all at once.
            self._ask_live(session)

    def _end(self, session: _Session) -> None:
        self._account()
        self._talking -= 1
        session.ended = True
        self._out.ended += 1
        self._out.talked_s += self._time.now - session.began_s
        for server in session.leased:
            server.release(session.holder)
        if session.item is not None:
            session.server.cache.unpin(session.item)

    def _renew(self, session: _Session) -> None:
        """Renew a session's lease, where its avatar is by now. One that finds no room there goes on
        without, as in a real server."""
        if session.ended:
            return
        server = self._servers[self._order(session.model_id)[0]]
        if server.lease(session.holder, session.model_id) is None:
            session.leased.add(server)
        if server is not session.server:
            server.use(session.model_id, partial(self._move, session, server))
        self._time.after(_RENEW_EVERY_S, partial(self._renew, session))

    def _move(self, session: _Session, server: SimulatedServer, item: Item[None] | None) -> None:
        if item is None:
            return
        if session.ended or server is session.server:
            server.cache.unpin(item)
            return
        if session.item is not None:
            session.server.cache.unpin(session.item)
        # A real server's lease that is not renewed ends some seconds later.
        session.server.release(session.holder)
        session.leased.discard(session.server)
        session.server, session.item = server, item
        self._out.moved += 1

    def _ask_live(self, session: _Session) -> None:
        if session.ended:
            return
        now = self._time.now
        self._out.live_requests += 1
        try:
            session.server.submit(
                session.model_id,
                _LIVE_FRAMES,
                self._live_done,
                service="live",
                deadline=now + _LIVE_DEADLINE_S,
            )
        except (Overloaded, DeadlineExceeded):
            self._out.live_refused += 1
        self._time.after(_LIVE_FRAMES / FPS, partial(self._ask_live, session))

    def _live_done(self, job: Job[str], error: Exception | None) -> None:
        self._out.live_refused += error is not None

    # -- batches ---------------------------------------------------------------------------------

    def _next_batch(self) -> None:
        gap_s = self._random.expovariate(self._scenario.batches_a_second)
        self._time.after(gap_s, self._batch)

    def _batch(self) -> None:
        self._next_batch()
        self._batch_of(avatar_name(self._draws.next()))

    def _batch_of(self, model_id: str) -> None:
        self._out.batches += 1
        self._ask(model_id, 0, self._time.now)

    def _ask(self, model_id: str, tried: int, came_s: float) -> None:
        order = self._order(model_id)
        if tried >= min(len(order), _SERVERS_TRIED):
            self._refuse_batch(came_s)
            return
        server = self._servers[order[tried]]
        server.use(model_id, partial(self._submit, server, model_id, tried, came_s))

    def _submit(
        self,
        server: SimulatedServer,
        model_id: str,
        tried: int,
        came_s: float,
        item: Item[None] | None,
    ) -> None:
        if item is None:
            self._ask(model_id, tried + 1, came_s)
            return

        def done(job: Job[str], error: Exception | None) -> None:
            server.cache.unpin(item)
            if isinstance(error, Overloaded):
                self._ask(model_id, tried + 1, came_s)
            elif error is not None:
                self._refuse_batch(came_s)
            elif came_s >= self._scenario.warm_up_s:
                self._out.waits_s.append(job.queue_s or 0.0)
                self._out.took_s.append(self._time.now - came_s)

        try:
            server.submit(
                model_id,
                self._scenario.batch_frames,
                done,
                deadline=came_s + self._scenario.batch_deadline_s,
            )
        except Overloaded:
            server.cache.unpin(item)
            self._ask(model_id, tried + 1, came_s)
        except DeadlineExceeded:
            server.cache.unpin(item)
            self._refuse_batch(came_s)

    def _refuse_batch(self, came_s: float) -> None:
        self._out.refused_batches += came_s >= self._scenario.warm_up_s
