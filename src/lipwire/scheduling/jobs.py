"""One request's frames while the scheduler has them."""

from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from lipwire.domain import AudioWindows, Float32Array, Form, Service

Array = npt.NDArray[Any]

K = TypeVar("K", bound=Hashable)


class Job(Future[Array], Generic[K]):
    """A request for the mouths of N frames, which a scheduler has taken; the future of the mouths,
    an array with one for each frame. Made by ``Scheduler.submit``.

    ``cancel()`` succeeds until the last frame is done. ``started_s`` is when the first frame was
    begun and ``finished_s`` when the last one was done or a run failed, in seconds of the
    scheduler's clock; None where that has not happened.
    """

    def __init__(
        self,
        key: K,
        form: Form,
        faces: Array,
        windows: AudioWindows,
        *,
        deadline: float | None,
        submitted_s: float,
        withdraw: Callable[["Job[K]"], bool],
        service: Service = "batch",
        tenant: str = "",
    ) -> None:
        """``submitted_s`` is when the request came, in seconds of the scheduler's clock.
        ``withdraw`` is called with the job to cancel it, and returns whether it is cancelled. All
        other arguments are those of ``Scheduler.submit``."""
        super().__init__()
        self.key = key
        self.form: Form = form
        self.service: Service = service
        self.tenant = tenant
        self.faces = faces  # (N, 320, 320, 3) uint8, (N, 6, 320, 320) float32 or (N,) int64 numbers
        self.windows = windows  # (N, 32, 16, 16) float32
        self.frames = len(faces)
        self.deadline = deadline
        self.submitted_s = submitted_s
        self.started_s: float | None = None
        self.finished_s: float | None = None
        self.service_s = 0.0
        """Time its frames were run for; of a run shared with other requests, their part of it."""
        self.worker: int | None = None
        """Who ran its first frame."""
        # What follows is the scheduler's lock's.
        self._withdraw = withdraw
        self.taken = 0
        """Frames handed to workers, from the first on."""
        self.done_frames = 0
        self.mouths: Array | None = None
        self.settled = False
        """Somebody has taken it upon them to end this future; nobody else does."""
        self.withdrawn = False
        """It was settled by being cancelled."""

    @property
    def left(self) -> int:
        """How many of the job's frames have not been handed to a worker yet."""
        return self.frames - self.taken

    @property
    def queue_s(self) -> float | None:
        """Seconds from submitting to the first frame's beginning; None where none was begun."""
        return None if self.started_s is None else self.started_s - self.submitted_s

    def cancel(self) -> bool:
        """Cancel the job: frames that were not handed to a worker yet are not run, the mouths of
        the others are dropped, and whoever waits for the mouths gets CancelledError. Returns
        whether it is cancelled, by this call or an earlier one; False where it has ended
        otherwise."""
        return self._withdraw(self)

    def end_cancelled(self) -> None:
        """End the future as cancelled, so that whoever waits for it gets CancelledError. To be
        called by the scheduler alone, without its lock, after it has set ``settled``."""
        super().cancel()
        self.set_running_or_notify_cancel()

    def shaped_like(self, other: "Job[K]") -> bool:
        """Return whether frames of this job and of ``other`` can be in one run of a network: the
        form, the shapes of a frame's arrays and the type of the faces are the same."""
        return (
            self.form == other.form
            and self.faces.dtype == other.faces.dtype
            and self.faces.shape[1:] == other.faces.shape[1:]
            and self.windows.shape[1:] == other.windows.shape[1:]
        )

    def place(self, piece: "Piece[K]", mouths: Array) -> Array:
        """Return the array into which the caller is to copy ``mouths``, (frames, ...), which a run
        made of ``piece``, a piece of this job. It is a view of the piece's part of the array that
        is the future's result in the end; that array is made by the first call.

        Where the piece is the whole job, ``mouths`` itself becomes the result and is returned:
        nothing is to be copied. The caller holds the scheduler's lock.
        """
        if self.mouths is None:
            if piece.frames == self.frames:
                self.mouths = mouths
                return mouths
            self.mouths = np.empty((self.frames, *mouths.shape[1:]), mouths.dtype)
        return self.mouths[piece.start : piece.stop]


@dataclass(frozen=True, slots=True)
class Piece(Generic[K]):
    """Consecutive frames of one job that are run together: from number ``start`` up to but without
    ``stop`` of those of ``job``, counted from 0."""

    job: Job[K]
    start: int
    stop: int

    @property
    def frames(self) -> int:
        """How many frames the piece has."""
        return self.stop - self.start

    @property
    def faces(self) -> Array:
        """What the network is shown of the piece's frames, a view of that part of ``Job.faces``:
        (frames, ...), of the shape and type that ``Scheduler.submit`` was given."""
        return self.job.faces[self.start : self.stop]

    @property
    def windows(self) -> Float32Array:
        """The audio windows of the piece's frames, (frames, 32, 16, 16) float32, a view of that
        part of ``Job.windows``."""
        return self.job.windows[self.start : self.stop]


MayJoin = Callable[[list[Piece[K]], Job[K], int], bool]
"""Takes the pieces of a run, a further job and how many of its frames would come: whether they may
join the run."""


def together(pieces: list[Piece[K]]) -> tuple[Array, Float32Array]:
    """Return the faces, (N, ...), and the audio windows, (N, 32, 16, 16) float32, of all N frames
    of ``pieces``, in their order.

    ``pieces`` is one or more, whose jobs are ``Job.shaped_like`` each other. Of a single piece both
    are views, not copies.
    """
    if len(pieces) == 1:
        return pieces[0].faces, pieces[0].windows
    faces = np.concatenate([piece.faces for piece in pieces])
    # Concatenation forgets of which type of array they are.
    return faces.view(type(pieces[0].faces)), np.concatenate([piece.windows for piece in pieces])


@dataclass(frozen=True, slots=True)
class Across(Generic[K]):
    """How a scheduler puts frames of several keys into one run, where a device can run several
    networks at once.

    ``group(key)`` returns a value that is equal for keys that may be in one run, or None for a key
    that may not be in a run with others. It is called under the scheduler's lock. ``run`` makes
    such a run: it takes a list of (key, faces, windows), each key once, and returns the mouths of
    each, in that order.
    """

    group: Callable[[K], Hashable | None]
    """Returns the group of a key: keys of equal groups may be in one run, and a key whose group is
    None may not be in a run with others. Called under a lock."""
    run: Callable[[list[tuple[K, Array, Float32Array]]], Sequence[Array]]
    """Runs frames of several keys of one group, each key once: it takes (key, faces, windows) of
    each, and returns the mouths of each in the same order."""
