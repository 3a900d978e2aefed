"""How many live sessions each tenant has at all servers that share a Redis server.

Each session is a member of its tenant's set, under a name of its own, for as long as it is renewed:
so those of a server that was killed count no more after some seconds, and a session that is told
twice, late, or once more after Redis has forgotten it, counts once.
"""

import logging
import secrets
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from lipwire.domain import Overloaded
from lipwire.stores import RedisConnection, Script, StoreAway, digest

_LOG: Final = logging.getLogger(__name__)
LEASE_S: Final = 6.0
"""How long a session counts that nobody renews."""
_RENEW_EVERY_S: Final = LEASE_S / 3
_RETRY_AFTER_S: Final = 5.0

_BEGIN: Final = Script(
    """
local time = redis.call('TIME')
local now = time[1] + time[2] / 1e6
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
local count = redis.call('ZCARD', KEYS[1])
if count >= tonumber(ARGV[2]) then return count end
redis.call('ZADD', KEYS[1], now + ARGV[3], ARGV[1])
redis.call('EXPIRE', KEYS[1], ARGV[3])
return -1
"""
)
"""Keys: the tenant's. Arguments: the session, how many there may be, and for how many seconds it
counts. Returns -1, or how many there are where there may be no more."""

_RENEW: Final = Script(
    """
local time = redis.call('TIME')
local now = time[1] + time[2] / 1e6
for at = 2, #ARGV do redis.call('ZADD', KEYS[1], now + ARGV[1], ARGV[at]) end
redis.call('EXPIRE', KEYS[1], ARGV[1])
return 1
"""
)
"""Keys: the tenant's. Arguments: for how many seconds sessions count, then the sessions."""


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """The place of one session among those of its tenant, as ``begin`` returns it for ``end``: the
    ``tenant``, and a random ``name``."""

    tenant: str
    name: str


class SharedSessions:
    """Counts the live sessions of each tenant, in all processes that share Redis. Thread-safe.
    While Redis does not answer, ``begin`` refuses nothing."""

    def __init__(
        self, redis: RedisConnection, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """``redis`` stays the caller's to close; its thread renews the sessions in Redis. ``clock``
        gives seconds."""
        self._redis = redis
        self._clock = clock
        self._lock = threading.Lock()
        self._places: set[Place] = set()
        self._renewed_s = clock()
        self._epoch = redis.epoch
        redis.each_beat(self._renew)

    def begin(self, tenant: str, most: int) -> Place:
        """Count one more session of ``tenant``, and return its place, to be given to ``end``.
        Raises Overloaded where the tenant has ``most`` already, at all servers together. While
        Redis is away, nothing is refused here."""
        place = Place(tenant, secrets.token_hex(8))
        with self._lock:
            self._places.add(place)  # before Redis has it: who renews meanwhile renews it, too
        try:
            count = int(
                self._redis.script(_BEGIN, [self._key(tenant)], [place.name, most, round(LEASE_S)])
            )
        except StoreAway:
            return place  # it is told when Redis is back
        if count >= 0:
            self.end(place)
            raise Overloaded(
                f"{count} live sessions of the tenant run at all servers; allowed are {most}",
                retry_after_s=_RETRY_AFTER_S,
            )
        return place

    def end(self, place: Place) -> None:
        """Stop counting the session at ``place``. Does nothing where that was done before. Raises
        nothing: where Redis does not answer, the session still counts there for some seconds, until
        it expires."""
        with self._lock:
            if place not in self._places:
                return
            self._places.discard(place)
        self._remove([place])

    def _renew(self) -> None:
        """Have the sessions of this process count for another while."""
        now_s, epoch = self._clock(), self._redis.epoch
        if epoch == self._epoch and now_s - self._renewed_s < _RENEW_EVERY_S:
            return
        with self._lock:
            renewed = list(self._places)
        by_tenant: defaultdict[str, list[str]] = defaultdict(list)
        for place in renewed:
            by_tenant[place.tenant].append(place.name)
        for tenant, names in by_tenant.items():
            self._redis.script(_RENEW, [self._key(tenant)], [round(LEASE_S), *names])
        self._renewed_s, self._epoch = now_s, epoch
        with self._lock:
            ended = [place for place in renewed if place not in self._places]
        self._remove(ended)  # which the renewal may have come after

    def _remove(self, places: Iterable[Place]) -> None:
        for place in places:
            try:
                self._redis.run("ZREM", self._key(place.tenant), place.name)
            except StoreAway as error:  # it counts until its time is over
                _LOG.debug("a session that has ended counts for a while: %s", error)

    def _key(self, tenant: str) -> str:
        return self._redis.key("sessions", digest(tenant))
