"""Files by key in a store that fsspec reaches: a bucket, a folder that several machines share.

Every operation has a time limit, whatever the file system beneath does: it runs in a thread of its
own, which is left behind where it hangs. Of such threads there are at most so many; then the store
is away until some come back. Nothing here knows what the files are.
"""

import errno
import logging
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from lipwire.domain import DependencyMissing, InvalidInput, NotFound, Unavailable

_LOG: Final = logging.getLogger("lipwire.stores")
TIMEOUT_S: Final = 20.0
CHUNK_BYTES: Final = 4 * 1024 * 1024
"""What is read at a time. A link slower than this in the timeout counts as one that hangs."""
_SLOWEST_BYTES_S: Final = 256 * 1024
"""What an upload is given time for: it goes out as a whole."""
_MOST_THREADS: Final = 64
_CONNECT_S: Final = 3.0
"""For a connection: what is lost on the way is sent again after 1, 3, 7 and 15 s, so that a store
that is back would be waited for as long again as it was away."""
_LOCAL: Final = frozenset({"file", "local"})
_PACKAGES: Final = {"s3": "s3", "s3a": "s3"}
"""The extra of Lipwire that a scheme needs besides ``store``."""
_REFUSED: Final = frozenset({errno.EACCES, errno.EPERM})

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Listed:
    """A file of a listing: its ``name``, the last part of its key; how many bytes it has, 0 where
    the store does not say; and a ``token`` that changes when it is replaced (without meaning
    otherwise)."""

    name: str
    size_bytes: int
    token: tuple[str, ...]


class ObjectStore:
    """Files by key below a URL, such as ``s3://bucket/avatars`` or ``file:///srv/avatars``.
    Thread-safe.

    Keys have slashes between their parts and none in front. Every method waits for its answer, at
    most for the store's time limit (20 s unless it was made with another), and raises Unavailable,
    whose message says why in a few words, where the store cannot be asked now, refuses, or does not
    answer in time; only ``answers`` raises nothing. While 64 operations hang, a further one waits,
    within its time limit, until one of them has ended, and raises Unavailable where none does.
    """

    def __init__(
        self,
        url: str,
        *,
        endpoint_url: str | None = None,
        timeout_s: float = TIMEOUT_S,
        what: str = "avatar store",
    ) -> None:
        """``url`` is where the keys begin. ``endpoint_url`` is the address of a server with S3's
        protocol that is not Amazon's. ``timeout_s`` is how many seconds an operation may take; in a
        download, each 4 MiB. ``what`` names the store in errors. The store is not asked yet. Raises
        DependencyMissing where fsspec, or what it needs for the URL's scheme, is not installed, and
        InvalidInput for a URL of no kind that is known."""
        self.url: Final = url.rstrip("/")
        self._timeout_s = timeout_s
        self._what = what
        self._threads = threading.BoundedSemaphore(_MOST_THREADS)
        self._fs, self._root = _opened(self.url, endpoint_url, timeout_s, what)
        self._local = bool(_LOCAL & set(_protocols(self._fs)))

    def read(self, key: str, max_bytes: int) -> bytes:
        """Return the content of the file ``key``. Raises NotFound where there is none, InvalidInput
        where it has more than ``max_bytes``, and Unavailable."""
        data = self.read_range(key, 0, max_bytes + 1)
        if len(data) > max_bytes:
            raise InvalidInput(f"{key} in the store has more than {max_bytes} bytes")
        return data

    def read_range(self, key: str, start: int, end: int, *, limit_s: float | None = None) -> bytes:
        """Return the bytes of the file ``key`` from number ``start`` (from 0) to before ``end``:
        fewer where it ends before that, none where it ends before ``start``. ``limit_s`` is how
        many seconds that may take; None is the store's own time limit. Raises NotFound where there
        is no such file, and Unavailable."""

        def work() -> bytes:
            try:
                data: bytes = self._fs.cat_file(self._path(key), start=start, end=end)
            except (OSError, ValueError) as error:
                # How they say that the file ends before ``start``.
                if isinstance(error, OSError) and error.errno != errno.EINVAL:
                    raise
                return b""
            return bytes(data)

        return self._asked(key, work, limit_s)[: end - start]

    def write(self, key: str, data: bytes) -> None:
        """Make ``data`` the content of the file ``key``, which appears, or is replaced, whole.
        Raises Unavailable; it is not known then whether the file was written."""
        self._asked(key, lambda: self._put(key, data))

    def upload(self, key: str, source: Path) -> None:
        """Copy the file ``source`` of this machine to the file ``key``, which appears, or is
        replaced, whole. The time limit is longer for it by a second for each 256 KiB. Raises
        NotFound where ``source`` is not there or cannot be looked at, and Unavailable."""
        try:
            limit_s = self._timeout_s + source.stat().st_size / _SLOWEST_BYTES_S
        except OSError as error:
            raise NotFound(f"{source} cannot be read: {error.strerror}") from error
        self._asked(key, lambda: self._put_file(key, source), limit_s)

    def remove(self, key: str) -> None:
        """Remove the file ``key``; does nothing where there is none. Raises Unavailable."""

        def work() -> None:
            with suppress(FileNotFoundError):
                self._fs.rm_file(self._path(key))

        self._asked(key, work)

    def listed(self, folder: str) -> list[Listed]:
        """Return the files directly in ``folder``, a key without a slash at its end: those whose
        keys are ``folder`` and one part more, in the order of their names; an empty list where
        there is nothing. What is below further parts is left out. Raises Unavailable."""

        def work() -> list[Listed]:
            self._fs.invalidate_cache()
            try:
                entries = self._fs.ls(self._path(folder), detail=True)
            except FileNotFoundError:
                return []
            return [_listed(each) for each in entries if each.get("type") == "file"]

        return sorted(self._asked(folder, work), key=lambda each: each.name)

    def answers(self, key: str, limit_s: float) -> bool:
        """Return whether the store answers within ``limit_s`` seconds when it is asked for the file
        ``key``, which need not be there. One that refuses access does not answer. Raises
        nothing."""
        try:
            self.read_range(key, 0, 1, limit_s=limit_s)
        except NotFound:
            return True
        except Unavailable:
            return False
        return True

    def _path(self, key: str) -> str:
        return f"{self._root}/{key}"

    def _put(self, key: str, data: bytes) -> None:
        path = self._path(key)
        if not self._local:
            self._fs.pipe_file(path, data)
            return
        self._fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        with closing(self._fs.open(path, "wb", autocommit=False)) as stream:
            stream.write(data)
        stream.commit()  # which renames it

    def _put_file(self, key: str, source: Path) -> None:
        path = self._path(key)
        if not self._local:
            self._fs.put_file(str(source), path)
            return
        self._fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        with (
            source.open("rb") as data,
            closing(self._fs.open(path, "wb", autocommit=False)) as stream,
        ):
            while piece := data.read(CHUNK_BYTES):
                stream.write(piece)
        stream.commit()

    def _asked(self, key: str, work: Callable[[], T], limit_s: float | None = None) -> T:
        """What ``work`` returns, in a thread of its own."""
        limit_s = self._timeout_s if limit_s is None else limit_s
        until_s = time.monotonic() + limit_s
        if not self._threads.acquire(timeout=limit_s):
            raise Unavailable(f"the {self._what} does not answer; {_MOST_THREADS} requests wait")
        answer: list[T] = []
        failure: list[BaseException] = []
        done = threading.Event()

        def run() -> None:
            try:
                answer.append(work())
            except BaseException as error:
                failure.append(error)
            finally:
                self._threads.release()
                done.set()

        threading.Thread(target=run, name="lipwire-store", daemon=True).start()
        if not done.wait(max(0.0, until_s - time.monotonic())):
            raise Unavailable(f"the {self._what} does not answer within {limit_s:g} s")
        if failure:
            raise _said(key, failure[0], self._what) from failure[0]
        return answer[0]


def _opened(url: str, endpoint_url: str | None, timeout_s: float, what: str) -> tuple[Any, str]:
    """The file system of ``url``, and the path in it."""
    scheme = urlsplit(url).scheme
    try:
        import fsspec
    except ModuleNotFoundError:
        raise DependencyMissing(
            f"the {what} ({scheme}://) needs fsspec: pip install 'lipwire[{_extra(scheme)}]'"
        ) from None
    options: dict[str, Any] = {"skip_instance_cache": True, "use_listings_cache": False}
    if scheme == "memory":
        options = {}
    if scheme in _PACKAGES:
        limits = {"connect_timeout": min(_CONNECT_S, timeout_s), "read_timeout": timeout_s}
        options["config_kwargs"] = {**limits, "retries": {"max_attempts": 2}}
        if endpoint_url is not None:
            options["endpoint_url"] = endpoint_url
    try:
        fs, root = fsspec.core.url_to_fs(url, **options)
    except ImportError as error:
        raise DependencyMissing(
            f"the {what} of {scheme}:// needs a package that is not installed:"
            f" pip install 'lipwire[{_extra(scheme)}]' ({error})"
        ) from None
    except ValueError as error:
        raise InvalidInput(f"the store's URL is {url}; {error}") from None
    return fs, str(root).rstrip("/")


def _extra(scheme: str) -> str:
    return _PACKAGES.get(scheme, "store")


def _protocols(fs: Any) -> tuple[str, ...]:
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)


def _listed(entry: dict[str, Any]) -> Listed:
    facts = ("ETag", "LastModified", "mtime", "created", "ino", "size")
    token = tuple(str(entry[fact]) for fact in facts if entry.get(fact) is not None)
    return Listed(entry["name"].rpartition("/")[2], int(entry.get("size") or 0), token)


def _said(key: str, error: BaseException, what: str) -> Exception:
    """What the caller is told of ``error``; the log has all of it."""
    if isinstance(error, FileNotFoundError):
        return NotFound(f"{key} is not in the store")
    _LOG.debug("store: %s: %r", key, error)
    if isinstance(error, PermissionError) or getattr(error, "errno", None) in _REFUSED:
        return Unavailable(f"the {what} refuses access")
    reason = getattr(error, "strerror", None) or type(error).__name__
    return Unavailable(f"the {what} cannot be asked: {reason}")
