"""Notices between processes, by Redis' channels: "look now", and nothing else.

    wait ──notice──▶ look ──▶ pause, so that looks are a second apart ──▶ wait
     └──connection lost──▶ try again ──▶ look, as notices may have been missed

What a notice says is not read, so that whoever sends one has somebody look, and no more. Who hears
none looks at intervals, as without Redis.
"""

import logging
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from lipwire.domain import DependencyMissing, Overloaded, Unavailable
from lipwire.domain.closing import Closing
from lipwire.stores.redisconnection import RedisAddress, in_one_line, new_connection

_LOG: Final = logging.getLogger("lipwire.stores.notices")
_SLICE_S: Final = 0.2
"""How often a thread that waits looks whether it is to end."""
_BEAT_S: Final = 2.0
"""After so long without a notice it is asked whether the connection is still there."""
_MOST_READ: Final = 1000
"""Notices that are read from one look to the next; where there are more, the connection is closed,
and made anew after a pause."""
_STEADY_S: Final = 10.0
"""After so long a connection counts as a good one; one that was shorter doubles the pause."""
_LONGEST_PAUSE_S: Final = 15.0


def notice(address: RedisAddress, channel: str, *, timeout_s: float = 1.0) -> int:
    """Send a notice, an empty message that means "look now", to ``channel``, the name of a channel
    of the Redis server at ``address``, and return how many have received it (``Notices`` objects
    that listen, in all processes). Waits for each answer of Redis at most ``timeout_s`` seconds,
    and not for what the receivers do. Raises Unavailable where Redis is not there or refuses the
    notice, DependencyMissing where redis-py is not installed."""
    connection = _connected(address, timeout_s)
    try:
        connection.connect()
        connection.send_command("PUBLISH", channel, "")
        return int(connection.read_response())
    except Exception as error:  # what resolving a name or a TLS handshake raises, too
        reason = in_one_line(error, address.password)
        raise Unavailable(f"Redis at {address} cannot be told: {reason}") from None
    finally:
        connection.disconnect()


class Notices(Closing):
    """Waits for notices (empty messages that mean "look now"; see ``notice``) in a channel of
    Redis, and calls a function of its owner, ``look``, in a thread of its own: after a notice, and
    whenever it has connected to Redis, because notices may have been missed before. While Redis is
    away it is tried again and again, and ``look`` is not called. Properties may be read in any
    thread. A context manager, which owns a connection and a thread."""

    def __init__(
        self,
        address: RedisAddress,
        channel: str,
        look: Callable[[], object],
        *,
        timeout_s: float = 1.0,
        retry_s: float = 2.0,
        apart_s: float = 1.0,
    ) -> None:
        """``look()`` is called in the thread when there was a notice in ``channel``, the name of a
        channel of the Redis server at ``address``, and whenever this has connected to Redis; its
        calls begin ``apart_s`` seconds apart at least, however many notices there are.
        ``timeout_s`` is how long Redis may take for an answer, ``retry_s`` after how long it is
        tried again, at first: the pause doubles, up to 15 s. Does not wait for Redis. What ``look``
        raises is logged. Raises DependencyMissing where redis-py is not installed."""
        _connected(address, timeout_s)  # to know now that redis-py is there
        self.address: Final = address
        self.channel: Final = channel
        self._look = look
        self._timeout_s, self._retry_s, self._apart_s = timeout_s, retry_s, apart_s
        self._closing = threading.Event()
        self._looked_s = -apart_s
        self._looks = 0
        self._hearing = False
        self._told = False
        self._thread = threading.Thread(target=self._run, name="lipwire-notices", daemon=True)
        self._thread.start()

    @property
    def hearing(self) -> bool:
        """Whether the connection to Redis is up and its channel subscribed, so that notices are
        heard now."""
        return self._hearing

    @property
    def looks(self) -> int:
        """How often ``look`` was called since this was made, failed calls included."""
        return self._looks

    def close(self) -> None:
        """End the thread, and close the connection. A call of ``look`` under way is waited for, for
        twice ``timeout_s`` and 0.4 s at most; it may still run when this returns. Closing twice is
        allowed."""
        self._closing.set()
        self._thread.join(2 * self._timeout_s + 2 * _SLICE_S)

    def _run(self) -> None:
        pause_s = self._retry_s
        while not self._closing.is_set():
            began_s = time.monotonic()
            connection = _connected(self.address, self._timeout_s)
            try:
                connection.connect()
                connection.send_command("SUBSCRIBE", self.channel)
                connection.read_response()
                self._hearing, self._told = True, False
                self._wait(connection)
            except Exception as error:  # what resolving a name or a TLS handshake raises, too
                self._lost(error)
            finally:
                self._hearing = False
                connection.disconnect()
            if time.monotonic() - began_s >= _STEADY_S:
                pause_s = self._retry_s
            self._closing.wait(pause_s)
            pause_s = min(_LONGEST_PAUSE_S, 2 * pause_s)

    def _wait(self, connection: Any) -> None:
        """Have somebody look now and for each notice, for as long as the connection is there."""
        due, count = True, 0
        said_s, asked = time.monotonic(), False
        while not self._closing.is_set():
            now_s = time.monotonic()
            look_at_s = self._looked_s + self._apart_s if due else now_s + _SLICE_S
            if due and now_s >= look_at_s:
                due, count = False, 0
                self._have_look(now_s)
            elif connection.can_read(max(0.0, min(_SLICE_S, look_at_s - now_s))):
                # Also while a look is due, which is for all that came before it.
                due |= connection.read_response()[0] == b"message"
                said_s, asked, count = time.monotonic(), False, count + 1
                if count > _MOST_READ:
                    raise Overloaded(f"more than {_MOST_READ} came in {self._apart_s:g} s")
            elif now_s - said_s >= _BEAT_S:
                if asked:
                    raise Unavailable(f"no answer within {_BEAT_S:g} s")
                connection.send_command("PING")
                said_s, asked = now_s, True

    def _have_look(self, now_s: float) -> None:
        self._looked_s = now_s
        self._looks += 1
        try:
            self._look()
        except Exception:  # of whoever looks: notices are waited for all the same
            _LOG.exception("what is done for a notice failed")

    def _lost(self, error: Exception) -> None:
        if self._told or self._closing.is_set():
            return
        self._told = True
        _LOG.warning(
            "notices of Redis at %s are not heard: %s; the store is looked at at intervals",
            self.address,
            in_one_line(error, self.address.password),
        )


def _connected(address: RedisAddress, timeout_s: float) -> Any:
    try:
        return new_connection(address, timeout_s)
    except ModuleNotFoundError:
        raise DependencyMissing("notices need redis-py: pip install 'lipwire[redis]'") from None
