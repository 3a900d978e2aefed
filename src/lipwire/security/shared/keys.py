"""API keys that several servers tell each other of by Redis: which were revoked, and new ones.

A key is known by its hash, of a text that is made once and never again. So one that was revoked
anywhere stays so everywhere, whoever tells of it later, and no clocks are compared.
"""

import json
import logging
import re
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from typing import Final

from lipwire.domain import Access, Unauthenticated
from lipwire.security.keys import ApiKey, KeyFile, hash_of, key_of
from lipwire.stores import RedisConnection, Script, StoreAway

_LOG: Final = logging.getLogger("lipwire.security")
_KEPT_S: Final = 90 * 86_400
_MOST: Final = 20_000
"""Where so many are kept, only revoked ones are added."""
_LARGEST_BYTES: Final = 8192
_NEW: Final = "new:"
_GONE: Final = "gone:"
_NAME: Final = re.compile(f"({_NEW}|{_GONE})([0-9a-f]{{64}})")

_TELL: Final = Script(
    """
local added = 0
for at = 3, #ARGV, 2 do
  local name, gone = ARGV[at], string.match(ARGV[at], '^gone:(.*)')
  if gone then redis.call('HDEL', KEYS[1], 'new:' .. gone) end
  if gone or redis.call('HLEN', KEYS[1]) < tonumber(ARGV[2]) then
    added = added + redis.call('HSETNX', KEYS[1], name, ARGV[at + 1])
  end
end
if added > 0 then redis.call('HINCRBY', KEYS[1], 'version', added) end
redis.call('EXPIRE', KEYS[1], ARGV[1])
return redis.call('HGET', KEYS[1], 'version')
"""
)
"""Keys: the one of all that is told. Arguments: for how many seconds it is kept, with how many in
it no new keys are added, then names and texts. Returns another text than before where something was
added."""


class SharedKeys:
    """The API keys of a file, less those that were revoked at any server that shares a Redis
    server, and with ``new`` also those of the others' files. Thread-safe.

    What was read from Redis stays in force while Redis does not answer. A change is written to
    Redis within about a second, and read by the other servers within about another.
    """

    def __init__(
        self,
        file: KeyFile,
        redis: RedisConnection,
        *,
        new: bool,
        now: Callable[[], float] = time.time,
    ) -> None:
        """``redis`` stays the caller's to close. With ``new``, keys of other servers' files are
        accepted here, and those of ``file`` are written to Redis for the other servers. ``now``
        gives seconds since 1970."""
        self._file = file
        self._redis = redis
        self._takes_new = new
        self._now = now
        self._lock = threading.Lock()
        """Of ``sync``."""
        self._gone: set[str] = set()
        """Hashes of keys that were revoked anywhere."""
        self._new: dict[str, ApiKey] = {}
        """By their hashes, those of all servers."""
        self._told: set[str] = set()
        self._epoch = 0
        self._version: object = None
        self._damaged = False
        with suppress(StoreAway):
            self.sync()
        redis.each_beat(self.sync)

    def access(self, key: str) -> Access:
        """Return what the whole ``key``, as a caller sent it (``lipwire_NAME_SECRET``), allows.
        Does not wait for Redis. Raises Unauthenticated where it is not known, was revoked or has
        expired."""
        given = hash_of(key)
        if given in self._gone:
            raise Unauthenticated("the API key is not known here; it may have been revoked")
        try:
            return self._file.access(key)
        except Unauthenticated:
            # Found by its hash: how long that takes tells nothing of the key.
            found = self._new.get(given)
            _, revoked = self._file.now_in_it()
            if found is None or given in revoked:
                raise
            return found.access(self._now())

    def sync(self) -> None:
        """Write to Redis what other servers do not know of this file yet, and read what they have
        written. The thread of the connection to Redis calls this by itself, about once a second.
        Raises StoreAway where Redis does not answer."""
        with self._lock:
            self._sync()

    def _sync(self) -> None:
        keys, revoked = self._file.now_in_it()
        self._gone = self._gone | revoked
        if self._redis.epoch != self._epoch:  # it may have lost all
            self._told.clear()
            self._version = None
        epoch = self._redis.epoch
        texts = {_GONE + sha256: "1" for sha256 in self._gone}
        if self._takes_new:
            fresh = [one for one in keys if one.sha256 not in self._gone]
            texts |= {_NEW + one.sha256: json.dumps(asdict(one)) for one in fresh}
        telling = [name for name in texts if name not in self._told]
        told = [each for name in telling for each in (name, texts[name])]
        shared = self._redis.key("keys")
        version = self._redis.script(_TELL, [shared], [_KEPT_S, _MOST, *told])
        self._told.update(telling)
        self._epoch = epoch
        if version != self._version or version is None:
            self._hear(self._redis.run("HGETALL", shared))
            self._version = version

    def _hear(self, answer: list[bytes]) -> None:
        gone, new = set(self._gone), dict(self._new)
        heard = {
            name.decode("ascii", "replace"): text
            for name, text in zip(answer[::2], answer[1::2], strict=True)
        }
        for name, text in heard.items():
            known = _NAME.fullmatch(name)
            if known is None:
                continue
            sha256 = known[2]
            if known[1] == _GONE:
                gone.add(sha256)
            elif self._takes_new:
                found = _parsed(text)
                if found is not None and found.sha256 == sha256:
                    new[sha256] = found
                elif not self._damaged:
                    self._damaged = True
                    _LOG.warning("Redis at %s has an API key that is none", self._redis.address)
        self._gone = gone
        self._new = {sha256: one for sha256, one in new.items() if sha256 not in gone}
        self._told &= heard.keys()  # what somebody has removed is told again


def _parsed(text: bytes) -> ApiKey | None:
    try:
        return key_of(json.loads(text)) if len(text) <= _LARGEST_BYTES else None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
