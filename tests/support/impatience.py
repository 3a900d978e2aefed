"""Servers that look a hundred times a second whether they are to stop, where uvicorn looks ten
times, and Python's own twice: a test stops one, and there are hundreds."""

import asyncio
import socketserver
from typing import Any

import pytest
import uvicorn.server

EVERY_S = 0.01


class _Asyncio:
    """asyncio, but that nobody sleeps for longer."""

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)

    @staticmethod
    async def sleep(delay_s: float) -> None:
        await asyncio.sleep(min(delay_s, EVERY_S))


def make_impatient(patch: pytest.MonkeyPatch) -> None:
    """Have uvicorn's and Python's servers be so until ``patch`` is undone."""
    patch.setattr(uvicorn.server, "asyncio", _Asyncio())
    patch.setattr(socketserver.BaseServer.serve_forever, "__defaults__", (EVERY_S,))
