"""A connection to a Redis server that may be away: nobody waits for it for longer than a bound.

Commands go over one connection, which a thread opens, looks after and opens again. Where a command
fails or takes too long, the connection is closed and Redis is away: commands fail at once, without
being sent, until the thread has reached it again. Each caller says what it does meanwhile.
"""

import hashlib
import logging
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from lipwire.domain import DependencyMissing, InvalidInput
from lipwire.domain.closing import Closing

_LOG: Final = logging.getLogger("lipwire.stores")
BEAT_S: Final = 1.0
"""How often the connection is used at least, so that nobody's request finds out first."""
_CONNECT_S: Final = 2.0
"""How long connecting may take, in the thread; the TLS handshake is part of it."""
_START_S: Final = 1.0
"""How long a server that starts waits to know whether Redis is there."""
_STEADY_S: Final = 10.0
"""After so long a connection counts as a good one; one that was shorter doubles the pause."""
_LONGEST_PAUSE_S: Final = 15.0
_TRIAL_MS: Final = 1000
_AWAY: Final = (
    "BUSY",
    "CLUSTERDOWN",
    "LOADING",
    "MASTERDOWN",
    "MISCONF",
    "MOVED",
    "NOAUTH",
    "NOPERM",
    "NOREPLICAS",
    "OOM",
    "READONLY",
    "UNKILLABLE",
)
"""How errors begin of which a server has more than one command's worth (Redis' error codes)."""


class StoreAway(Exception):
    """Redis cannot be asked now: it was away, took too long, or another thread held the connection
    for too long. Whoever asked does without. Never shown to a client."""


class StoreDamaged(StoreAway):
    """Redis is there, but refused this one command, or its value of a key is of another type than
    the one that Lipwire writes there. Other commands still work."""


@dataclass(frozen=True, slots=True)
class RedisTls:
    """Files in PEM with which connections are encrypted: ``ca`` has the certificates by which the
    server's certificate is checked (None: those of the system); ``cert`` and ``key`` are the
    certificate and the private key of this client, which the server is shown: both, or neither
    (None)."""

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """Where a Redis server is, the number of the database there, and by which name and password
    Lipwire signs in (None: without). ``tls`` has the files that encrypt; None: nothing is
    encrypted. As text, and in the repr, it has no password."""

    host: str
    port: int = 6379
    database: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: RedisTls | None = None
    """None where nothing is encrypted."""

    def __str__(self) -> str:
        """Host and port, for logs."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


class _Connection(Protocol):
    """What is used of redis-py's ``Connection``, which has no types."""

    def connect(self) -> object: ...
    def disconnect(self) -> object: ...
    def send_command(self, *command: str | int | bytes) -> object: ...
    def read_response(self) -> Any: ...


class Script:
    """A Lua script, which Redis runs as one step: ``text``, and ``sha1``, its hash in hexadecimal
    digits. Redis is sent the hash, and the text where it does not know the hash. Run it with
    ``RedisConnection.script``."""

    def __init__(self, text: str) -> None:
        self.text: Final = text
        self.sha1: Final = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


@dataclass(frozen=True, slots=True)
class RedisStats:
    """What a connection to Redis has done since it was made: whether Redis is there now (``up``),
    how often it was away (``outages``), ``commands`` that were answered, how many ``seconds`` these
    took together, and how many commands were ``missed``: not answered, or not sent as Redis was
    away."""

    up: bool
    """Whether Redis is there."""
    outages: int
    """How often it was away, now included."""
    commands: int
    """Commands that were answered."""
    seconds: float
    """How long these took together."""
    missed: int
    """Commands that were not answered, or not sent as Redis was away."""


class RedisConnection(Closing):
    """Sends commands to a Redis server, over one connection. Thread-safe; a context manager, which
    owns the connection and a thread, which finds out that Redis is away or back.

    A command waits for its answer, ``timeout_s`` at most (0.1 s unless made with another), and
    about twice that where others are before it. While Redis is away commands raise StoreAway at
    once. Redis being away, and being back, is logged once each.
    """

    def __init__(
        self,
        address: RedisAddress,
        *,
        prefix: str = "lipwire",
        timeout_s: float = 0.1,
        retry_s: float = 2.0,
        beat_s: float = BEAT_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Connect to ``address``; waits for that for a second at most. ``prefix`` is what the names
        of all keys begin with. ``timeout_s`` is how long a command may take, ``retry_s`` after how
        long Redis is tried again when it is away, ``beat_s`` how often it is looked at when it is
        not. ``clock`` gives seconds. Raises DependencyMissing where redis-py is not installed,
        InvalidInput where a file of ``address.tls`` cannot be used."""
        try:
            import redis
        except ModuleNotFoundError:
            raise DependencyMissing(
                "redis.url is set, and redis-py is not installed: pip install 'lipwire[redis]', or"
                " leave it out"
            ) from None
        self._errors: Final = (redis.RedisError, OSError)
        self._no_script: Final = redis.exceptions.NoScriptError
        self._answered_error: Final = redis.ResponseError
        self.address: Final = address
        self.prefix: Final = prefix
        self._timeout_s, self._retry_s, self._beat_s = timeout_s, retry_s, beat_s
        self._clock = clock
        self._lock = threading.Lock()
        """Of the connection: who has it sends a command and waits for the answer."""
        self._connection: _Connection | None = None
        self._numbers = threading.Lock()
        self._outages = self._commands = self._missed = 0
        self._seconds = 0.0
        self._told_away = self._told_damaged = False
        self._connected_s = 0.0
        self._pause_s = retry_s
        self._epoch = 0
        self._each_beat: list[Callable[[], object]] = []
        self._closing = threading.Event()
        self._changed = threading.Event()
        self._tried = threading.Event()
        _check_files(address.tls)
        self._thread = threading.Thread(target=self._watch, name="lipwire-redis", daemon=True)
        self._thread.start()
        self._tried.wait(_START_S)

    def close(self) -> None:
        """Close the connection, and end the thread; commands raise StoreAway from then on. Waits 4
        s at most for the thread: one that waits for the name of Redis' host to be resolved ends
        when the system has given that up. Closing twice is allowed."""
        self._closing.set()
        self._changed.set()
        self._thread.join(2 * _CONNECT_S)
        with self._lock:
            self._drop()

    @property
    def up(self) -> bool:
        """Whether Redis is there, as far as is known: whether the last command or health check was
        answered. While False, commands raise StoreAway at once."""
        return self._connection is not None

    @property
    def epoch(self) -> int:
        """How often Redis was reached since this was made, 0 before the first time: another number
        than before means that it was away, and may have forgotten what it had."""
        return self._epoch

    def key(self, *parts: str) -> str:
        """Return the name of a key in Redis: the connection's prefix ("lipwire" unless made with
        another) and ``parts``, with colons between them. A part that comes from outside has to be a
        ``digest``: texts with colons could name another key."""
        return ":".join((self.prefix, *parts))

    def each_beat(self, call: Callable[[], object]) -> None:
        """Have ``call()`` called, without arguments, in the connection's thread from now on:
        whenever Redis was reached, and then about each second while it is there. It must be quick.
        Where it raises StoreAway, or anything else, which is logged, it is called again at the next
        time. It cannot be taken back."""
        self._each_beat.append(call)
        self._changed.set()

    def run(self, *command: str | int | bytes) -> Any:
        """Send ``command``, its name and arguments as Redis has them (``run("SET", key, "1")``),
        and return the answer as redis-py has it: bytes, int, None or a list of these. Raises
        StoreAway where Redis is away or does not answer in time (it may have run the command all
        the same), and StoreDamaged where it refuses this command, for example because the key has a
        value of another type."""
        return self._ask(lambda connection: self._answer(connection, command))

    def script(self, script: Script, keys: Sequence[str], args: Sequence[str | int]) -> Any:
        """Run ``script`` in Redis with the names of keys ``keys`` (its ``KEYS``) and ``args`` (its
        ``ARGV``), and return its result, in the types that ``run`` returns. Where Redis refuses it,
        for example because a key has a value of another type than the script expects, all ``keys``
        are removed from Redis and the script is run once more. Raises StoreAway where Redis is
        away, and StoreDamaged where it refuses the script again."""
        given = (len(keys), *keys, *args)

        def ask(connection: _Connection) -> Any:
            try:
                return self._answer(connection, ("EVALSHA", script.sha1, *given))
            except self._no_script:
                return self._answer(connection, ("EVAL", script.text, *given))

        try:
            return self._ask(ask)
        except StoreDamaged:
            self.run("UNLINK", *keys)
            return self._ask(ask)

    def stats(self) -> RedisStats:
        """Return what the connection has done since it was made, and whether Redis is there now.
        Does not ask Redis."""
        with self._numbers:
            return RedisStats(self.up, self._outages, self._commands, self._seconds, self._missed)

    # -- one command -------------------------------------------------------------------------------

    def _ask(self, ask: Callable[[_Connection], Any]) -> Any:
        if not self.up or not self._lock.acquire(timeout=self._timeout_s):
            self._miss()
            raise StoreAway("Redis is away")
        began_s = time.perf_counter()
        try:
            if (connection := self._connection) is None:
                raise StoreAway("Redis is away")
            answer = ask(connection)
        except StoreAway:
            self._miss()
            raise
        except self._errors as error:
            self._miss()
            if self._is_of_one_command(error):
                self._tell_damaged(error)
                raise StoreDamaged(str(error)) from None
            self._lost(error)
            raise StoreAway("Redis is away") from None
        except BaseException:
            self._drop()  # its answer would be taken for that of the next command
            raise
        finally:
            self._lock.release()
        with self._numbers:
            self._commands += 1
            self._seconds += time.perf_counter() - began_s
        return answer

    @staticmethod
    def _answer(connection: _Connection, command: Sequence[str | int | bytes]) -> Any:
        connection.send_command(*command)
        return connection.read_response()

    def _is_of_one_command(self, error: Exception) -> bool:
        """Whether other commands may be answered all the same."""
        import redis

        away = (
            redis.exceptions.ReadOnlyError,
            redis.exceptions.OutOfMemoryError,
            redis.exceptions.NoPermissionError,
            redis.exceptions.ClusterError,
            redis.exceptions.MovedError,
        )
        return (
            isinstance(error, self._answered_error)
            and not isinstance(error, away)
            and not str(error).startswith(_AWAY)
            and "unknown command" not in str(error).lower()
        )

    def _miss(self) -> None:
        with self._numbers:
            self._missed += 1

    def _tell_damaged(self, error: Exception) -> None:
        if not self._told_damaged:
            self._told_damaged = True
            _LOG.warning("Redis at %s has what Lipwire did not write: %s", self.address, error)

    def _lost(self, error: BaseException) -> None:
        """Redis is away since now. The lock is held."""
        self._drop()
        lasted_s = self._clock() - self._connected_s
        self._pause_s = (
            self._retry_s
            if lasted_s >= _STEADY_S
            else min(_LONGEST_PAUSE_S, max(self._retry_s, 2 * self._pause_s))
        )
        self._tell_away(error)
        self._changed.set()

    def _tell_away(self, error: BaseException) -> None:
        if self._told_away or self._closing.is_set():
            return
        self._told_away = True
        with self._numbers:
            self._outages += 1
        _LOG.error(
            "Redis at %s is away: %s; each process goes by what it knows itself",
            self.address,
            in_one_line(error, self.address.password),
        )

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.disconnect()

    # -- the thread --------------------------------------------------------------------------------

    def _watch(self) -> None:
        self._connect()
        self._tried.set()
        while True:
            self._beat()
            changed = self._changed.wait(self._beat_s if self.up else self._pause_s)
            self._changed.clear()
            if self._closing.is_set():
                return
            if not self.up and not changed:  # else it was lost now, and the pause begins
                self._connect()

    def _beat(self) -> None:
        try:
            if self.up:
                self.run("PING")
                for call in self._each_beat:
                    call()
        except StoreAway:
            pass
        except Exception:  # of a call: the connection is looked after all the same
            _LOG.exception("what is done with Redis each second failed")

    def _connect(self) -> None:
        """Try to reach Redis, and to write to it."""
        connection = None
        try:
            connection = new_connection(self.address, self._timeout_s)
            connection.connect()
            trial = self.key("trial", secrets.token_hex(8))
            self._answer(connection, ("SET", trial, "1", "PX", _TRIAL_MS))
        except Exception as error:  # what resolving a name or a TLS handshake raises, too
            if connection is not None:
                connection.disconnect()
            self._tell_away(error)
            return
        with self._lock:
            if self._closing.is_set():
                connection.disconnect()
                return
            self._connection = connection
            self._connected_s = self._clock()
            self._epoch += 1
        if self._told_away:
            self._told_away = False
            _LOG.warning("Redis at %s is back", self.address)


def new_connection(address: RedisAddress, timeout_s: float) -> Any:
    """Return a ``Connection`` of redis-py to ``address``, which is not connected yet; connecting
    takes 2 s at most, and a read or a write ``timeout_s``. Raises ModuleNotFoundError where
    redis-py is not installed."""
    from redis.backoff import NoBackoff
    from redis.connection import Connection, SSLConnection
    from redis.retry import Retry

    given: dict[str, Any] = {
        "host": address.host,
        "port": address.port,
        "db": address.database,
        "username": address.username,
        "password": address.password,
        "socket_timeout": timeout_s,
        "socket_connect_timeout": _CONNECT_S,
        "socket_keepalive": True,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
    }
    kind: Any = Connection
    if (tls := address.tls) is not None:
        kind = SSLConnection
        files = {"ssl_ca_certs": tls.ca, "ssl_certfile": tls.cert, "ssl_keyfile": tls.key}
        given |= {name: str(path) for name, path in files.items() if path is not None}
    return kind(**given)


def digest(text: str) -> str:
    """Return 32 hexadecimal digits of the SHA-256 of ``text``, which may come from outside, as a
    part of a key's name: whatever characters the texts have, two different texts give different
    digits."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def in_one_line(error: BaseException, password: str | None) -> str:
    """Return what ``error`` says (its class where it says nothing) as one line for a log, of about
    200 characters at most, with *** in the place of ``password`` (None: there is no password to
    hide)."""
    text = str(error)
    if password:
        text = text.replace(password, "***")
    return " ".join(text.split())[:200] or type(error).__name__


def _check_files(tls: RedisTls | None) -> None:
    """Raises InvalidInput."""
    for name, path in () if tls is None else (("ca", tls.ca), ("cert", tls.cert), ("key", tls.key)):
        try:
            if path is not None:
                path.open("rb").close()
        except OSError as error:
            raise InvalidInput(f"redis.{name}: {path} cannot be read: {error.strerror}") from None
