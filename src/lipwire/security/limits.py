"""How much each tenant may ask for."""

import math
from dataclasses import dataclass
from typing import Final

from limits import RateLimitItem, RateLimitItemPerMinute, RateLimitItemPerSecond
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from lipwire.domain import Access, Overloaded

_SHORTEST_S: Final = 0.05
_FRAMES_SPAN_S: Final = 10
_LARGEST_BATCH: Final = 50
"""Frames of a request, at most."""


@dataclass(frozen=True, slots=True)
class LimitRules:
    """What each tenant may ask one process of a server for; None is no limit."""

    requests_per_minute: int | None = None
    frames_per_second: int | None = None
    """Frames of batches; live sessions make their own, 25 a second each."""


class TenantLimits:
    """Counts what tenants ask for. Thread-safe. Callers without a tenant are counted each by
    itself."""

    def __init__(self, rules: LimitRules) -> None:
        self._counter = SlidingWindowCounterRateLimiter(MemoryStorage())
        requests, frames = rules.requests_per_minute, rules.frames_per_second
        self._requests = None if requests is None else RateLimitItemPerMinute(requests)
        self._frames = None
        if frames is not None:
            # Over so long that the largest batch is let in.
            span_s = max(_FRAMES_SPAN_S, math.ceil(_LARGEST_BATCH / frames))
            self._frames = RateLimitItemPerSecond(span_s * frames, span_s)

    def take(self, access: Access, frames: int) -> None:
        """Count a request of ``frames`` frames, which may be 0, for the tenant of ``access``, or
        for its subject where it has none. Raises Overloaded, with after how many seconds to come
        back (``retry_after_s``), where that is more than it may ask for; the request is then not
        counted."""
        who = f"tenant {access.tenant}" if access.tenant else access.subject
        counted: list[tuple[RateLimitItem, int]] = []
        if self._requests is not None:
            allowed = f"{self._requests.amount} requests a minute"
            self._check(self._requests, who, 1, allowed)
            counted.append((self._requests, 1))
        if self._frames is not None and frames:
            allowed = f"{self._frames.amount // self._frames.multiples} frames a second"
            self._check(self._frames, who, frames, allowed)
            counted.append((self._frames, frames))
        for limit, cost in counted:
            self._counter.hit(limit, who, cost=cost)

    def _check(self, limit: RateLimitItem, who: str, cost: int, allowed: str) -> None:
        if self._counter.test(limit, who, cost=cost):
            return
        stats = self._counter.get_window_stats(limit, who)
        span_s = limit.get_expiry()
        # So long until as much as was asked for beyond the rest has left the window.
        missing = max(1, cost - stats.remaining)
        raise Overloaded(
            f"{who} asks for more than {allowed}; allowed is no more",
            retry_after_s=max(_SHORTEST_S, min(span_s, span_s * missing / limit.amount)),
        )
