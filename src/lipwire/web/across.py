"""The web servers of several processes as one: requests about a session are answered by the process
that has it, new sessions begin where there are the fewest, and lists are about all."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lipwire.session.live.sessions import NO_SESSION
from lipwire.web.asked import is_listing, is_opening, session_of
from lipwire.web.passing import NotThere, is_passed_on, pass_on
from lipwire.web.problems import Told, refuse

_LIST_WITHIN_S: Final = 2.0
"""What another process has to say which sessions it has in."""
_ENDED: Final = Told(
    503,
    "the process that was to have the session has ended; ask again",
    retry_after_s=1.0,
    code="UNAVAILABLE",
)

_Answering = Callable[[Scope, Receive, Send], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class WebWorkers:
    """The processes of a server that share its web port, seen from one of them: its own number
    (``index``); the Unix sockets on which the others answer requests that are passed on, by their
    numbers; ``owner_of(session_id)``, which returns the number of the process that has a session
    (None where no process has it); and ``sessions()``, which returns how many sessions each process
    that runs has, by its number."""

    index: int
    """Its number."""
    others: Mapping[int, Path]
    """The others' numbers, and the Unix sockets on which they answer what is passed on."""
    owner_of: Callable[[str], int | None]
    """Says which process the id of a session names; None for no process."""
    sessions: Callable[[], Mapping[int, int]]
    """Says how many sessions each process has that is there."""


class AcrossWorkers:
    """ASGI middleware that answers a request in this process, or passes it on to the process that
    has the session or the fewest sessions. A request that was passed on is answered here."""

    def __init__(self, app: ASGIApp, workers: WebWorkers) -> None:
        """``app`` answers for this process."""
        self._app = app
        self._workers = workers
        self._beginning: dict[int, int] = {}
        """Sessions that this process has asked each process for, and that have not begun."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request."""
        if is_passed_on(scope):
            await self._app(scope, receive, send)
            return
        if is_opening(scope):
            await self._begin(scope, receive, send)
        elif (session_id := session_of(scope)) is not None:
            await self._ask_owner(session_id, scope, receive, send)
        elif is_listing(scope):
            await self._list(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _ask_owner(self, session_id: str, scope: Scope, receive: Receive, send: Send) -> None:
        owner = self._workers.owner_of(session_id)
        path = None if owner is None else self._workers.others.get(owner)
        if path is None:
            await self._app(scope, receive, send)
            return
        answered = False
        with suppress(NotThere):
            answered = await pass_on(path, scope, receive, send)
        if answered:
            return
        # The sessions of a process end with it.
        await refuse(scope, receive, send, Told(404, NO_SESSION, code="NOT_FOUND"))

    async def _begin(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Have a session begin in the process that has the fewest."""
        index = self._fewest()
        self._beginning[index] = self._beginning.get(index, 0) + 1
        begun = False

        async def answer(message: Message) -> None:
            nonlocal begun
            if not begun:  # it is counted by its process now; a socket goes on for long
                begun = True
                self._beginning[index] -= 1
            await send(message)

        try:
            path = self._workers.others.get(index)
            if path is None:
                await self._app(scope, receive, answer)
                return
            try:
                answered = await pass_on(path, scope, receive, answer)
            except NotThere:
                await self._app(scope, receive, answer)
                return
            if not answered:
                await refuse(scope, receive, answer, _ENDED)
        finally:
            if not begun:
                self._beginning[index] -= 1

    def _fewest(self) -> int:
        """Of equal ones this process is asked first, which costs the least."""
        counts = self._workers.sessions()
        return min(
            counts,
            key=lambda index: (
                counts[index] + self._beginning.get(index, 0),
                index != self._workers.index,
                index,
            ),
        )

    async def _list(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with the sessions of all processes."""
        others = self._workers.others
        own, *told = await asyncio.gather(
            _json_of(self._app, scope),
            *(_asked(partial(pass_on, path), scope) for path in others.values()),
        )
        missing = []
        for index, one in zip(others, told, strict=True):
            if isinstance(one, str):
                missing.append(f"worker {index} {one}")
                continue
            own["active"] += one["active"]
            own["opened"] += one["opened"]
            if "sessions" in own:
                own["sessions"] += one["sessions"]
        if missing:
            own["detail"] = "; ".join(missing)
        await JSONResponse(own)(scope, receive, send)


async def _asked(answering: _Answering, scope: Scope) -> dict[str, Any] | str:
    """What another process answers a request without a body; or why it does not."""
    try:
        return await asyncio.wait_for(_json_of(answering, scope), _LIST_WITHIN_S)
    except TimeoutError:
        return f"has not answered within {_LIST_WITHIN_S:g} s"
    except (NotThere, ValueError):  # ValueError: it has ended meanwhile
        return "is not there"


async def _json_of(answering: _Answering, scope: Scope) -> dict[str, Any]:
    body = bytearray()

    async def receive() -> Message:
        await asyncio.Event().wait()
        raise AssertionError("nothing is received")

    async def send(message: Message) -> None:
        body.extend(message.get("body", b""))

    await answering(dict(scope), receive, send)
    told: dict[str, Any] = json.loads(body)
    return told
