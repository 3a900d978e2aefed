"""Finished videos over HTTP: ordered, looked at, fetched and removed.

POST        /v1/render                      order one
GET         /v1/renders                     those of the caller's tenant, newest first
DELETE      /v1/renders                     remove all of them
GET, DELETE /v1/renders/{id}                how one does; cancel or remove it
GET, HEAD   /v1/renders/{id}/video.mp4      the video, whole or in parts
GET, HEAD   /v1/renders/{id}/video.m3u8     for HLS: the playlist, and the file of its segments
GET, HEAD   /v1/renders/{id}/video.m4s
"""

import asyncio
import hashlib
from collections.abc import Callable, Mapping, Sequence
from email.utils import formatdate
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import Scope

from lipwire.domain import (
    Access,
    InvalidInput,
    NotFound,
    Overloaded,
    PermissionDenied,
    StorageFailed,
)
from lipwire.renders import Job, KeyTaken, Renders, SignedLinks, VideoFormat
from lipwire.renders.links import SIGNATURE
from lipwire.renders.ordering import listed, order_of
from lipwire.renders.playlist import with_query
from lipwire.renders.told import path_of, signed_path
from lipwire.security import AccessControl
from lipwire.web.asked import files_render
from lipwire.web.audio import NO_VOICE, check_format, check_text, samples_of
from lipwire.web.bodies import BodyRoom
from lipwire.web.guard import access_of, has_token
from lipwire.web.problems import problem
from lipwire.web.ranges import NotSatisfiable, has_already, ranges_of
from lipwire.web.requested import avatar_of, json_of, media_type, number

PLAYLIST: Final = "application/vnd.apple.mpegurl"
MP4: Final = "video/mp4"
SEGMENTS: Final = "video/iso.segment"
_MOST_AUDIO_BYTES: Final = 64 * 1024 * 1024
_NO_RENDERS: Final = "this server makes no videos (renders.folder is not set)"
_FILES: Final[Mapping[str, tuple[VideoFormat, str]]] = {
    "video.mp4": ("mp4", MP4),
    "video.m3u8": ("hls", PLAYLIST),
    "video.m4s": ("hls", SEGMENTS),
}
_PRIVATE: Final = "private, max-age=300"
"""For whoever shows who they are; caches that others share keep what was signed alone."""


class RenderApi:
    """Answers requests about finished videos. Used in one event loop; what looks at a disk is done
    in threads. Where the server makes no videos, each handler raises NotFound."""

    def __init__(
        self,
        renders: Renders | None,
        names: Callable[[], Sequence[str]],
        *,
        room: BodyRoom,
        control: AccessControl,
        links: SignedLinks | None = None,
        speaks: bool = False,
    ) -> None:
        """``renders`` are the server's; None where it makes none. ``names()`` returns the avatars
        that there are. ``room`` limits how many bytes of requests' bodies are in memory, and
        ``control`` how many a tenant may send. ``links`` checks signed links (None: there are
        none), and ``speaks`` says whether there is a voice for texts."""
        self._given = renders
        self._names = names
        self._room = room
        self._control = control
        self._links = links
        self._speaks = speaks

    def routes(self) -> list[Route]:
        """Return the routes below ``/v1``, which call the handlers of this object."""
        return [
            Route("/render", self.order, methods=["POST"]),
            Route("/renders", self.every, methods=["GET", "DELETE"]),
            Route("/renders/{render}", self.one, methods=["GET", "DELETE"]),
            *(Route(f"/renders/{{render}}/{name}", self.video) for name in _FILES),
        ]

    def signed(self, scope: Scope) -> Access | None:
        """Return what the request of the ASGI ``scope`` may do because its link is signed: get
        files of renders of the tenant whose render it is. None where the link has no signature or
        is not to a file of a render, and where the server signs no links. Looks at the disk, so
        call it in a thread. Raises PermissionDenied where the signature is not right, or has
        expired, and NotFound where there is no such render."""
        found = files_render(scope)
        query = Request(scope).query_params
        if found is None or self._given is None or self._links is None or SIGNATURE not in query:
            return None
        self._links.check(scope["method"], signed_path(scope["path"]), query)
        tenant = self._given.find(found).order.tenant
        return Access("signed link", tenant, frozenset({"deliver"}))

    async def order(self, request: Request) -> Response:
        """Answer ``POST /v1/render``: take in a render of a text (JSON) or of audio, which is made
        later, and return 202 with the job and its ``Location``. An answer with problem details is
        returned for another media type (415), without a voice (501), for an idempotency key that
        another order had (422), where too many wait (429), and where the disk has no room (507).

        Raises InvalidInput where what is asked for is wrong, NotFound where there is no such
        avatar, HTTPException where the body is too large, breaks off or takes too long,
        LimitExceeded where the tenant may not send it now, and Overloaded where there is no room
        for it.
        """
        renders = self._renders
        key = _key_of(request)
        kind = media_type(request)
        if kind == "application/json":
            asked = await json_of(request, self._control, self._room)
            text = check_text(asked.get("text"))
            if not self._speaks:
                return problem(501, NO_VOICE)
            return await self._taken(renders, request, asked, key, text=text)
        if kind not in ("audio/pcm", "audio/l16", "application/octet-stream"):
            return problem(
                415,
                f"the body is {kind}; allowed are application/json and audio/pcm (16-bit, little"
                " endian; ?avatar=, ?rate= and ?channels=)",
            )
        rate_hz, channels = number(request, "rate", 16_000), number(request, "channels", 1)
        check_format(rate_hz, channels)
        asked = {**request.query_params, "start_frame": number(request, "start_frame", 0)}
        async with self._room.body(request, self._control, _MOST_AUDIO_BYTES) as data:
            pcm = samples_of(data, channels)
            return await self._taken(renders, request, asked, key, pcm=pcm, rate_hz=rate_hz)

    async def every(self, request: Request) -> Response:
        """Answer ``GET`` and ``DELETE /v1/renders``: list the renders of the caller's tenant, the
        newest first, or remove all of them. Raises PermissionDenied where the request came without
        a token or key, and InvalidInput for a wrong query, also where a caller of no tenant does
        not say in ``?tenant=`` whose renders to remove."""
        renders = self._renders
        if not has_token(request.scope):  # an id is all that another page needs to fetch one
            raise PermissionDenied(
                "this is for whoever shows who they are: send the token, or an API key"
            )
        tenant = access_of(request.scope).tenant
        if request.method == "DELETE":
            if not tenant and "tenant" not in request.query_params:
                raise InvalidInput("?tenant= is missing; say whose renders are to be removed")
            whose = tenant or request.query_params["tenant"]
            removed = await asyncio.to_thread(partial(renders.remove_all, tenant=whose))
            return JSONResponse({"removed": removed})
        most = listed(number(request, "most", 100))
        before = request.query_params.get("before", "")
        jobs = await asyncio.to_thread(partial(renders.every, tenant, before=before, most=most))
        counts = await asyncio.to_thread(renders.counts)
        told = [renders.telling.told(job) for job in jobs]
        return _fresh({"renders": told, "queued": counts.queued, "running": counts.running})

    async def one(self, request: Request) -> Response:
        """Answer ``GET /v1/renders/{id}`` with the state of the render, and ``DELETE`` (204) by
        cancelling a render that has not ended, or removing one that has. Raises NotFound where the
        caller's tenant has no such render."""
        renders = self._renders
        job_id, tenant = request.path_params["render"], access_of(request.scope).tenant
        job = await asyncio.to_thread(renders.find, job_id, tenant)
        if request.method == "GET":
            return _fresh(renders.telling.told(job))
        if job.has_ended:
            await asyncio.to_thread(renders.remove, job_id, tenant)
        else:
            await asyncio.to_thread(renders.cancel, job_id, tenant)
        return Response(status_code=204)

    async def video(self, request: Request) -> Response:
        """Answer requests for files of a render: its video, whole or in parts (``Range``), its
        playlist, or the file of its segments. Raises NotFound where the caller's tenant has no such
        render, or it has no such file."""
        renders = self._renders
        form, kind = _FILES[request.url.path.rpartition("/")[2]]
        tenant = access_of(request.scope).tenant
        job = await asyncio.to_thread(renders.find, request.path_params["render"], tenant)
        if job.order.format != form:
            raise NotFound(f"the render is of the format {job.order.format}")
        path = await asyncio.to_thread(renders.file, job)
        headers = {"Cache-Control": self._cached(request)}
        if kind == PLAYLIST:
            return self._playlist(request, job, headers)
        assert job.video is not None  # renders.file looks at that
        headers["ETag"] = etag = f'"{job.video.sha256}"'
        if has_already(request.headers, etag):
            return Response(status_code=304, headers=headers)
        found = await asyncio.to_thread(path.stat)
        try:
            ranges = ranges_of(
                request.headers,
                size_bytes=found.st_size,
                etag=etag,
                modified=formatdate(found.st_mtime, usegmt=True),
            )
        except NotSatisfiable as error:
            return problem(
                416,
                f"the video has {found.st_size} bytes; asked for was {str(error)[:100]}",
                headers={"Content-Range": f"bytes */{found.st_size}"},
            )
        _set_ranges(request.scope, ranges)
        return FileResponse(path, headers=headers, media_type=kind, stat_result=found)

    @property
    def _renders(self) -> Renders:
        if self._given is None:
            raise NotFound(_NO_RENDERS)
        return self._given

    async def _taken(
        self,
        renders: Renders,
        request: Request,
        asked: Mapping[str, Any],
        key: str | None,
        *,
        text: str | None = None,
        pcm: npt.NDArray[np.int16] | None = None,
        rate_hz: int = 0,
    ) -> Response:
        order = order_of(
            access_of(request.scope),
            self._names,
            avatar=avatar_of(asked),
            text=text,
            video_format=asked.get("format", "mp4"),
            start_frame=asked.get("start_frame", 0),
            webhook=asked.get("webhook"),
            key=key,
            takes_webhooks=renders.takes_webhooks,
        )
        try:
            job = await asyncio.to_thread(renders.submit, order, pcm, rate_hz)
        except KeyTaken as error:
            return problem(422, str(error))
        except Overloaded as error:
            counts = await asyncio.to_thread(renders.counts)
            return problem(
                429, str(error), retry_after_s=error.retry_after_s, waiting=counts.queued
            )
        except StorageFailed as error:
            return problem(507, str(error))
        return JSONResponse(renders.telling.told(job), 202, {"Location": path_of(job)})

    def _cached(self, request: Request) -> str:
        """What caches may do with the answer: one with a right link is for everybody who has it,
        for as long as it counts."""
        query = request.query_params
        if self._links is None or SIGNATURE not in query:
            return _PRIVATE
        try:
            left_s = self._links.check(request.method, signed_path(request.url.path), query)
        except PermissionDenied:  # who shows a key needs no right link
            return _PRIVATE
        return f"public, max-age={int(left_s)}"

    def _playlist(self, request: Request, job: Job, headers: dict[str, str]) -> Response:
        assert job.video is not None
        text = job.video.playlist
        if SIGNATURE in request.query_params:
            text = with_query(text, request.url.query)
        etag = f'"{hashlib.sha256(text.encode()).hexdigest()}"'
        headers["ETag"] = etag
        if has_already(request.headers, etag):
            return Response(status_code=304, headers=headers)
        return Response(text, headers=headers, media_type=PLAYLIST)


def _key_of(request: Request) -> str | None:
    """The idempotency key of a request, with or without the quotes that its draft has."""
    given = request.headers.get("idempotency-key")
    if given is None:
        return None
    key = given.strip()
    if len(key) > 1 and key[0] == key[-1] == '"':
        key = key[1:-1]
    return key


def _fresh(told: Mapping[str, Any]) -> Response:
    return JSONResponse(told, headers={"Cache-Control": "no-store"})


def _set_ranges(scope: Scope, ranges: str) -> None:
    """Have a request ask for ``ranges`` in place of what it asked for; empty is the whole file."""
    others = (b"range", b"if-range")
    scope["headers"] = [pair for pair in scope["headers"] if pair[0].lower() not in others]
    if ranges:
        scope["headers"].append((b"range", ranges.encode()))
