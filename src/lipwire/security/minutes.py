"""Minutes of live sessions that each tenant has used in a calendar month (UTC), in a file, and by
Redis of all servers that share one.

A process counts the sessions that it has, and from time to time adds what has passed to the file,
under a lock, and learns from it what the machine's other processes have added: so all of them share
one count, each of which is late by no more than that time. The file is replaced whole, so that a
process that ends or is killed meanwhile leaves the one or the other. What the file has is then told
to Redis, which says what other machines have.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from lipwire.domain import LipwireError, MinutesUsedUp
from lipwire.domain.closing import Closing
from lipwire.security.minutesfile import MinutesFile, MinutesInMemory
from lipwire.security.shared.minutes import SharedMinutes
from lipwire.stores import StoreAway

EVERY_S: Final = 5.0
"""How often the file is written and read, while sessions run or are to begin."""
_LOG: Final = logging.getLogger("lipwire.security")
_LONG_S: Final = 600.0
"""For so long Redis is asked about a tenant that nobody asks about any more."""


class LiveMinutes(Closing):
    """Counts how long the live sessions of each tenant have lasted this month (UTC), in a file that
    all processes of a machine share, and, with ``shared``, in Redis for several machines.
    Thread-safe; a context manager, at whose end all that was counted is written into the file.
    Sessions of callers without a tenant are counted together."""

    def __init__(
        self,
        path: Path | None,
        most_minutes: float,
        shared: SharedMinutes | None = None,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        """``path`` is the file, made where it is not there, and ``most_minutes`` what each tenant
        may use in a month. ``shared`` gives what other machines have counted; None where there are
        no others. Without a ``path`` this process counts in memory; what was not written to
        ``shared`` is lost when the process ends. ``now`` gives seconds since 1970. Raises
        InvalidInput where the file is damaged, and StorageFailed where it cannot be written."""
        self.most_minutes: Final = most_minutes
        self._kept: Final = MinutesInMemory() if path is None else MinutesFile(path)
        self._shared = shared
        self._now = now
        self._lock = threading.Lock()
        """Of the numbers; nobody waits for the disk or Redis with it."""
        self._syncing = threading.Lock()
        self._month = _month(now())
        self._known: dict[str, float] = {}
        """Seconds of each tenant, as the file had them last."""
        self._own: dict[str, float] = {}
        """Those that are not in the file yet."""
        self._others: dict[str, float] = {}
        """Those of other machines, of the tenants that somebody wants to know about."""
        self._wanted_s: dict[str, float] = {}
        """When each of these was last asked about."""
        self._read_s: dict[str, float] = {}
        """When Redis was last asked about each."""
        self._epoch = 0
        self._synced_s = now()
        self._failing = False
        self._sync()

    def check(self, tenant: str) -> None:
        """Raise MinutesUsedUp, with the minutes used and the time until the next month, where
        ``tenant`` (empty: callers without one) has used its minutes of this month. May call
        ``sync``, and so wait for the file and Redis."""
        with self._lock:
            self._wanted_s[tenant] = self._now()
            read_s = self._read_s.get(tenant)
        new = self._shared is not None and (read_s is None or self._now() - read_s >= EVERY_S)
        if new or self.due:
            self.sync()
        with self._lock:
            self._begin_month()
            used_s = self._used_s(tenant)
        if used_s < 60 * self.most_minutes:
            return
        now = self._now()
        renewed_s = _next_month_s(now)
        begins = datetime.fromtimestamp(renewed_s, UTC).date().isoformat()
        whose = f"tenant {tenant}" if tenant else "this server"
        raise MinutesUsedUp(
            f"{whose} has used {used_s / 60:.0f} minutes of live sessions this month; allowed are"
            f" {self.most_minutes:g}, and the next month begins on {begins} (UTC)",
            used_minutes=used_s / 60,
            allowed_minutes=self.most_minutes,
            renewed_in_s=renewed_s - now,
        )

    def spend(self, tenant: str, seconds: float) -> bool:
        """Count ``seconds`` of a session of ``tenant`` (empty: callers without one), and return
        whether the tenant has any time left this month. Does not use the file or Redis: ``sync``
        writes there what was counted, later."""
        with self._lock:
            self._begin_month()
            self._wanted_s[tenant] = self._now()
            self._own[tenant] = self._own.get(tenant, 0.0) + seconds
            return self._used_s(tenant) < 60 * self.most_minutes

    @property
    def due(self) -> bool:
        """Whether ``sync`` is to be called: True where its last call was 5 seconds (``EVERY_S``) or
        more ago. The owner of this object asks now and then, and calls ``sync``; ``check`` does so
        by itself."""
        return self._now() - self._synced_s >= EVERY_S

    def sync(self) -> None:
        """Add to the file what was counted since the last time, and read what other processes and
        machines have added. Waits for the disk and for Redis. Raises nothing: a failure is logged,
        once, and what was counted is kept until it can be written."""
        with self._syncing:
            try:
                self._sync()
            except LipwireError as error:
                if not self._failing:
                    _LOG.error("minutes of live sessions are not kept: %s", error)
                self._failing = True
            else:
                self._failing = False

    def close(self) -> None:
        """Write what was counted into the file and, with ``shared``, tell Redis of it. Waits for
        both. Raises nothing: a failure is logged, and what was not written is lost when the process
        ends."""
        self.sync()

    def _sync(self) -> None:
        self._synced_s = self._now()
        with self._kept.locked():
            kept_month, kept = self._kept.read()
            with self._lock:
                self._begin_month()
                month, counted = self._month, dict(self._own)
                wanted = self._wanted()
            known = kept if kept_month == month else {}
            # What is told is what is kept: it stays true when this process ends here.
            changed = self._exchange(month, known, wanted)
            for tenant, seconds in counted.items():
                known[tenant] = known.get(tenant, 0.0) + seconds
            if counted or changed or not self._kept.there:
                self._kept.write(month, known)
            if counted:
                self._exchange(month, known, counted)
        with self._lock:
            if month == self._month:
                self._known = known
            for tenant, seconds in counted.items():
                self._own[tenant] = self._own.get(tenant, 0.0) - seconds
                if self._own[tenant] <= 0:
                    del self._own[tenant]

    def _exchange(self, month: str, known: dict[str, float], wanted: Iterable[str]) -> bool:
        """Tell Redis of ``known`` for the tenants ``wanted``, of all where it may have lost that,
        and learn what others have counted. Returns whether it knew of more that this machine has
        counted, which was lost here: that is then in ``known``."""
        if self._shared is None:
            return False
        epoch = self._shared.epoch
        tenants = {*wanted, *(known if epoch != self._epoch else ())}
        now_s, more = self._now(), False
        told = {tenant: known.get(tenant, 0.0) for tenant in tenants}
        with self._lock:
            self._read_s |= dict.fromkeys(tenants, now_s)  # or tried to
        with suppress(StoreAway):
            left_s = _next_month_s(now_s) - now_s
            found = self._shared.exchange(month, self._kept.source, told, left_s=left_s)
            self._epoch = epoch
            with self._lock:
                for tenant, each in found.items():
                    self._others[tenant] = each.others_s
            for tenant, each in found.items():
                if each.own_s > round(told[tenant], 3):
                    known[tenant], more = each.own_s, True
        return more

    def _wanted(self) -> list[str]:
        """The tenants that somebody has asked about; others are forgotten. The lock is held."""
        now_s = self._now()
        self._wanted_s = {t: at_s for t, at_s in self._wanted_s.items() if now_s - at_s < _LONG_S}
        for numbers in (self._others, self._read_s):
            for tenant in numbers.keys() - self._wanted_s.keys():
                del numbers[tenant]
        return list(self._wanted_s)

    def _used_s(self, tenant: str) -> float:
        known_s = self._known.get(tenant, 0.0) + self._own.get(tenant, 0.0)
        return known_s + self._others.get(tenant, 0.0)

    def _begin_month(self) -> None:
        """Forget what was used where a month has begun since. The lock is held."""
        month = _month(self._now())
        if month != self._month:
            self._month = month
            self._known, self._own = {}, {}
            self._others, self._read_s = {}, {}


def _month(now_s: float) -> str:
    return datetime.fromtimestamp(now_s, UTC).strftime("%Y-%m")


def _next_month_s(now_s: float) -> float:
    now = datetime.fromtimestamp(now_s, UTC)
    year, month = (now.year + 1, 1) if now.month == 12 else (now.year, now.month + 1)
    return datetime(year, month, 1, tzinfo=UTC).timestamp()
