"""How much each tenant may ask for."""

from dataclasses import dataclass
from typing import Final

from limits import RateLimitItem, RateLimitItemPerMinute, RateLimitItemPerSecond
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from lipwire.domain import Access, Overloaded

_SHORTEST_S: Final = 0.05


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
        # A batch that is larger than what a second allows is counted over several of them.
        self._frames = None if frames is None else RateLimitItemPerSecond(10 * frames, 10)

    def take(self, access: Access, frames: int) -> None:
        """Count a request of ``frames`` frames, which may be 0, for the tenant of ``access``, or
        for its subject where it has none. Raises Overloaded, with after how many seconds to come
        back (``retry_after_s``), where that is more than it may ask for. What is refused for its
        frames still counts as a request."""
        who = f"tenant {access.tenant}" if access.tenant else access.subject
        if self._requests is not None:
            self._count(self._requests, who, 1, f"{self._requests.amount} requests a minute")
        if self._frames is not None and frames:
            allowed = f"{self._frames.amount // 10} frames a second"
            self._count(self._frames, who, frames, allowed)

    def _count(self, limit: RateLimitItem, who: str, cost: int, allowed: str) -> None:
        if self._counter.hit(limit, who, cost=cost):
            return
        stats = self._counter.get_window_stats(limit, who)
        span_s = limit.get_expiry()
        # So long until as much as was asked for beyond the rest has left the window.
        missing = max(1, cost - stats.remaining)
        raise Overloaded(
            f"{who} asks for more than {allowed}; allowed is no more",
            retry_after_s=max(_SHORTEST_S, min(span_s, span_s * missing / limit.amount)),
        )
