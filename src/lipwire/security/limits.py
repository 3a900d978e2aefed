"""How much each tenant may ask for."""

import math
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from limits import RateLimitItem, RateLimitItemPerMinute, RateLimitItemPerSecond
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from lipwire.domain import Access, LimitExceeded
from lipwire.security.shared.counts import Asked, SharedCounts
from lipwire.stores import StoreAway

REQUESTS: Final = "requests"
FRAMES: Final = "frames"
UPLOAD: Final = "upload"
_SHORTEST_S: Final = 0.05
_FRAMES_SPAN_S: Final = 10
_LARGEST_BATCH: Final = 50
"""Frames of a request, at most."""
_MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class LimitRules:
    """What each tenant may ask one process of a server for, or all that share their counts; None is
    no limit. ``frames_per_second`` counts the frames of batches, not those of live sessions;
    ``upload_mb_per_minute`` counts the bytes that clients send in requests and messages, in MiB.
    ``bool(rules)`` is False where nothing is limited."""

    requests_per_minute: int | None = None
    frames_per_second: int | None = None
    """Frames of batches; live sessions make their own, 25 a second each."""
    upload_mb_per_minute: int | None = None
    """What requests, bodies and messages bring, in MiB."""

    def __bool__(self) -> bool:
        """Whether anything is limited."""
        rules = (self.requests_per_minute, self.frames_per_second, self.upload_mb_per_minute)
        return any(one is not None for one in rules)

    def divided_by(self, processes: int) -> "LimitRules":
        """Return rules for one of ``processes`` (1 or more) that do not share their counts: each
        limit divided by their number, rounded down, but at least 1; None stays None."""

        def share(most: int | None) -> int | None:
            return None if most is None else max(1, most // processes)

        return LimitRules(
            share(self.requests_per_minute),
            share(self.frames_per_second),
            share(self.upload_mb_per_minute),
        )


@dataclass(frozen=True, slots=True)
class Standing:
    """How much of one limit a tenant has left: ``remaining`` of the ``most`` that may be asked for
    within ``span_s`` seconds; ``renewed_in_s`` is after how many seconds ``remaining`` will be
    greater. ``policy`` says what is counted: "requests", "frames" or "upload" (bytes)."""

    policy: str
    """``requests``, ``frames`` or ``upload``."""
    most: int
    """What may be asked for within ``span_s``: requests, frames or bytes."""
    span_s: int
    remaining: int
    renewed_in_s: float
    """In how many seconds there will be more."""


class TenantLimits:
    """Counts what each tenant (customer) asks for, and refuses what is more than the rules allow. A
    caller without a tenant counts for itself. Thread-safe.

    Without ``shared`` it counts what this process is asked for; with ``shared`` what all processes
    are asked for that share it, and then a call waits for Redis, for as long as its settings say.
    While Redis does not answer, each process counts for itself and allows each limit divided by the
    number of processes that shared it.
    """

    def __init__(self, rules: LimitRules, shared: SharedCounts | None = None) -> None:
        """``shared`` counts for several processes; None where this one counts for itself."""
        self._rules = rules
        self._shared = shared
        self._lock = threading.Lock()
        self._counter = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._limits: Final = _limits_of(rules)
        self._share: tuple[int, Mapping[str, _Limit]] = (1, self._limits)
        """The limits of one of so many processes."""

    def take(self, access: Access, frames: int) -> None:
        """Count a request of ``frames`` frames (0 where it asks for none) for the tenant of
        ``access``, or for its subject where it has none. Raises LimitExceeded, with the number of
        seconds after which to try again (``retry_after_s``), where that is more than the tenant may
        ask for; the request is then not counted."""
        who = access.counts_for
        wanted = {REQUESTS: 1, **({FRAMES: frames} if frames else {})}
        self._count(who, {name: cost for name, cost in wanted.items() if name in self._limits})

    def upload(self, access: Access, size_bytes: int) -> None:
        """Count ``size_bytes`` that the caller with ``access`` has sent, for its tenant, or for
        itself where it has none. Raises LimitExceeded, with the number of seconds after which to
        try again (``retry_after_s``), where that is more than may be sent; the bytes are then not
        counted, and are not to be used."""
        if UPLOAD in self._limits and size_bytes:
            self._count(access.counts_for, {UPLOAD: size_bytes})

    def standing(self, access: Access) -> list[Standing]:
        """Return how much the tenant of ``access``, or the caller itself where it has no tenant,
        has left of each limit that is set. Counts nothing, and raises nothing."""
        who = access.counts_for
        if self._shared is not None:
            with suppress(StoreAway):
                asked = [limit.asked(name, 0) for name, limit in self._limits.items()]
                _, left = self._shared.count(who, asked)
                return [
                    Standing(each.name, each.most, each.span_s, its.remaining, its.renewed_in_s)
                    for each, its in zip(asked, left, strict=True)
                ]
        found = []
        for name, limit in self._own_limits().items():
            stats = self._counter.get_window_stats(limit.item, name, who)
            after_s = max(0.0, stats.reset_time - time.time())
            found.append(Standing(name, limit.most, limit.span_s, max(0, stats.remaining), after_s))
        return found

    def _count(self, who: str, costs: Mapping[str, int]) -> None:
        """Count what is asked for of each limit, where all of them allow it, else nothing."""
        if not costs:
            return
        if self._shared is not None:
            with suppress(StoreAway):
                asked = [self._limits[name].asked(name, cost) for name, cost in costs.items()]
                refused, left = self._shared.count(who, asked)
                if refused is not None:
                    name, cost = asked[refused].name, asked[refused].cost
                    raise self._limits[name].exceeded(name, who, cost, left[refused].remaining)
                return
        limits = self._own_limits()
        with self._lock:  # what is looked at here is what is counted, whoever asks meanwhile
            for name, cost in costs.items():
                item = limits[name].item
                if not self._counter.test(item, name, who, cost=cost):
                    stats = self._counter.get_window_stats(item, name, who)
                    raise limits[name].exceeded(name, who, cost, stats.remaining)
            for name, cost in costs.items():
                self._counter.hit(limits[name].item, name, who, cost=cost)

    def _own_limits(self) -> "Mapping[str, _Limit]":
        """The limits that this process counts by itself."""
        if self._shared is None:
            return self._limits
        members, limits = self._share
        if members != self._shared.members:
            members = self._shared.members
            limits = _limits_of(self._rules.divided_by(members))
            self._share = members, limits
        return limits


@dataclass(frozen=True, slots=True)
class _Limit:
    """One limit: ``item`` of the library, and ``allowed``, in words."""

    item: RateLimitItem
    allowed: str

    @property
    def most(self) -> int:
        return self.item.amount

    @property
    def span_s(self) -> int:
        return self.item.get_expiry()

    def asked(self, name: str, cost: int) -> Asked:
        return Asked(name, cost, self.most, self.span_s)

    def exceeded(self, name: str, who: str, cost: int, remaining: int) -> LimitExceeded:
        """The error for ``who``, who asks for ``cost`` while ``remaining`` are left."""
        # So long until as much as was asked for beyond the rest has left the window.
        missing = max(1, cost - remaining)
        return LimitExceeded(
            f"{who} asks for more than {self.allowed}; allowed is no more",
            policy=name,
            retry_after_s=max(_SHORTEST_S, min(self.span_s, self.span_s * missing / self.most)),
        )


def _limits_of(rules: LimitRules) -> dict[str, _Limit]:
    limits = {}
    if (requests := rules.requests_per_minute) is not None:
        limits[REQUESTS] = _Limit(RateLimitItemPerMinute(requests), f"{requests} requests a minute")
    if (frames := rules.frames_per_second) is not None:
        # Over so long that the largest batch is let in.
        span_s = max(_FRAMES_SPAN_S, math.ceil(_LARGEST_BATCH / frames))
        item = RateLimitItemPerSecond(span_s * frames, span_s)
        limits[FRAMES] = _Limit(item, f"{frames} frames a second")
    if (upload := rules.upload_mb_per_minute) is not None:
        limits[UPLOAD] = _Limit(RateLimitItemPerMinute(upload * _MIB), f"{upload} MiB a minute")
    return limits
