"""What has to be closed, as a context manager."""

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self


class Closing(ABC):
    """Something that owns what has to be given back: closed with the block of ``with``."""

    __slots__ = ()

    @abstractmethod
    def close(self) -> object:
        """Give back what is owned. The block has no use for what is returned."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
