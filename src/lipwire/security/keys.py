"""API keys: long random texts, of which only hashes are kept, in a file.

A key is ``lipwire_NAME_SECRET``. SECRET has 256 random bits, so one round of SHA-256 is enough to
hide it: there is nothing to guess.
"""

import hashlib
import hmac
import json
import logging
import math
import re
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from filelock import FileLock

from lipwire.domain import (
    OPERATIONS,
    Access,
    InvalidInput,
    NotFound,
    Operation,
    StorageFailed,
    Unauthenticated,
)
from lipwire.domain.newfiles import write_file

_LOG: Final = logging.getLogger("lipwire.security")
PREFIX: Final = "lipwire_"
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
_HASH: Final = re.compile("[0-9a-f]{64}")
_VERSION: Final = 1
_LOOK_EVERY_S: Final = 1.0
"""How often the file is looked at for changes."""
_LOCK_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class ApiKey:
    """An API key as its file has it: without its secret, with the SHA-256 of the whole key as
    hexadecimal digits. It allows ``operations`` with the avatars that match one of the patterns
    ``avatars`` (``*``, ``acme-*``) for ``tenant``; an empty tenant is any. Times are in seconds
    since 1970; ``expires_s`` None is never."""

    name: str
    sha256: str
    """Of the whole key, in hexadecimal digits."""
    tenant: str
    operations: tuple[Operation, ...]
    avatars: tuple[str, ...]
    created_s: float
    """Seconds since 1970, as ``expires_s``."""
    expires_s: float | None
    """None where it does not expire."""

    def access(self, now_s: float) -> Access:
        """Return what the key allows. Raises Unauthenticated where it has expired at ``now_s``, in
        seconds since 1970."""
        if self.expires_s is not None and now_s >= self.expires_s:
            raise Unauthenticated(f"the API key {self.name} has expired")
        return Access(
            f"key {self.name}", self.tenant, frozenset(self.operations), tuple(self.avatars)
        )


class KeyFile:
    """The API keys in one JSON file, which may be changed by other processes: a change counts
    within a second. Thread-safe."""

    def __init__(self, path: Path, *, now: Callable[[], float] = time.time) -> None:
        """``path`` is the file, which need not exist. ``now`` gives seconds since 1970. Nothing is
        read yet."""
        self.path: Final = path
        self._now = now
        self._lock = threading.Lock()
        self._seen: tuple[int, int, int] | None = None
        self._looked_s = -math.inf
        self._keys: dict[str, ApiKey] = {}
        self._revoked: frozenset[str] = frozenset()
        self._damaged = False

    def create(
        self,
        name: str,
        *,
        tenant: str = "",
        operations: Sequence[Operation] = OPERATIONS,
        avatars: Sequence[str] = ("*",),
        lifetime_s: float | None = None,
    ) -> str:
        """Add a key called ``name`` to the file and return it (``lipwire_NAME_SECRET``). This is
        the only time that it can be seen: the file has its hash alone.

        ``name`` has 1 to 40 characters of a-z, 0-9 and -, and does not begin with -. Whoever brings
        the key may do ``operations`` ("live", "render", "read", "manage", "infer" or "deliver"; by
        default all) with the avatars that match one of ``avatars``, patterns such as ``*`` or
        ``acme-*``, for ``tenant``; empty is any tenant. ``lifetime_s`` is for how many seconds the
        key is valid; None is for ever. Waits some seconds for another process that changes the
        file. Raises InvalidInput where the name is taken or not allowed, an operation is not known,
        there is no operation or no pattern, or the file is damaged; StorageFailed where the file
        cannot be written.
        """
        if not _NAME.fullmatch(name):
            raise InvalidInput(
                f"the key's name is {name[:60]!r}; allowed are 1 to 40 of a-z, 0-9 and -, the first"
                " no -"
            )
        unknown = [one for one in operations if one not in OPERATIONS]
        if unknown or not operations:
            raise InvalidInput(
                f"operations are {', '.join(unknown) or 'none'}; allowed are"
                f" {', '.join(OPERATIONS)}"
            )
        if not avatars or not all(avatars):
            raise InvalidInput("a pattern of avatars is empty; * is all avatars")
        key = f"{PREFIX}{name}_{secrets.token_urlsafe(32)}"
        now = self._now()
        made = ApiKey(
            name,
            hash_of(key),
            tenant,
            tuple(operations),
            tuple(avatars),
            now,
            None if lifetime_s is None else now + lifetime_s,
        )
        with self._changing() as (keys, _):
            if name in keys:
                raise InvalidInput(f"there is a key {name} already; revoke it, or choose a name")
            keys[name] = made
        self._looked_s = -math.inf
        return key

    def revoke(self, name: str) -> None:
        """Remove the key called ``name`` from the file, which keeps its hash as revoked; servers
        refuse it within a second. Waits some seconds for another process that changes the file.
        Raises NotFound where there is no key of that name, InvalidInput where the file is damaged,
        StorageFailed where it cannot be written."""
        with self._changing() as (keys, revoked):
            found = keys.pop(name, None)
            if found is None:
                raise NotFound(f"there is no key {name[:60]} in {self.path.name}")
            revoked.add(found.sha256)
        self._looked_s = -math.inf

    def listed(self) -> list[ApiKey]:
        """Return all keys of the file, sorted by name; an empty list where there is no file. Raises
        InvalidInput where the file is damaged."""
        with self._lock:
            self._read()
            return [self._keys[name] for name in sorted(self._keys)]

    def now_in_it(self) -> tuple[list[ApiKey], frozenset[str]]:
        """Return the file's keys, expired ones too, and the hashes (SHA-256, hexadecimal digits) of
        those that were revoked in it, as the file was at most a second ago. While the file is
        damaged, which is logged, the keys and hashes that it had before are returned; both are
        empty where there is no file."""
        with self._lock:
            self._look()
            return list(self._keys.values()), self._revoked

    def access(self, key: str) -> Access:
        """Return what the whole ``key``, as a caller sent it (``lipwire_NAME_SECRET``), allows.

        Raises Unauthenticated where it is not one of the file's keys or has expired. While the file
        is damaged the keys that it had before count, and the log says so.
        """
        name = key.removeprefix(PREFIX).partition("_")[0]
        with self._lock:
            self._look()
            found = self._keys.get(name)
        given = hash_of(key)
        # Also where there is no such name: it must not show in the time that this takes.
        same = hmac.compare_digest(given, found.sha256 if found is not None else given[::-1])
        if found is None or not same:
            raise Unauthenticated("the API key is not known here; it may have been revoked")
        return found.access(self._now())

    def _look(self) -> None:
        """The lock is held."""
        if abs(self._now() - self._looked_s) >= _LOOK_EVERY_S:
            self._read_if_whole()

    def _read_if_whole(self) -> None:
        try:
            self._read()
        except InvalidInput as error:
            if not self._damaged:
                _LOG.error("%s; the keys before count", error)
            self._damaged = True
        else:
            self._damaged = False

    def _read(self) -> None:
        """Take in the file where it is another than before. A file that is not there has no keys;
        while one is damaged its earlier keys count."""
        self._looked_s = self._now()
        try:
            stat = self.path.stat()
        except FileNotFoundError:
            self._seen, self._keys, self._revoked = None, {}, frozenset()
            return
        except OSError as error:
            raise InvalidInput(f"{self.path} cannot be read: {error.strerror}") from None
        seen = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        if seen == self._seen:
            return
        self._keys, self._revoked = _parsed(self.path)
        self._seen = seen

    def _changing(self) -> "_Change":
        return _Change(self)


class _Change:
    """The keys of a file, to be changed in a block and written after it."""

    def __init__(self, file: KeyFile) -> None:
        self._path = file.path
        self._lock = FileLock(f"{file.path}.lock", timeout=_LOCK_S)
        self._keys: dict[str, ApiKey] = {}
        self._revoked: set[str] = set()

    def __enter__(self) -> tuple[dict[str, ApiKey], set[str]]:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
        except (OSError, TimeoutError) as error:
            raise StorageFailed(f"the keys in {self._path} cannot be changed: {error}") from None
        try:
            if self._path.exists():
                self._keys, revoked = _parsed(self._path)
                self._revoked = set(revoked)
        except BaseException:
            self._lock.release()
            raise
        return self._keys, self._revoked

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            if error is None:
                _write(self._path, self._keys, self._revoked)
        finally:
            self._lock.release()


def hash_of(key: str) -> str:
    """Return the SHA-256 of ``key``, a whole API key (``lipwire_NAME_SECRET``), in hexadecimal
    digits."""
    return hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()


def _write(path: Path, keys: dict[str, ApiKey], revoked: set[str]) -> None:
    """Raises StorageFailed."""
    told: dict[str, Any] = {"version": _VERSION, "keys": [asdict(key) for key in keys.values()]}
    if revoked:
        told["revoked"] = sorted(revoked)
    write_file(path, f"{json.dumps(told)}\n".encode())


def _parsed(path: Path) -> tuple[dict[str, ApiKey], frozenset[str]]:
    """Raises InvalidInput."""
    try:
        data: dict[str, Any] = json.loads(path.read_text("utf-8"))
        if data["version"] != _VERSION:
            raise InvalidInput(
                f"{path} is of version {data['version']!r:.20}; allowed is {_VERSION}"
            )
        keys = {entry["name"]: key_of(entry) for entry in data["keys"]}
        revoked = frozenset(data.get("revoked", ()))
        if not all(isinstance(each, str) and _HASH.fullmatch(each) for each in revoked):
            raise ValueError("what was revoked is no list of hashes")
        return keys, revoked
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InvalidInput(f"{path} is no file of API keys: {error!r:.200}") from None


def key_of(entry: dict[str, Any]) -> ApiKey:
    """Return the key that ``entry`` describes, a mapping of the names of ``ApiKey``'s fields to
    their values, as JSON has them. Raises ValueError, KeyError, TypeError or AttributeError where
    it describes none."""
    operations = tuple(entry["operations"])
    if not set(operations) <= set(OPERATIONS):
        raise ValueError(f"operations are {operations!r:.100}")
    name, sha256, tenant = entry["name"], entry["sha256"], entry["tenant"]
    if not (isinstance(tenant, str) and _NAME.fullmatch(name) and len(bytes.fromhex(sha256)) == 32):
        raise ValueError(f"key {name!r:.60}")
    expires_s = entry["expires_s"]
    return ApiKey(
        name,
        sha256,
        tenant,
        operations,
        tuple(map(str, entry["avatars"])),
        float(entry["created_s"]),
        None if expires_s is None else float(expires_s),
    )
