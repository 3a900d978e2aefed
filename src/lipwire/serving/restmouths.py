"""What an avatar shows while nobody speaks: each frame with the network's mouth for silence.

An avatar's own frames show a person who is speaking. The mouths for silence are therefore made by
the network, each once, and kept as JPEGs: in the compiled part ``rest`` where that is there, else
in memory until all are there and the part can be written.

    compiled part ──┐
                    ├─▶ JPEG ─▶ decoded: the rest mouth
    network ─▶ memory, at the end written as the part
"""

import logging
from collections.abc import Callable
from threading import Event, Lock
from typing import Final

import numpy as np

from lipwire.avatars import Avatar, homes
from lipwire.avatars.compiled.restpart import (
    RestKey,
    RestPart,
    mouth_of,
    open_rest,
    stored_form,
    write_rest,
)
from lipwire.domain import (
    AUDIO_WINDOW_SHAPE,
    AudioWindows,
    Call,
    InvalidInput,
    Mouths,
    NotFound,
    Progress,
    StorageFailed,
    UInt8Array,
    ping_pong,
)
from lipwire.domain.arrays import check_array
from lipwire.domain.closing import Closing

Draw = Callable[[int, AudioWindows, Call | None], Mouths]
"""Called as (first, windows, call); returns mouths for frames ``first``, ``first + 1`` and so on,
one for each of ``windows``: what ``Network.mouths`` gives."""

_RUN_FRAMES: Final = 8
"""Mouths that ``fill`` has made in one call."""

_logger = logging.getLogger(__name__)


class RestMouths(Closing):
    """The rest mouths of one avatar, the mouths that its network makes of each frame for silence,
    which are shown while nobody speaks. Each is made once, and all are compiled into a file, the
    part ``rest``, when none is missing. A context manager, to be used from any number of threads.

    A mouth is (320, 320, 3) uint8 in the colour order of the avatar's package ("bgr" or "rgb"), as
    ``Avatar.jpeg`` takes it. Frame numbers start at 0; past the avatar's last frame its frames are
    shown back and forth. At most one JPEG a frame is kept in memory, some 27 kB each, and none once
    the part is written. Once closed, ``has``, ``ready``, ``mouth`` and ``fill`` raise InvalidInput.
    """

    def __init__(self, frames: Avatar, draw: Draw, silence: AudioWindows) -> None:
        """``frames`` are the avatar's. ``draw(first, windows, call)`` returns the mouths of frames
        ``first``, ``first + 1`` and so on, one for each of ``windows``. Both are closed by whoever
        opened them. ``silence`` is the audio window of silence, (1, 32, 16, 16) float32
        (``audio.silence_window``).

        Where the revision of ``frames`` does not name the network (only another process has it) the
        part is neither looked for nor written. Raises InvalidInput where ``silence`` has another
        shape or type.
        """
        check_array("silence", silence, AUDIO_WINDOW_SHAPE, np.dtype(np.float32), 1)
        self._frames: Final = frames
        self._draw: Final = draw
        self._silence: Final = silence
        self._count: Final = frames.frame_count
        self._key: Final = RestKey.of(frames.revision, silence[0])
        self._lock: Final = Lock()
        self._part: RestPart | None = self._open_part()
        self._jpegs: dict[int, bytes] = {}
        self._under_way: dict[int, Event] = {}
        """Of each mouth that a thread is making."""
        self._written = False
        """Whether writing the part was tried."""
        self._damaged = False
        """Whether a part was there with a mouth that could not be decoded."""
        self._closed = False

    @property
    def complete(self) -> bool:
        """Whether the rest mouths of all frames have been made."""
        with self._lock:
            return self._complete()

    @property
    def size_bytes(self) -> int:
        """How many bytes the JPEGs of all mouths that have been made take, in memory or mapped from
        the file."""
        with self._lock:
            if self._part is not None:
                return self._part.size_bytes
            return sum(map(len, self._jpegs.values()))

    def has(self, number: int) -> bool:
        """Return whether the rest mouth of frame ``number`` is there, in memory or compiled, so
        that the network need not make it. Raises InvalidInput where ``number`` is below 0."""
        number = self._shown(number)
        with self._lock:
            return self._kept(number)[1] is not None

    def ready(self, number: int) -> UInt8Array | None:
        """Return the rest mouth of frame ``number``, (320, 320, 3) uint8, at once; None where the
        network would have to make it. Raises InvalidInput where ``number`` is below 0."""
        number = self._shown(number)
        with self._lock:
            part, jpeg = self._kept(number)
        return None if jpeg is None else self._decoded(part, jpeg)

    def mouth(self, number: int, *, call: Call | None = None) -> UInt8Array:
        """Return the rest mouth of frame ``number``, and have the network make it where it is not
        there.

        The mouth is (320, 320, 3) uint8. Where another thread makes it at this moment, it is waited
        for. The call that makes the last missing mouth also writes the file of all mouths (the part
        ``rest``); if that fails it is logged, and the mouths stay in memory. ``call`` is the
        request that this is for.

        Raises InvalidInput where ``number`` is below 0, DeadlineExceeded and Cancelled where
        ``call`` ends before. The errors of ``draw``, the function that the constructor was given to
        run the network, are passed on: in a server AvatarChanged where the network is of another
        revision by now, AvatarInvalid where it fails, Overloaded where too many requests wait, and
        Unavailable where it was unloaded or a server is gone.
        """
        number = self._shown(number)
        while True:
            self._obtain(range(number, number + 1), call)
            mouth = self.ready(number)
            if mouth is not None:
                self._write_once()
                return mouth

    def fill(
        self,
        progress: Progress | None = None,
        *,
        waiting: Callable[[], None] = lambda: None,
        call: Call | None = None,
    ) -> None:
        """Have the network make the mouths of all frames that have none yet, and write the file of
        all mouths (the part ``rest``).

        ``progress`` is called with (frames done, frames in all) after every 8 frames and after the
        last one, unless all mouths are there already. ``waiting()`` is called now and then while
        another process writes files of this avatar; an exception that it raises ends the wait and
        is passed on. ``call`` is the request that this is for.

        Raises NotFound where the avatar's folder is gone, StorageFailed where the file cannot be
        written, DeadlineExceeded and Cancelled where ``call`` ends before. The errors of ``draw``,
        the function that the constructor was given to run the network, are passed on: in a server
        AvatarChanged where the network is of another revision by now, AvatarInvalid where it fails,
        Overloaded where too many requests wait, and Unavailable where it was unloaded or a server
        is gone.
        """
        if not self.complete:
            for first in range(0, self._count, _RUN_FRAMES):
                numbers = range(first, min(first + _RUN_FRAMES, self._count))
                self._obtain(numbers, call)
                if progress is not None:
                    progress(numbers.stop, self._count)
        self._write(waiting)

    def close(self) -> None:
        """Drop all mouths; arrays that were returned stay as they are. Nothing is made or returned
        after that."""
        with self._lock:
            self._closed = True
            self._part = None
            self._jpegs.clear()

    def _shown(self, number: int) -> int:
        if number < 0:
            raise InvalidInput(f"frame number is {number}; allowed are 0 and above")
        return ping_pong(number, self._count)

    def _kept(self, number: int) -> tuple[RestPart | None, bytes | UInt8Array | None]:
        """The JPEG of a mouth, and the part that it is from. The lock is held."""
        if self._closed:
            raise InvalidInput(f"the rest mouths of avatar {self._frames.name} are closed")
        part = self._part
        return part, self._jpegs.get(number) if part is None else part.jpeg(number)

    def _complete(self) -> bool:
        return self._part is not None or len(self._jpegs) == self._count

    def _decoded(self, part: RestPart | None, jpeg: bytes | UInt8Array) -> UInt8Array | None:
        """None where ``jpeg`` is damaged; ``part``, which it is from, is then not used any more."""
        mouth = mouth_of(jpeg)
        if mouth is None and part is not None:
            with self._lock:
                first, self._damaged = not self._damaged, True
                if self._part is part:
                    self._part = None
            if first:
                _logger.warning("%s is damaged and made anew", part.path.name)
        return mouth

    def _obtain(self, numbers: range, call: Call | None) -> None:
        """Return when the mouths of all frames ``numbers`` are there. None is made twice: those
        that another thread makes are waited for."""
        while True:
            with self._lock:
                missing = [number for number in numbers if self._kept(number)[1] is None]
                if not missing:
                    return
                own = self._first_free(missing)
                done = self._under_way[missing[0]] if not own else Event()
                self._under_way.update(dict.fromkeys(own, done))
            if not own:
                done.wait(None if call is None else call.remaining_s())
                if call is not None:
                    call.check()
                continue
            try:
                windows = np.repeat(self._silence, len(own), axis=0)
                mouths = self._draw(own[0], windows, call)
                jpegs = [stored_form(mouth) for mouth in mouths]
                with self._lock:
                    if self._part is None and not self._closed:
                        self._jpegs.update(zip(own, jpegs, strict=True))
            finally:
                with self._lock:
                    for number in own:
                        del self._under_way[number]
                done.set()

    def _first_free(self, missing: list[int]) -> list[int]:
        """The first numbers of ``missing`` that follow each other and that nobody makes. The lock
        is held."""
        run: list[int] = []
        for number in missing:
            if number in self._under_way or (run and number != run[-1] + 1):
                if run:
                    break
                continue
            run.append(number)
        return run

    def _open_part(self) -> RestPart | None:
        if self._key is None:
            return None
        files = self._frames.files
        places = homes(self._frames.path, files.key, own=files.compiled)
        return open_rest(places, self._key, self._count)

    def _write_once(self) -> None:
        """Write the part where all mouths are there; what goes wrong is logged."""
        with self._lock:
            if self._written or self._part is not None or not self._complete():
                return
            self._written = True
        try:
            self._write(_leave_it)
        except _BusyError:
            _logger.info(
                "rest mouths of avatar %s are kept in memory: another process writes its parts",
                self._frames.name,
            )
        except NotFound:  # it was erased: nothing of it is kept
            _logger.info(
                "rest mouths of avatar %s are not kept: it is not there any more",
                self._frames.name,
            )
        except StorageFailed as error:
            _logger.warning(
                "rest mouths of avatar %s are kept in memory alone: %s", self._frames.name, error
            )

    def _write(self, waiting: Callable[[], None]) -> None:
        """Write the part, and use it instead of what is in memory. Nothing where it is there, or
        its network is not known. Raises NotFound where the avatar's folder is not there any more,
        StorageFailed, and what ``waiting`` raises."""
        with self._lock:
            if self._key is None or self._part is not None or len(self._jpegs) < self._count:
                return
            jpegs = [self._jpegs[number] for number in range(self._count)]
        frames = self._frames
        write_rest(frames.path, frames.files, self._key, jpegs, waiting, replace=self._damaged)
        part = self._open_part()
        with self._lock:
            if part is not None and not self._closed:
                self._part = part
                self._jpegs.clear()


class _BusyError(Exception):
    """Another process holds the lock of the avatar's compiled form."""


def _leave_it() -> None:
    raise _BusyError
