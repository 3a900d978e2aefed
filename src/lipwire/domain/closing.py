"""What has to be closed, as a context manager."""

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self


class Closing(ABC):
    """Base class of context managers that own files, memory or threads: leaving the ``with`` block
    calls ``close``."""

    __slots__ = ()

    @abstractmethod
    def close(self) -> object:
        """Release what is owned: files, memory, threads. The ``with`` statement calls it at the end
        of its block, and ignores what it returns."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
