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
_VERSION: Final = 1
_LOOK_EVERY_S: Final = 1.0
"""How often the file is looked at for changes."""
_LOCK_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as the file has it, without its secret."""

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


class KeyFile:
    """The keys of one file. Thread-safe; a change of the file counts within a second."""

    def __init__(self, path: Path, *, now: Callable[[], float] = time.time) -> None:
        """``now`` gives seconds since 1970. Nothing is read yet."""
        self.path: Final = path
        self._now = now
        self._lock = threading.Lock()
        self._seen: tuple[int, int, int] | None = None
        self._looked_s = -math.inf
        self._keys: dict[str, ApiKey] = {}
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

        ``name`` has 1 to 40 characters of a-z, 0-9 and -. Who brings the key may do ``operations``
        with the avatars that match one of ``avatars``, patterns as ``*`` or ``acme-*``, for
        ``tenant``; empty is any tenant. ``lifetime_s`` is for how many seconds it is valid; None is
        for ever. Raises InvalidInput where the name is taken or not allowed, an operation is not
        known, there is no operation or no pattern, or the file is damaged; StorageFailed where the
        file cannot be written.
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
            _hash(key),
            tenant,
            tuple(operations),
            tuple(avatars),
            now,
            None if lifetime_s is None else now + lifetime_s,
        )
        with self._changing() as keys:
            if name in keys:
                raise InvalidInput(f"there is a key {name} already; revoke it, or choose a name")
            keys[name] = made
        self._looked_s = -math.inf
        return key

    def revoke(self, name: str) -> None:
        """Remove the key called ``name`` from the file; servers refuse it within a second. Raises
        NotFound where there is none of that name, InvalidInput where the file is damaged,
        StorageFailed where it cannot be written."""
        with self._changing() as keys:
            if keys.pop(name, None) is None:
                raise NotFound(f"there is no key {name[:60]} in {self.path.name}")
        self._looked_s = -math.inf

    def listed(self) -> list[ApiKey]:
        """Return all keys of the file, sorted by name; none where there is no file. Raises
        InvalidInput where the file is damaged."""
        self._read()
        return [self._keys[name] for name in sorted(self._keys)]

    def access(self, key: str) -> Access:
        """Return what the whole ``key``, as a caller sent it (``lipwire_NAME_SECRET``), allows.

        Raises Unauthenticated where it is not one of the file's keys or has expired. While the file
        is damaged the keys that it had before count, and the log says so.
        """
        with self._lock:
            if abs(self._now() - self._looked_s) >= _LOOK_EVERY_S:
                self._read_if_whole()
        name = key.removeprefix(PREFIX).partition("_")[0]
        found = self._keys.get(name)
        given = _hash(key)
        # Also where there is no such name: it must not show in the time that this takes.
        same = hmac.compare_digest(given, found.sha256 if found is not None else given[::-1])
        if found is None or not same:
            raise Unauthenticated("the API key is not known here; it may have been revoked")
        if found.expires_s is not None and self._now() >= found.expires_s:
            raise Unauthenticated(f"the API key {name} has expired")
        return Access(
            f"key {name}", found.tenant, frozenset(found.operations), tuple(found.avatars)
        )

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
            self._seen, self._keys = None, {}
            return
        seen = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        if seen == self._seen:
            return
        self._keys = _parsed(self.path)
        self._seen = seen

    def _changing(self) -> "_Change":
        return _Change(self)


class _Change:
    """The keys of a file, to be changed in a block and written after it."""

    def __init__(self, file: KeyFile) -> None:
        self._path = file.path
        self._lock = FileLock(f"{file.path}.lock", timeout=_LOCK_S)
        self._keys: dict[str, ApiKey] = {}

    def __enter__(self) -> dict[str, ApiKey]:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
        except (OSError, TimeoutError) as error:
            raise StorageFailed(f"the keys in {self._path} cannot be changed: {error}") from None
        try:
            self._keys = _parsed(self._path) if self._path.exists() else {}
        except BaseException:
            self._lock.release()
            raise
        return self._keys

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            if error is None:
                _write(self._path, self._keys)
        finally:
            self._lock.release()


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()


def _write(path: Path, keys: dict[str, ApiKey]) -> None:
    """Raises StorageFailed."""
    text = json.dumps({"version": _VERSION, "keys": [asdict(key) for key in keys.values()]})
    write_file(path, f"{text}\n".encode())


def _parsed(path: Path) -> dict[str, ApiKey]:
    """Raises InvalidInput."""
    try:
        data: dict[str, Any] = json.loads(path.read_text("utf-8"))
        if data["version"] != _VERSION:
            raise InvalidInput(
                f"{path} is of version {data['version']!r:.20}; allowed is {_VERSION}"
            )
        return {entry["name"]: _key_of(entry) for entry in data["keys"]}
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidInput(f"{path} is no file of API keys: {error!r:.200}") from None


def _key_of(entry: dict[str, Any]) -> ApiKey:
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
