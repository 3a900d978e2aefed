"""Bodies of requests: how much of them one process holds, and within which time they come."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

from lipwire.domain import Overloaded
from lipwire.security import AccessControl
from lipwire.web.guard import access_of

_MIB: Final = 1 << 20
MOST_BYTES: Final = 512 * _MIB
"""Of all bodies that come, and of audio that waits for room in its session."""
MOST_OF_ONE_BYTES: Final = MOST_BYTES // 2
"""The same of one tenant, so that there is room for others."""
PART_WITHIN_S: Final = 30.0
"""Within which more of a body has to come."""
ALL_WITHIN_S: Final = 600.0
"""Within which all of it has to be there: the largest one comes over a line of 1 Mbit/s."""
_RETRY_AFTER_S: Final = 2.0


class BodyRoom:
    """Counts the bytes of bodies sent by clients that one process holds in memory, of all tenants
    together and of each one, and keeps both below limits. Used in one event loop."""

    def __init__(
        self,
        most_bytes: int = MOST_BYTES,
        most_of_one_bytes: int = MOST_OF_ONE_BYTES,
        *,
        part_within_s: float = PART_WITHIN_S,
        all_within_s: float = ALL_WITHIN_S,
    ) -> None:
        """``most_bytes`` are held at a time, and ``most_of_one_bytes`` of one tenant; more of a
        body has to come within ``part_within_s`` seconds, and all of it within ``all_within_s``."""
        self._most = most_bytes
        self._most_of_one = most_of_one_bytes
        self._part_within_s = part_within_s
        self._all_within_s = all_within_s
        self._held: Counter[str] = Counter()

    @property
    def held_bytes(self) -> int:
        """How many bytes are held now, of all tenants."""
        return self._held.total()

    @contextmanager
    def taking(self, who: str) -> Iterator[Callable[[int], None]]:
        """Give the ``with`` block a function ``take(size_bytes)``, which counts ``size_bytes`` as
        held for ``who``, a tenant (``Access.counts_for``); at the end of the block all that was
        taken is given back. A context manager. ``take`` raises Overloaded, counting nothing, where
        there is no room."""
        taken = 0

        def take(size_bytes: int) -> None:
            nonlocal taken
            self.hold(who, size_bytes)
            taken += size_bytes

        try:
            yield take
        finally:
            self.hold(who, -taken)

    def hold(self, who: str, size_bytes: int) -> None:
        """Count ``size_bytes`` as held for ``who``, a tenant (``Access.counts_for``); a negative
        number gives bytes back. Raises Overloaded, counting nothing, where there is no room."""
        for held, most in (
            (self._held[who], self._most_of_one),
            (self._held.total(), self._most),
        ):
            if size_bytes > 0 and held + size_bytes > most:
                raise Overloaded(
                    f"{held:,} bytes of bodies are held; allowed are {most:,}",
                    retry_after_s=_RETRY_AFTER_S,
                )
        self._held[who] += size_bytes
        if not self._held[who]:
            del self._held[who]

    @asynccontextmanager
    async def body(
        self, request: Request, control: AccessControl, most_bytes: int
    ) -> AsyncIterator[bytes]:
        """Read the body of ``request`` and give it to the ``async with`` block; its bytes count as
        held until the end of the block. An asynchronous context manager. ``control`` counts the
        bytes for the tenant of whoever sends them: before they arrive where the header
        ``Content-Length`` says how many there are, else while they arrive.

        Raises HTTPException where the body has more than ``most_bytes`` (413), breaks off (400) or
        takes too long (408), LimitExceeded where the tenant may not send so much now, and
        Overloaded where there is no room.
        """
        access = access_of(request.scope)
        told = request.headers.get("content-length", "")
        known = told.isdecimal()
        if known:
            expected = int(told[:20])
            if expected > most_bytes:
                raise HTTPException(413, f"the body is larger than {most_bytes:,} bytes")
            control.upload(access, expected)
        with self.taking(access.counts_for) as take:

            def came(size_bytes: int) -> None:
                take(size_bytes)
                if not known:
                    control.upload(access, size_bytes)

            yield await self._read(request, most_bytes, came)

    async def _read(self, request: Request, most_bytes: int, came: Callable[[int], None]) -> bytes:
        now = asyncio.get_running_loop().time
        ends_s = now() + self._all_within_s
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self._part_within_s) as limit:
                async for part in request.stream():
                    size += len(part)
                    if size > most_bytes:
                        raise HTTPException(413, f"the body is larger than {most_bytes:,} bytes")
                    came(len(part))
                    if part:
                        parts.append(part)
                        limit.reschedule(min(ends_s, now() + self._part_within_s))
        except ClientDisconnect:
            raise HTTPException(400, "the body broke off") from None
        except TimeoutError:
            raise HTTPException(
                408,
                f"{size:,} bytes of the body came; allowed are pauses of {self._part_within_s:g} s,"
                f" and {self._all_within_s:g} s for all of it",
                {"Connection": "close"},
            ) from None
        return b"".join(parts)
