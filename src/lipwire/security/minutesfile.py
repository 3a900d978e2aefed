"""Where a machine keeps the minutes that its live sessions have lasted this month."""

import json
import math
import re
import secrets
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, Final

from filelock import FileLock

from lipwire.domain import InvalidInput, StorageFailed
from lipwire.domain.newfiles import write_file

_VERSION: Final = 1
_LOCK_S: Final = 10.0
_SOURCE: Final = re.compile("[0-9a-f]{32}")


class MinutesInMemory:
    """Seconds of live sessions of each tenant, of a process that has no file for them. It has the
    methods of ``MinutesFile``. ``source`` is a random name under which other machines know what
    this process has counted."""

    there: Final = True

    def __init__(self) -> None:
        self.source: Final = secrets.token_hex(16)
        self._month, self._seconds = "", dict[str, float]()

    def locked(self) -> AbstractContextManager[None]:
        """Return a context manager that does nothing: the owner's own lock keeps other threads
        away."""
        return nullcontext()

    def read(self) -> tuple[str, dict[str, float]]:
        """Return the month ("2030-01"; empty before the first ``write``) and the seconds of each
        tenant in it, by name."""
        return self._month, dict(self._seconds)

    def write(self, month: str, seconds: dict[str, float]) -> None:
        """Keep ``seconds`` of each tenant, by name, of the month ``month`` ("2030-01"), in place of
        all that was kept."""
        self._month, self._seconds = month, dict(seconds)


class MinutesFile:
    """A file with the seconds of live sessions of each tenant this month, which the processes of a
    machine share. Read and write it inside ``locked``."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._source = ""

    @property
    def there(self) -> bool:
        """Whether the file exists."""
        return self._path.exists()

    @property
    def source(self) -> str:
        """The name under which other machines know what this file has counted: 32 hexadecimal
        digits, kept in a file beside it (``.id``), which is made on first use. Read this property
        inside ``locked``. Raises StorageFailed where that file cannot be written."""
        if not self._source:
            path = self._path.with_name(f"{self._path.name}.id")
            with suppress(FileNotFoundError, UnicodeDecodeError):
                self._source = path.read_text("utf-8").strip()
            if not _SOURCE.fullmatch(self._source):
                made = secrets.token_hex(16)
                write_file(path, f"{made}\n".encode())
                self._source = made
        return self._source

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Return a context manager that keeps other processes from the file during the ``with``
        block. Makes the file's folder where it is missing. Raises StorageFailed where the folder
        cannot be made, where the lock is not free within 10 s, and in place of an OSError that the
        block raises."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{self._path}.lock", timeout=_LOCK_S):
                yield
        except (OSError, TimeoutError) as error:
            raise StorageFailed(f"{self._path} cannot be written: {error}") from None

    def read(self) -> tuple[str, dict[str, float]]:
        """Return the month ("2030-01") and the seconds of each tenant in it, by name; an empty
        month and no tenants where there is no file. Raises InvalidInput where it is damaged,
        OSError where it cannot be read."""
        return _read(self._path)

    def write(self, month: str, seconds: dict[str, float]) -> None:
        """Write ``seconds`` of each tenant, by name, of the month ``month`` ("2030-01") as the
        whole content of the file, in one step. Raises StorageFailed where that is not possible."""
        _write(self._path, month, seconds)


def _write(path: Path, month: str, seconds: dict[str, float]) -> None:
    """Raises StorageFailed."""
    rounded = {tenant: round(value, 3) for tenant, value in seconds.items()}
    text = json.dumps({"version": _VERSION, "month": month, "seconds": rounded})
    write_file(path, f"{text}\n".encode())


def _read(path: Path) -> tuple[str, dict[str, float]]:
    """Month and seconds of each tenant; none where there is no file. Raises InvalidInput where it
    is damaged, OSError where it cannot be read."""
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        return "", {}
    except UnicodeDecodeError:
        raise InvalidInput(f"{path} is no file of minutes: it is no text") from None
    try:
        data: dict[str, Any] = json.loads(text)
        if data["version"] != _VERSION:
            raise InvalidInput(
                f"{path} is of version {data['version']!r:.20}; allowed is {_VERSION}"
            )
        seconds = {str(name): float(value) for name, value in data["seconds"].items()}
        for name, value in seconds.items():
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} has {value} seconds; allowed are 0 and above")
        return str(data["month"]), seconds
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InvalidInput(f"{path} is no file of minutes: {error!r:.200}") from None
