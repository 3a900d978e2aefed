"""A render as a job: what was ordered, and how far it is.

Theory of operation. A job is in one of five states, and what leads from one to another is this
table; a job in one of the last three has ended, and is removed when its time is over, or when its
tenant wants that::

    from        to          because
    queued      running     a worker has taken it
    queued      cancelled   its tenant does not want it any more
    running     done        its video is there
    running     failed      it cannot be made, or was begun too often
    running     cancelled   its tenant does not want it any more
    running     queued      its process has ended, or what failed may succeed later
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, get_args

State = Literal["queued", "running", "done", "failed", "cancelled"]
"""What a job does: wait, be rendered, or have ended in one of three ways."""

ENDED: Final[frozenset[State]] = frozenset({"done", "failed", "cancelled"})
"""The states in which nothing happens to a job any more."""

VideoFormat = Literal["mp4", "hls"]
"""``mp4``: one file. ``hls``: a playlist, and a file of which its segments are parts (HTTP Live
Streaming, RFC 8216, with fragmented MP4 and byte ranges)."""

FORMATS: Final[tuple[VideoFormat, ...]] = get_args(VideoFormat)

SUFFIXES: Final[Mapping[VideoFormat, str]] = {"mp4": ".mp4", "hls": ".m4s"}
"""What the names of the files of video end in."""


@dataclass(frozen=True, slots=True)
class Order:
    """What somebody wants rendered, and for whom.

    ``tenant`` is the customer whose render it is, empty where customers are not told apart, and
    ``subject`` who sent the order. ``avatar``, a canonical name, is shown saying ``text``, or a
    recording where ``text`` is None, beginning with its frame ``start_frame`` (from 0). ``webhook``
    is a URL that is called when the render has ended; None where the order names none. ``key`` is
    an idempotency key: a second order of the tenant with the same key gets the same job; None: no
    key. ``fingerprint``, set by ``Renders.submit``, is a hash of all that was asked for, by which
    orders with the same key are compared.
    """

    tenant: str
    subject: str
    avatar: str
    format: VideoFormat = "mp4"
    fingerprint: str = ""
    text: str | None = None
    start_frame: int = 0
    webhook: str | None = None
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Video:
    """A finished video: the SHA-256 of its file in hexadecimal digits, which is also its name, the
    file's size, and, for HLS, the playlist whose segments are parts of the file."""

    sha256: str
    size_bytes: int
    playlist: str = ""
    """The text of the playlist, with the file as ``video.m4s``; empty where there is none."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a job has failed: ``code``, the name of a gRPC status, such as "INVALID_ARGUMENT", and
    ``detail``, one line for whoever ordered it."""

    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class Job:
    """A render that was ordered, and its state at one moment. Times are seconds since 1970.
    ``starts`` is how often a process has begun it and not put it back, ``tries`` how often it has
    failed with an error after which it is tried again. ``done_frames`` of its ``frames`` are made
    (``frames`` 0: not known yet). ``cached`` says whether its video is that of an earlier order."""

    id: str
    order: Order
    state: State
    created_s: float
    started_s: float | None = None
    ended_s: float | None = None
    starts: int = 0
    tries: int = 0
    done_frames: int = 0
    frames: int = 0
    failure: Failure | None = None
    video: Video | None = None
    cached: bool = False

    @property
    def has_ended(self) -> bool:
        """Whether the job is done, failed or cancelled, and nothing happens to it any more."""
        return self.state in ENDED

    @property
    def progress(self) -> float:
        """The share of its frames that is made, 0 to 1; 0 while their number is not known, 1 once
        it is done."""
        if self.state == "done":
            return 1.0
        return min(1.0, self.done_frames / self.frames) if self.frames else 0.0


@dataclass(frozen=True, slots=True)
class JobCounts:
    """How many jobs wait (``queued``) and are rendered (``running``), and how many ``bytes`` the
    files of all jobs take."""

    queued: int
    running: int
    bytes: int
