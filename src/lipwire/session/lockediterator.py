"""A generator that one thread advances and another closes."""

import threading
from collections.abc import Generator, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class LockedIterator(Generic[T]):
    """Iterates over ``generator`` in any thread; ``close`` may be called in another thread, and
    waits for the value that is being made. After ``close``, iteration ends. Where several threads
    ask for a value at once, each gets a value of its own, one after the other.

    A generator by itself raises ValueError when it is closed while it runs. Usually a thread is
    waited for before the generator that it advances is closed; but where a signal's exception cuts
    off the start of the thread, nobody knows of the thread, and it may still be running.
    """

    def __init__(self, generator: Generator[T]) -> None:
        self._generator = generator
        self._closed = False
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        """Return the next value. Raises StopIteration at the end, and once it is closed."""
        with self._lock:
            if self._closed:
                raise StopIteration
            return next(self._generator)

    def close(self) -> None:
        """Close the generator, so that its ``finally`` blocks run, waiting for the value that it is
        making, if any. Iteration ends from then on. Closing twice is allowed."""
        with self._lock:
            self._closed = True
            self._generator.close()
