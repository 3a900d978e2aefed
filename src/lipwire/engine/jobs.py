"""One request's frames on their way through the scheduler."""

from collections.abc import Callable, Hashable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from lipwire.domain import Float32Array
from lipwire.engine.wrapping import Form

Array = npt.NDArray[Any]

K = TypeVar("K", bound=Hashable)


class Job(Future[Array], Generic[K]):
    """A request of N frames, and the future of its mouths: made by ``Scheduler.submit``.

    ``cancel()`` succeeds at any time before the last frame is done: frames not begun are never
    run, those being run are thrown away. When the future is done ``started_s`` and ``finished_s``
    are set (the scheduler's clock; None where no frame was begun).
    """

    def __init__(
        self,
        key: K,
        form: Form,
        faces: Array,
        windows: Float32Array,
        *,
        deadline: float | None,
        submitted_s: float,
        withdraw: Callable[["Job[K]"], None],
    ) -> None:
        super().__init__()
        self.key = key
        self.form: Form = form
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
        """Somebody has taken it upon them to end this future."""

    @property
    def left(self) -> int:
        """Frames not handed to a worker yet."""
        return self.frames - self.taken

    @property
    def queue_s(self) -> float | None:
        """How long it waited for its first frame to be begun; None where none was."""
        return None if self.started_s is None else self.started_s - self.submitted_s

    def cancel(self) -> bool:
        if not super().cancel():
            return False
        self._withdraw(self)
        return True

    def shaped_like(self, other: "Job[K]") -> bool:
        """Whether frames of both can be run together."""
        return (
            self.form == other.form
            and self.faces.dtype == other.faces.dtype
            and self.faces.shape[1:] == other.faces.shape[1:]
            and self.windows.shape[1:] == other.windows.shape[1:]
        )

    def place(self, piece: "Piece[K]", mouths: Array) -> Array:
        """Where ``mouths`` of a finished piece belong; under the lock. They may be it."""
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
        return self.stop - self.start

    @property
    def faces(self) -> Array:
        return self.job.faces[self.start : self.stop]

    @property
    def windows(self) -> Float32Array:
        return self.job.windows[self.start : self.stop]
