"""What clients are told of a render, as JSON: over HTTP and in webhooks."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from lipwire.domain import FPS
from lipwire.renders.job import Job, VideoFormat
from lipwire.renders.links import SignedLinks

_NAMES: Final[Mapping[VideoFormat, str]] = {"mp4": "video.mp4", "hls": "video.m3u8"}
"""What is fetched first of a video."""


class Telling:
    """Describes renders to clients: makes the JSON object for a job, with the URLs of its video,
    signed where there is a secret. Thread-safe."""

    def __init__(self, links: SignedLinks | None = None, public_url: str = "") -> None:
        """``links`` signs addresses; None where they are not signed. ``public_url`` is what they
        begin with, as that of a CDN; empty for paths of this server alone."""
        self._links = links
        self._public_url = public_url.rstrip("/")

    def told(self, job: Job) -> dict[str, Any]:
        """Return the description of ``job`` that clients and webhooks get, a dictionary for
        ``json.dumps``. Its member ``error`` describes a failure, as problem details (RFC 9457). Its
        member ``video`` says where the video is; where URLs are signed, it has a ``signed_url`` and
        the time at which that ``expires``. Times are texts, in the form of RFC 3339."""
        order = job.order
        told: dict[str, Any] = {
            "id": job.id,
            "state": job.state,
            "avatar": order.avatar,
            "format": order.format,
            "progress": round(job.progress, 4),
            "done_frames": job.done_frames,
            "frames": job.frames,
            "created": _moment(job.created_s),
        }
        if job.started_s is not None:
            told["started"] = _moment(job.started_s)
        if job.ended_s is not None:
            told["ended"] = _moment(job.ended_s)
        if job.cached:
            told["cached"] = True
        if job.failure is not None:
            told["error"] = {
                "type": "about:blank",
                "title": "The video cannot be made",
                "code": job.failure.code,
                "detail": job.failure.detail,
            }
        if job.video is not None:
            told["video"] = {
                **self._addresses(path_of(job, _NAMES[order.format])),
                "bytes": job.video.size_bytes,
                "sha256": job.video.sha256,
                "seconds": job.frames / FPS,
            }
        return told

    def _addresses(self, path: str) -> dict[str, str]:
        told = {"url": self._public_url + path}
        if self._links is not None:
            query, expires_s = self._links.query(signed_path(path))
            told["signed_url"] = f"{self._public_url}{path}?{query}"
            told["expires"] = _moment(expires_s)
        return told


def path_of(job: Job, name: str = "") -> str:
    """Return the path of ``job`` in the HTTP API, or that of its file ``name``, such as
    "video.mp4", where that is not empty."""
    return f"/v1/renders/{job.id}" + (f"/{name}" if name else "")


def signed_path(path: str) -> str:
    """Return the path that is signed for ``path``, the path of a file of a render: the folder of
    the file, with a slash at the end. One signature is for all files of a render, because a
    playlist leads to another file."""
    return path.rpartition("/")[0] + "/"


def _moment(time_s: float) -> str:
    """A time in seconds since 1970, as RFC 3339 has it."""
    return datetime.fromtimestamp(time_s, UTC).isoformat(timespec="milliseconds")
