"""How many servers an avatar is asked of: one, and more while it is more than one carries. No
sockets.

An avatar's calls go to the first server of the rendezvous order (``affinity``). Where most of them
wait there for longer than they are worked on, or are refused for want of room, while several are
under way all the time, the next server in that order is asked as well, whichever of both has fewer
of its calls; and so on. Where few are under way for a while, one server less is asked, the last in
the order, down to one.

Calls of live sessions go where the sessions' leases are, in proportion to their number: those were
given by what each server carries.
"""

import math
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

_MOST_REMEMBERED: Final = 20_000
"""Avatars; those that were asked for longest ago are forgotten first."""


@dataclass(frozen=True, slots=True)
class ReplicaPolicy:
    """When an avatar is asked of another server as well, and when of one less. Times are in
    seconds.

    At most ``most`` servers are asked. One more is asked where, in the mean of about the last
    ``mean_s``, more than ``hot_calls`` calls are under way for each server that is asked, and more
    than half of the calls are late: they wait for longer than they are worked on, and for more than
    ``late_s``, or are refused for want of room. For ``rise_s`` after that no other is added. One
    less is asked where for ``calm_s`` no more than ``calm_calls`` are under way for each server
    that would be left.
    """

    most: int = 1
    """Servers that an avatar is asked of at most; 1 for always the same one."""
    hot_calls: float = 1.5
    calm_calls: float = 1.1
    mean_s: float = 5.0
    late_s: float = 0.05
    rise_s: float = 2.0
    calm_s: float = 30.0


@dataclass(slots=True)
class _Load:
    """What is asked of one avatar."""

    now: float
    """When ``under_way_mean`` was brought up to date."""
    servers: int = 1
    rose_at: float = -math.inf
    busy_at: float = -math.inf
    """When more was under way than one server less would have."""
    under_way: Counter[tuple[str, bool]] = field(default_factory=Counter)
    """Calls by server, and whether they are of live sessions."""
    under_way_mean: float = 0.0
    late_share: float = 0.0
    leases: Counter[str] = field(default_factory=Counter)
    """By server."""


class Replicas:
    """Decides how many servers are asked for each avatar, by how many of its calls are under way
    and how long they wait, and to which of these servers a call goes. Servers are named by their
    addresses, avatars by ``model_id``; calls of live sessions (``live``) are counted apart from
    others. Does no I/O itself. Methods may be called from any thread.

    Whoever makes a call reports it with ``began`` and ``ended``.
    """

    def __init__(self, *, clock: Callable[[], float], policy: ReplicaPolicy) -> None:
        """``clock`` gives seconds and never goes back. ``policy`` says when an avatar is asked of
        another server."""
        self._clock = clock
        self._policy = policy
        self._lock = threading.Lock()
        self._loads: OrderedDict[str, _Load] = OrderedDict()
        self._holders: dict[str, tuple[str, str]] = {}
        """Avatar and server of each lease, by its holder."""

    def order(self, model_id: str, servers: Sequence[str], *, live: bool) -> list[str]:
        """Return ``servers`` in the order in which a call about avatar ``model_id`` is to ask them.
        ``servers`` are those that can be asked, in this avatar's own order: the first is the one
        that it is usually asked of. First come those that the avatar's calls go to now, the first
        few of ``servers`` (as many as the method ``servers`` returns), the one with the fewest of
        its calls under way before the others; then the rest. ``live`` says whether the call is of a
        live session; such calls go to the servers that hold leases of the avatar, if any, in
        proportion to their number."""
        with self._lock:
            load = self._loads.get(model_id)
            if load is None:
                return list(servers)
            self._pass_time(load)
            among = list(servers[: load.servers])
            shares = dict.fromkeys(among, 1)
            if live and (leased := [one for one in servers if load.leases[one]]):
                among, shares = leased, {one: load.leases[one] for one in leased}
            # As sorting is stable, the first in the order is asked where all have equally many.
            among.sort(key=lambda one: (load.under_way[one, live] + 1) / shares[one])
            return among + [one for one in servers if one not in among]

    def servers(self, model_id: str) -> int:
        """Return how many servers calls for avatar ``model_id`` go to now: 1, also where nothing
        is known of it, or more while its calls are more than one server can answer in time. Leases
        of live sessions are not counted."""
        with self._lock:
            load = self._loads.get(model_id)
            if load is None:
                return 1
            self._pass_time(load)
            return load.servers

    def began(self, model_id: str, server: str, *, live: bool) -> None:
        """Count one more call about avatar ``model_id`` as under way at ``server``; ``live`` says
        whether it is of a live session. Call ``ended`` with the same when it is over."""
        with self._lock:
            load = self._of(model_id)
            self._pass_time(load)
            load.under_way[server, live] += 1

    def is_late(self, took_s: float, worked_s: float) -> bool:
        """Return whether a call counts as late. It was answered after ``took_s`` seconds, and its
        server has worked on it for ``worked_s`` of them; for the rest it has waited. It is late
        where it has waited for longer than ``worked_s``, and for longer than the policy's
        ``late_s``."""
        return took_s - worked_s > max(worked_s, self._policy.late_s)

    def ended(self, model_id: str, server: str, *, live: bool, late: bool | None) -> bool:
        """Count one call less: one that ``began`` has counted with the same ``model_id``,
        ``server`` and ``live`` is over. ``late`` says whether the call was late (``is_late``) or
        refused for want of room; None where that is not known because the call failed. Returns True
        where calls for the avatar go to one server more from now on, else False."""
        with self._lock:
            load = self._of(model_id)
            self._pass_time(load)
            load.under_way[server, live] -= 1
            load.under_way += Counter()  # forgets those at 0
            return late is not None and self._rises(load, late)

    def held(self, holder: str, model_id: str, server: str) -> str:
        """Remember that the live session ``holder`` (its id) has a lease, a reserved share of a
        device's time, for avatar ``model_id`` at ``server``, so that calls of live sessions go
        there. Returns the other server at which ``holder`` had a lease before, which the caller has
        to end; an empty text where there is none."""
        with self._lock:
            _, before = self._holders.get(holder, (None, server))
            self._release(holder)
            self._holders[holder] = model_id, server
            self._of(model_id).leases[server] += 1
            return "" if before == server else before

    def released(self, holder: str) -> str | None:
        """Forget the lease of the live session ``holder`` (its id). Returns the avatar that it had
        one for; None where it had none."""
        with self._lock:
            return self._release(holder)

    def _release(self, holder: str) -> str | None:
        model_id, server = self._holders.pop(holder, (None, ""))
        if model_id is not None and (load := self._loads.get(model_id)) is not None:
            load.leases[server] -= 1
            load.leases += Counter()
        return model_id

    def _of(self, model_id: str) -> _Load:
        load = self._loads.pop(model_id, None) or _Load(self._clock())
        self._loads[model_id] = load
        if len(self._loads) > _MOST_REMEMBERED:
            self._forget_one()
        return load

    def _forget_one(self) -> None:
        """An avatar that nobody asks for now, and that has no lease."""
        idle = (name for name, load in self._loads.items() if not load.under_way)
        oldest = next((name for name in idle if not self._loads[name].leases), None)
        if oldest is not None:
            del self._loads[oldest]

    def _pass_time(self, load: _Load) -> None:
        """Bring the means up to date, and ask fewer servers where it is calm."""
        policy, now = self._policy, self._clock()
        passed = 1.0 - math.exp((load.now - now) / policy.mean_s)
        load.under_way_mean += (load.under_way.total() - load.under_way_mean) * passed
        load.now = now
        if load.under_way_mean > policy.calm_calls * (load.servers - 1):
            load.busy_at = now
        while load.servers > 1 and now - load.busy_at >= policy.calm_s:
            load.servers -= 1
            load.busy_at += policy.calm_s

    def _rises(self, load: _Load, late: bool) -> bool:
        """Take in whether a call was late; whether one server more is asked from now on."""
        policy = self._policy
        # About as many calls as end within the mean's time, and a few at least.
        load.late_share += (late - load.late_share) / max(8.0, 2.0 * load.under_way_mean)
        hot = load.late_share > 0.5 and load.under_way_mean > policy.hot_calls * load.servers
        if not hot or load.servers >= policy.most or load.now - load.rose_at < policy.rise_s:
            return False
        load.servers += 1
        load.late_share = 0.0
        load.rose_at = load.busy_at = load.now
        return True
