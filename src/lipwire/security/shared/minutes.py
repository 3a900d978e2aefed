"""Minutes of live sessions that several servers have counted, in Redis.

Each source of minutes, which is a machine's file or a process without one, has a number of its own
for each tenant and month: all that it has counted, which only grows. Writing it twice, late or once
more after Redis has lost it changes nothing, and what a tenant has used is the sum.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from lipwire.stores import RedisConnection, Script, digest

_AT_A_TIME: Final = 100
_KEPT_S: Final = 7 * 86_400
"""How long a month's numbers are kept after its end: clocks may differ."""

_EXCHANGE: Final = Script(
    """
local function count_of(text)
  local count = tonumber(text)
  if count and count >= 0 and count < 1e15 then return count end
  return 0
end
local answer = {}
for at, key in ipairs(KEYS) do
  local total = tonumber(ARGV[at + 2])
  local own, others = count_of(redis.call('HGET', key, ARGV[1])), 0
  if total > own then
    redis.call('HSET', key, ARGV[1], ARGV[at + 2])
  end
  local kept = redis.call('HGETALL', key)
  for field = 1, #kept, 2 do
    if kept[field] ~= ARGV[1] then others = others + count_of(kept[field + 1]) end
  end
  if #kept > 0 then redis.call('PEXPIRE', key, ARGV[2]) end
  answer[2 * at - 1], answer[2 * at] = own, math.min(others, 1e15)
end
return answer
"""
)
"""Keys: of each tenant. Arguments: the source, for how many milliseconds keys are kept, then of
each tenant the milliseconds that the source has counted. Returns for each tenant what the source's
number was, and the sum of the others'."""


@dataclass(frozen=True, slots=True)
class Exchanged:
    """Seconds of live sessions that a tenant has used in a month, from Redis: ``own_s`` is what the
    caller's own ``source`` had written there before, ``others_s`` the sum of all other sources."""

    own_s: float
    others_s: float


class SharedMinutes:
    """What several servers have counted of live sessions' time, in Redis. Thread-safe."""

    def __init__(self, redis: RedisConnection) -> None:
        """``redis`` stays the caller's to close."""
        self._redis = redis

    @property
    def epoch(self) -> int:
        """A number that changes when Redis may have lost what was written to it: then everything is
        to be written again with ``exchange``."""
        return self._redis.epoch

    def exchange(
        self, month: str, source: str, seconds: Mapping[str, float], *, left_s: float
    ) -> dict[str, Exchanged]:
        """Write to Redis how many ``seconds`` ``source`` (``MinutesFile.source``) has counted in
        all for each tenant, by name, in ``month`` ("2030-01"), of which ``left_s`` seconds are
        left. Return for each of these tenants, by name, how many seconds Redis had of ``source``
        before (``own_s``) and has of all other sources together (``others_s``). A lower number than
        the one that Redis has changes nothing. Waits for Redis; raises StoreAway where it does not
        answer."""
        found: dict[str, Exchanged] = {}
        tenants = list(seconds)
        for at in range(0, len(tenants), _AT_A_TIME):
            part = tenants[at : at + _AT_A_TIME]
            found |= zip(part, self._exchanged(month, source, part, seconds, left_s), strict=True)
        return found

    def _exchanged(
        self,
        month: str,
        source: str,
        tenants: Sequence[str],
        seconds: Mapping[str, float],
        left_s: float,
    ) -> list[Exchanged]:
        keys = [self._redis.key("minutes", month, digest(tenant)) for tenant in tenants]
        totals = [round(1000 * seconds[tenant]) for tenant in tenants]
        told = self._redis.script(
            _EXCHANGE, keys, [source, round(1000 * (left_s + _KEPT_S)), *totals]
        )
        return [
            Exchanged(own / 1000, others / 1000)
            for own, others in zip(told[::2], told[1::2], strict=True)
        ]
