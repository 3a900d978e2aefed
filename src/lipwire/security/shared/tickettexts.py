"""Tickets that count at all servers that share a Redis server: what each allows, under its hash."""

import threading
import time
from collections.abc import Callable
from typing import Final

from lipwire.stores import RedisConnection, Script, StoreAway

_LARGEST_BYTES: Final = 1 << 16
_READ: Final = Script(
    """
return {redis.call('GETRANGE', KEYS[1], 0, ARGV[1]), redis.call('PTTL', KEYS[1])}
"""
)
"""Keys: the ticket's. Arguments: the number of its last byte that is read. Returns the text, empty
where there is none, and in how many milliseconds it ends, -1 where it does not."""


class SharedTexts:
    """Keeps texts by name in Redis, each for a number of seconds. Thread-safe.

    A text that was taken with ``take`` is not found again by this object, even where Redis has
    returned to an earlier state, for example after a restart from a file.
    """

    def __init__(
        self, redis: RedisConnection, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """``redis`` stays the caller's to close. ``clock`` gives seconds."""
        self._redis = redis
        self._clock = clock
        self._lock = threading.Lock()
        self._taken: dict[str, float] = {}
        """What was taken here, and until when it could come again."""

    def put(self, name: str, text: str, lasts_s: float) -> None:
        """Keep ``text`` as ``name``, hexadecimal digits, for ``lasts_s`` seconds, in place of what
        has that name. Raises StoreAway where Redis does not answer (it may be kept then), or
        ``text`` has more than 65,536 bytes (UTF-8)."""
        data = text.encode("utf-8", "surrogatepass")
        if len(data) > _LARGEST_BYTES:
            raise StoreAway(f"{len(data)} bytes; allowed are {_LARGEST_BYTES}")
        with self._lock:
            self._taken.pop(name, None)
        self._redis.run("SET", self._key(name), data, "PX", max(1, round(1000 * lasts_s)))

    def get(self, name: str) -> tuple[str, float] | None:
        """Return the text of ``name``, hexadecimal digits, and in how many seconds it expires; None
        where there is none. Raises StoreAway where Redis does not answer."""
        data, ends_ms = self._redis.script(_READ, [self._key(name)], [_LARGEST_BYTES - 1])
        with self._lock:
            taken = name in self._taken
        if taken or not data or ends_ms <= 0:
            return None
        return data.decode("utf-8", "replace"), ends_ms / 1000

    def take(self, name: str, lasts_s: float) -> bool:
        """Forget the text of ``name``, hexadecimal digits, and return whether it was there. Where
        several callers do so at the same time, at whatever server, only one gets True. ``lasts_s``
        is in how many seconds the text would have expired, which ``get`` returns with the text: for
        that long this object does not find it again. Raises StoreAway where Redis does not answer;
        the text may be forgotten then."""
        now_s = self._clock()
        with self._lock:
            self._taken = {one: until_s for one, until_s in self._taken.items() if until_s > now_s}
            if name in self._taken:
                return False
        took: int = self._redis.run("DEL", self._key(name))
        if took == 1:
            with self._lock:
                self._taken[name] = now_s + lasts_s
        return took == 1

    def _key(self, name: str) -> str:
        return self._redis.key("ticket", name)
