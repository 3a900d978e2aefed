"""How many requests are worked on at a time; none is admitted once the server drains."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition
from typing import Final

from lipwire.domain import InvalidInput, Overloaded, Unavailable

_RETRY_AFTER_S: Final = 0.25


class Admission:
    """Limits how many requests are worked on at a time, and refuses the rest at once.

    Refusing here, rather than in gRPC's thread pool, leaves threads for health checks, and the
    refusal says when another attempt may succeed.
    """

    __slots__ = ("_bytes", "_changed", "_draining", "_in_hand", "_limits", "_max_bytes")

    def __init__(self, limits: dict[str, int], *, max_bytes: int | None = None) -> None:
        """``limits`` is how many requests of each kind are admitted at a time, 1 or more;
        ``max_bytes`` how large all of them may be together."""
        for kind, limit in limits.items():
            if limit < 1:
                raise InvalidInput(f"{limit} {kind} requests at a time; allowed are 1 and more")
        self._limits: Final = dict(limits)
        self._in_hand: Final = dict.fromkeys(limits, 0)
        self._max_bytes: Final = max_bytes
        self._bytes = 0
        self._changed: Final = Condition()
        self._draining = False

    @contextmanager
    def admit(self, kind: str, size_bytes: int = 0) -> Iterator[None]:
        """Count a request of ``kind`` (a key of ``limits``), of ``size_bytes``, as being worked on
        during the ``with`` block. A context manager. Raises Overloaded where there are too many
        already, or too many bytes, and Unavailable once draining."""
        with self._changed:
            if self._draining:
                raise Unavailable("the server is shutting down; ask another one")
            limit = self._limits[kind]
            if self._in_hand[kind] >= limit:
                raise Overloaded(
                    f"{limit} {kind} requests are in hand, the most this server takes at a time",
                    retry_after_s=_RETRY_AFTER_S,
                )
            if self._max_bytes is not None and self._bytes + size_bytes > self._max_bytes:
                raise Overloaded(
                    f"{self._bytes:,} bytes of requests are in hand and this one has"
                    f" {size_bytes:,}; allowed are {self._max_bytes:,} together",
                    retry_after_s=_RETRY_AFTER_S,
                )
            self._in_hand[kind] += 1
            self._bytes += size_bytes
        try:
            yield
        finally:
            with self._changed:
                self._in_hand[kind] -= 1
                self._bytes -= size_bytes
                self._changed.notify_all()

    @property
    def draining(self) -> bool:
        """Whether ``drain`` was called."""
        return self._draining

    @property
    def in_hand(self) -> int:
        """Number of requests that are being worked on."""
        with self._changed:
            return sum(self._in_hand.values())

    def drain(self, timeout_s: float) -> bool:
        """Refuse all requests from now on, and wait until those that were admitted are done, at
        most ``timeout_s`` seconds. Returns whether they are."""
        with self._changed:
            self._draining = True
            return self._changed.wait_for(lambda: not any(self._in_hand.values()), timeout_s)
