"""What tenants have asked for, counted in Redis for all servers that share it.

A count is that of a sliding window, as the library ``limits`` has it in memory: what the present
window has, and as much of the one before as still lies within the span. One script looks at all
limits of a request and counts it where each allows it, so that one answer of Redis is all that a
request waits for. Windows begin by Redis' clock, which is the same for all servers.
"""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from lipwire.stores import RedisConnection, Script, digest

_MEMBER_S: Final = 15
"""After so long a process that was not heard of shares no more."""

_COUNT: Final = Script(
    """
local now = tonumber(ARGV[1])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
local function count_of(text)
  local count = tonumber(text)
  if count and count >= 0 and count < 9e15 then return count end
end
local refused, answer, changed, counted = 0, {0}, {}, 0
local lasts = redis.call('PTTL', KEYS[1])
for at = 2, #ARGV, 4 do
  local name, cost = ARGV[at], tonumber(ARGV[at + 1])
  local most, span = tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
  local kept = redis.call('HMGET', KEYS[1], name .. ':window', name .. ':now', name .. ':before')
  local window, was = math.floor(now / span), count_of(kept[1])
  local current, before = count_of(kept[2]), count_of(kept[3])
  if not (was and current and before) or was < window - 1 or was > window + 1 then
    current, before = 0, 0
  elseif was == window - 1 then
    current, before = 0, current
  else
    window = was
  end
  local left = math.min(span, math.max(0, (window + 1) * span - now))
  local weighted = before * left / span + current
  if cost > 0 then
    counted = counted + cost
    if refused == 0 and not (weighted < most - cost + 1) then refused = (at + 2) / 4 end
    for _, pair in ipairs({{'window', window}, {'now', current + cost}, {'before', before}}) do
      changed[#changed + 1] = name .. ':' .. pair[1]
      changed[#changed + 1] = string.format('%.0f', pair[2])
    end
  end
  lasts = math.max(lasts, 2 * span)
  answer[#answer + 1] = math.max(0, most - math.floor(weighted))
  local renewed = current > 0 and left or 0
  if before > 0 then
    local part = left % (span / before)
    renewed = current > 0 and math.min(part, left) or part
  end
  answer[#answer + 1] = math.floor(renewed)
end
if refused == 0 and counted > 0 then
  redis.call('HSET', KEYS[1], unpack(changed))
  redis.call('PEXPIRE', KEYS[1], lasts)
end
answer[1] = refused
return answer
"""
)
"""Keys: the tenant's. Arguments: milliseconds of a clock or an empty text for Redis' own, then of
each limit its name, what is asked for, how much is allowed, and within how many milliseconds.
Returns the number of the limit that refuses, from 1, or 0; then of each limit what is left of it
without this request, and in how many milliseconds there will be more."""

_MEMBERS: Final = Script(
    """
local time = redis.call('TIME')
redis.call('ZADD', KEYS[1], time[1], ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', time[1] - ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '(' .. time[1], '+inf')
redis.call('EXPIRE', KEYS[1], ARGV[2])
return redis.call('ZCARD', KEYS[1])
"""
)
"""Keys: the processes. Arguments: this one, and after how many seconds one is forgotten. Returns
how many there are."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked for of the limit called ``name``: ``cost`` of the ``most`` that are allowed
    within ``span_s`` seconds; a cost of 0 only asks how much is left."""

    name: str
    cost: int
    most: int
    span_s: int


@dataclass(frozen=True, slots=True)
class Left:
    """How much of one limit is left (``remaining``), and in how many seconds there will be more
    (``renewed_in_s``)."""

    remaining: int
    renewed_in_s: float


class SharedCounts:
    """Counts in Redis what tenants ask for, for all processes that share it. Thread-safe."""

    def __init__(self, redis: RedisConnection, *, now_s: Callable[[], float] | None = None) -> None:
        """``redis`` stays the caller's to close. ``now_s`` gives seconds in place of Redis'
        clock."""
        self._redis = redis
        self._now_s = now_s
        self._member: Final = secrets.token_hex(8)
        self.members = 1
        """How many processes share the counts, as Redis last knew, this one among them."""
        redis.each_beat(self._join)

    def count(self, who: str, asked: Sequence[Asked]) -> tuple[int | None, list[Left]]:
        """Count for ``who`` (any text that names the caller, such as "tenant anna") what is
        ``asked`` for, if all limits allow it; else count nothing. Each of ``asked`` is ``cost`` of
        the ``most`` that the limit ``name`` allows within ``span_s`` seconds; a cost of 0 asks only
        what is left. Return (index, left): ``index`` is the place in ``asked`` of the first limit
        that does not allow it, from 0, or None where all do; ``left`` has for each of ``asked``
        what was left before this call (``remaining``), and in how many seconds there will be more
        (``renewed_in_s``; 0 where all is left). Waits for Redis. Raises StoreAway where Redis does
        not answer; what was asked for may have been counted then."""
        now_ms = "" if self._now_s is None else str(round(self._now_s() * 1000))
        told: list[str | int] = [now_ms]
        for each in asked:
            # A limit of another span, as one of another configuration, is another count.
            name = f"{each.name}:{each.span_s}"
            told += [name, each.cost, each.most, 1000 * each.span_s]
        key = self._redis.key("limits", digest(who))
        refused, *left = self._redis.script(_COUNT, [key], told)
        return (
            refused - 1 if refused else None,
            [
                Left(remaining, in_ms / 1000)
                for remaining, in_ms in zip(left[::2], left[1::2], strict=True)
            ],
        )

    def _join(self) -> None:
        """Tell the others of this process, and learn how many there are."""
        key = self._redis.key("members")
        self.members = max(1, int(self._redis.script(_MEMBERS, [key], [self._member, _MEMBER_S])))
