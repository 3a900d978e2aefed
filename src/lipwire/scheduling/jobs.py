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
    """A request of N frames, and the future of its mouths; made by ``Scheduler.submit``.

    ``cancel()`` succeeds at any time before the last frame is done: frames not begun are never run,
    and the results of those being run are dropped. When the future is done ``started_s`` and
    ``finished_s`` are set (the scheduler's clock; None where no frame was begun).
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
        """Arguments are those of ``Scheduler.submit``; ``submitted_s`` is the time of the
        scheduler's clock. ``withdraw`` is called with the job to cancel it, and returns whether it
        is cancelled."""
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
        """Frames that no worker has been given yet."""
        return self.frames - self.taken

    @property
    def queue_s(self) -> float | None:
        """Seconds from submitting to the first frame's beginning; None where none was begun."""
        return None if self.started_s is None else self.started_s - self.submitted_s

    def cancel(self) -> bool:
        """Cancel the job: frames that no run has are not run, what a run makes of the others is
        dropped, and whoever waits for the mouths gets CancelledError. Returns whether it is
        cancelled, by this call or an earlier one; False where it has ended otherwise."""
        return self._withdraw(self)

    def end_cancelled(self) -> None:
        """End the future as cancelled. The scheduler calls this, without its lock, after it has set
        ``settled`` for the job."""
        super().cancel()
        self.set_running_or_notify_cancel()

    def shaped_like(self, other: "Job[K]") -> bool:
        """Return whether frames of both jobs can be in one run: form, shapes and types are the
        same."""
        return (
            self.form == other.form
            and self.faces.dtype == other.faces.dtype
            and self.faces.shape[1:] == other.faces.shape[1:]
            and self.windows.shape[1:] == other.windows.shape[1:]
        )

    def place(self, piece: "Piece[K]", mouths: Array) -> Array:
        """Return the array into which the caller is to copy ``mouths``, those of ``piece``,
        (frames, ...): a view of the job's mouths, made of the same type where there were none.

        Where the piece is the whole job it is ``mouths`` itself, and nothing is to be copied.
        Called under the scheduler's lock.
        """
        if self.mouths is None:
            if piece.frames == self.frames:
                self.mouths = mouths
                return mouths
            self.mouths = np.empty((self.frames, *mouths.shape[1:]), mouths.dtype)
        return self.mouths[piece.start : piece.stop]


@dataclass(frozen=True, slots=True)
class Piece(Generic[K]):
    """Consecutive frames of one job that are run together."""

    job: Job[K]
    start: int
    stop: int

    @property
    def frames(self) -> int:
        """How many frames the piece has."""
        return self.stop - self.start

    @property
    def faces(self) -> Array:
        """The faces of the piece's frames, (frames, ...), a view of the job's."""
        return self.job.faces[self.start : self.stop]

    @property
    def windows(self) -> Float32Array:
        """The windows of the piece's frames, (frames, 32, 16, 16) float32, a view of the job's."""
        return self.job.windows[self.start : self.stop]


MayJoin = Callable[[list[Piece[K]], Job[K], int], bool]
"""Takes the pieces of a run, a further job and how many of its frames would come: whether they may
join the run."""


def together(pieces: list[Piece[K]]) -> tuple[Array, Float32Array]:
    """Return the faces, (N, ...), and the windows, (N, 32, 16, 16) float32, of all N frames of
    ``pieces``, in their order. The pieces, at least one, are of one key and shaped alike
    (``Job.shaped_like``); those of a single piece are views, not copies."""
    if len(pieces) == 1:
        return pieces[0].faces, pieces[0].windows
    faces = np.concatenate([piece.faces for piece in pieces])
    # Concatenation forgets of which type of array they are.
    return faces.view(type(pieces[0].faces)), np.concatenate([piece.windows for piece in pieces])


@dataclass(frozen=True, slots=True)
class Across(Generic[K]):
    """The rule by which frames of several keys are put into one run, and the function that makes
    this run."""

    group: Callable[[K], Hashable | None]
    """Returns the group of a key: keys of equal groups may be in one run, and a key whose group is
    None may not be in a run with others. Called under a lock."""
    run: Callable[[list[tuple[K, Array, Float32Array]]], Sequence[Array]]
    """Runs frames of several keys of one group, each key once: it takes (key, faces, windows) of
    each, and returns the mouths of each in the same order."""
