"""A folder of JPEG frames that appears whole or not at all."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from lipwire.domain import InvalidInput, StorageFailed

FRAME_NAME: Final = "frame_{:06}.jpg"
_OURS: Final = re.compile(r"frame_\d{6,}\.jpg")


class JpegFolder:
    """Takes the frames of one render and puts them into ``path`` when all went well.

    They are collected in a hidden folder beside it, which is renamed at the end. After an error
    nothing is left of it, and what ``path`` held before is untouched.

    ``path`` may exist when it is empty, or, with ``replace``, when it holds nothing but frames of
    an earlier render. Raises InvalidInput for any other folder or a file, StorageFailed when the
    disk does not take the frames.
    """

    def __init__(self, path: Path, *, replace: bool = False) -> None:
        self._path = path.absolute()
        self._shown = path
        self._replace = replace
        self._partial = self._path.with_name(
            f".{self._path.name}.{os.getpid()}-{secrets.token_hex(4)}.partial"
        )
        self.size_bytes = 0

    def __enter__(self) -> Self:
        self._check()
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._partial.mkdir()
        except OSError as error:
            raise self._failed(error) from error
        return self

    def write(self, index: int, jpeg: bytes) -> None:
        """Keep ``jpeg`` as the frame ``index`` (>= 0)."""
        try:
            (self._partial / FRAME_NAME.format(index)).write_bytes(jpeg)
        except OSError as error:
            raise self._failed(error) from error
        self.size_bytes += len(jpeg)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._publish()
        finally:
            shutil.rmtree(self._partial, ignore_errors=True)

    def _check(self) -> None:
        if not self._path.exists():
            return
        if not self._path.is_dir():
            raise InvalidInput(f"{self._shown} is a file, a folder is needed for frames")
        names = sorted(entry.name for entry in self._path.iterdir())
        foreign = [name for name in names if not _OURS.fullmatch(name)]
        if foreign:
            raise InvalidInput(
                f"{self._shown} holds {foreign[0]!r}; frames need a folder of their own"
            )
        if names and not self._replace:
            raise InvalidInput(f"{self._shown} holds {len(names)} frames already")

    def _publish(self) -> None:
        try:
            if self._path.exists():
                self._check()  # somebody may have put something there meanwhile
                shutil.rmtree(self._path)
            self._partial.rename(self._path)
        except OSError as error:
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> StorageFailed:
        return StorageFailed(f"cannot write frames to {self._shown}: {error.strerror or error}")
