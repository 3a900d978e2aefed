"""Whole frames of one avatar, decoded from its source when they are needed, and a little before.

    frame(form, number, step)
        it is in the cache           -> that array
        it is about to be decoded    -> wait for it
        else                         -> have it decoded, before all others, and wait
    and where the frame before it on the walk is in the cache too, have those behind it decoded

On a walk forward, frames are decoded in small runs. On a walk backward and after a jump a video is
decoded from the last key frame on; what is met on the way is kept as far as the cache has room, so
that this is not done once for each frame. The first frame of all is not waited for longer than it
takes to decode: what lies before it is kept when somebody jumps again or walks back.

The threads that decode live while there is something to decode.
"""

import threading
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from lipwire.avatars.frames.framecache import FrameCache, FrameKey
from lipwire.avatars.frames.sources import Source
from lipwire.compose import bgr_to_i420
from lipwire.domain import InvalidInput, UInt8Array

Form = Literal["planes", "pixels"]
"""I420, or BGR."""
FORMS: Final[tuple[Form, ...]] = ("planes", "pixels")

_AHEAD_FRAMES: Final = 16
_AHEAD_SHARE: Final = 8
"""Frames ahead take at most this part of the cache: one that is full lets go of none unseen."""
_RUN_SHARE: Final = 2
"""A run from a key frame takes at most this part."""


@dataclass(frozen=True, slots=True)
class _Run:
    """Frames to be decoded one after the other."""

    form: Form
    numbers: list[int]
    """Rising."""


class WholeFrames:
    """The whole frames of one opened avatar, numbered from 0, each decoded by threads of its own
    when it is needed and kept in a cache. Thread-safe."""

    def __init__(
        self, source: Source, count: int, pixels: int, cache: FrameCache, content: str, name: str
    ) -> None:
        """``source``, which is closed with this, has ``count`` frames of ``pixels`` pixels each,
        width times height, both rounded up to even numbers. ``content`` is a text under which
        frames are kept in ``cache``: avatars with the same text share them. ``name`` is the
        avatar's, for messages."""
        self._source = source
        self._count = count
        self._sizes_bytes: dict[Form, int] = {"planes": pixels * 3 // 2, "pixels": pixels * 3}
        self._cache = cache
        self._content = content
        self._name = name
        self._lock = threading.Lock()
        self._runs: deque[_Run] = deque()
        self._coming: dict[FrameKey, Future[UInt8Array]] = {}
        self._threads: set[threading.Thread] = set()
        self._begun = False
        """Whether a frame was asked for before."""
        self._shown: int | None = None
        """Where ``look_ahead`` was last told to look from."""
        self._closed = False
        for form in FORMS:
            cache.use(self._key(form, 0)[0])

    def frame(self, form: Form, number: int, step: int) -> UInt8Array:
        """Return frame ``number``, 0 to count - 1, uint8 and read-only; waits until it is decoded
        where it is not in the cache, and begins to decode those that follow.

        It is (even height * 3/2, even width) I420 where ``form`` is "planes", and (height, width,
        3) BGR where it is "pixels". ``step`` is 1 or -1: frame ``number + step`` will probably be
        asked for next. Raises AvatarInvalid where the source was changed or cannot be decoded any
        more, InvalidInput when this is closed, also while it waits.
        """
        key = self._key(form, number)
        with self._lock:
            if self._closed:
                raise self._closed_error()
            frame = self._cache.get(key)
            walks = self._key(form, number - step) in self._cache or self._is_shown(number)
            if frame is None:
                forward = step > 0 and (walks or not self._begun)
                coming = self._coming.get(key) or self._ask(form, number, forward)
            self._begun = True
            if walks:
                self._look_ahead(form, number, step)
        return coming.result() if frame is None else frame

    def look_ahead(self, form: Form, number: int, step: int) -> None:
        """Have the frames that follow frame ``number`` decoded into the cache, without waiting: for
        callers that show frames when they are due, and leave out those that are late.

        ``form`` is "planes" or "pixels"; ``step`` is 1 where the frames' numbers go up from there,
        and -1 where they go down. It does nothing once closed.
        """
        with self._lock:
            if self._closed:
                return
            self._shown = number
            if not self._runs:  # what is behind already is not to be farther behind
                self._look_ahead(form, number, step)

    def preload(self, form: Form, count: int) -> None:
        """Decode the first ``count`` frames into the cache, or as many as it has room for, and wait
        until they are there. ``count`` is at most the number of frames. ``form`` is "planes"
        (I420) or "pixels" (BGR). Raises AvatarInvalid where the images or the video were changed
        since the avatar was compiled or cannot be decoded, InvalidInput once closed."""
        room = self._cache.budget_bytes // self._sizes_bytes[form]
        for number in range(min(count, room)):
            self.frame(form, number, 1)

    def close(self) -> None:
        """Close the source and evict the frames, unless another avatar shares them; threads that
        wait for one get InvalidInput. Waits for what is being decoded. Closing twice is allowed."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            waited_for = list(self._coming.values())
            self._coming.clear()
            self._runs.clear()
            threads = list(self._threads)
        for future in waited_for:
            future.set_exception(self._closed_error())
        for thread in threads:
            thread.join()
        self._source.close()
        for form in FORMS:
            self._cache.leave(self._key(form, 0)[0])

    def _is_shown(self, number: int) -> bool:
        """Whether the frame is on the walk of who shows frames when they are due: some are left out
        there, and what follows is no jump."""
        return self._shown is not None and abs(number - self._shown) <= _AHEAD_FRAMES

    def _key(self, form: Form, number: int) -> FrameKey:
        return f"{self._content}-{form}", number

    def _room(self, form: Form, share: int) -> int:
        """How many frames fit into that part of the cache."""
        return self._cache.budget_bytes // share // self._sizes_bytes[form]

    def _missing(self, form: Form, numbers: Iterable[int]) -> list[int]:
        keys = ((number, self._key(form, number)) for number in numbers)
        return [number for number, key in keys if not (key in self._cache or key in self._coming)]

    def _ask(self, form: Form, number: int, forward: bool) -> Future[UInt8Array]:
        """Have frame ``number`` decoded before all that was asked for; holding the lock."""
        first = number if forward else self._source.begin_of(number)
        self._begin([_Run(form, self._run_to(form, number, first))], at_once=True)
        return self._coming[self._key(form, number)]

    def _look_ahead(self, form: Form, number: int, step: int) -> None:
        """Have the next frames of the walk decoded where they soon run out; holding the lock."""
        most = min(_AHEAD_FRAMES, self._room(form, _AHEAD_SHARE))
        end = min(max(number + step * most, -1), self._count)
        missing = self._missing(form, range(number + step, end, step))
        if not missing or abs(missing[0] - number) > most // 2:
            return
        if self._source.workers > 1:
            self._begin([_Run(form, [each]) for each in missing], at_once=False)
        elif step > 0:
            self._begin([_Run(form, missing)], at_once=False)
        else:
            first = min(self._source.begin_of(missing[0]), missing[-1])
            run = self._run_to(form, missing[0], first)
            self._begin([_Run(form, run)], at_once=False)

    def _run_to(self, form: Form, number: int, first: int) -> list[int]:
        """Those of the frames ``first`` to ``number`` that are missing, the last ones where there
        is not room for all."""
        room = max(self._room(form, _RUN_SHARE), 1)
        return self._missing(form, range(max(first, number - room + 1), number + 1))

    def _begin(self, runs: list[_Run], *, at_once: bool) -> None:
        """Put ``runs`` in the queue, and see to it that there are threads; holding the lock."""
        for run in runs:
            self._coming.update((self._key(run.form, number), Future()) for number in run.numbers)
            if at_once:
                self._runs.appendleft(run)
            else:
                self._runs.append(run)
        for _ in range(min(self._source.workers - len(self._threads), len(self._runs))):
            thread = threading.Thread(target=self._work, name="lipwire-decoding")
            self._threads.add(thread)
            thread.start()

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._runs:
                    self._threads.discard(threading.current_thread())
                    return
                run = self._runs.popleft()
            try:
                self._decode(run)
            except BaseException as error:  # whoever waits is told whatever it is
                for number in run.numbers:
                    future = self._arrived(run.form, number)
                    if future is not None:
                        future.set_exception(error)

    def _decode(self, run: _Run) -> None:
        for number, pixels in self._source.read(run.numbers):
            frame = bgr_to_i420(pixels) if run.form == "planes" else np.asarray(pixels).view()
            frame.flags.writeable = False
            self._cache.put(self._key(run.form, number), frame)
            future = self._arrived(run.form, number)
            if future is None:
                return  # closed meanwhile
            future.set_result(frame)

    def _arrived(self, form: Form, number: int) -> Future[UInt8Array] | None:
        with self._lock:
            return self._coming.pop(self._key(form, number), None)

    def _closed_error(self) -> InvalidInput:
        return InvalidInput(f"avatar {self._name} is closed; open it again")
