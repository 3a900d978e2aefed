"""Live sessions in virtual time, in the test's own thread: an avatar made of numbers, executors
that run at once, and a clock that calls the pacer."""

from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
from tests.support.waiting import Clock

from lipwire.audio import AudioEncoder
from lipwire.domain import AudioWindows, Call, Float32Array, Mouths, UInt8Array
from lipwire.session.live import (
    Item,
    LiveAvatar,
    LiveFrame,
    LiveSession,
    LiveThreads,
    Pacer,
    SessionSettings,
    Sound,
)
from lipwire.session.live.mouthtimes import MouthTimes

SETTINGS = SessionSettings(sound_rate_hz=16_000, gate=False)
RATE_HZ = 16_000

_ROUNDED_S = 1e-6
"""What many times 0.04 may be off by."""


class AtOnce(Executor):
    """Runs what is submitted before ``submit`` returns."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **others: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **others))
        except BaseException as error:
            future.set_exception(error)
        return future


class NoEncoder:
    """An audio encoder that hears nothing."""

    def encode(self, mels: Float32Array) -> Float32Array:
        return np.zeros((len(mels), 512), np.float32)


@dataclass
class FakeAvatar:
    """An avatar whose mouths are of ``mark``, those at rest of ``mark + 100``. A frame's data is
    its mark, the mean of its mouth (255: none), and its position modulo 256."""

    mark: int = 1
    complete: bool = True
    """Whether mouths at rest need no network."""
    closed: int = 0
    """How often it was closed."""
    misused: int = 0
    """How often it was used once closed."""
    asked: list[tuple[int, int]] = field(default_factory=list)
    """(position, frames) of each call for mouths."""
    rest_asked: list[int] = field(default_factory=list)
    on_mouths: Callable[[Call], None] = lambda call: None
    on_rest: Callable[[int], None] = lambda position: None
    on_compose: Callable[[int], None] = lambda position: None

    def __post_init__(self) -> None:
        self._rest: dict[int, UInt8Array] = {}

    def live(self) -> LiveAvatar:
        encoder = cast("AudioEncoder", NoEncoder())
        return LiveAvatar(
            f"avatar{self.mark}", 4, 4, 100, self._compose, self._mouths, self, encoder, self._close
        )

    def has(self, number: int) -> bool:
        return self.complete or number in self._rest

    def ready(self, number: int) -> UInt8Array | None:
        self._check_open()
        return self._mouth(self.mark + 100) if self.complete else self._rest.get(number)

    def mouth(self, number: int, *, call: Call | None = None) -> UInt8Array:
        self._check_open()
        self.rest_asked.append(number)
        self.on_rest(number)
        self._rest[number] = self._mouth(self.mark + 100)
        return self._rest[number]

    def _mouths(self, position: int, windows: AudioWindows, call: Call) -> Mouths:
        self._check_open()
        self.asked.append((position, len(windows)))
        self.on_mouths(call)
        self._check_open()
        return np.stack([self._mouth(self.mark)] * len(windows))

    def _compose(self, position: int, mouth: UInt8Array | None) -> bytes:
        self._check_open()
        self.on_compose(position)
        self._check_open()
        return bytes([self.mark, 255 if mouth is None else int(mouth.mean()), position % 256])

    def _check_open(self) -> None:
        self.misused += self.closed > 0

    def _close(self) -> None:
        self.closed += 1

    @staticmethod
    def _mouth(mark: int) -> UInt8Array:
        return np.full((2, 2, 3), mark, np.uint8)


class LiveTime:
    """A clock with the threads of live sessions, none of which is a thread."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.pacer = Pacer(clock=self.clock, start=False)
        self.threads = LiveThreads(self.pacer, AtOnce(), AtOnce())
        self.times = MouthTimes()

    def session(
        self, avatar: FakeAvatar, settings: SessionSettings = SETTINGS, *, start: bool = True
    ) -> LiveSession:
        session = LiveSession(
            avatar.live(), settings, self.threads, times=self.times, clock=self.clock
        )
        session.fill_outbox()
        if start:
            session.start()
        return session

    def run(self, seconds: float) -> None:
        """Let so much time pass, and what is due in it happen."""
        end = self.clock.now + seconds
        while (due_s := self.pacer.next_due_s()) is not None and due_s <= end + _ROUNDED_S:
            self.clock.now = max(self.clock.now, due_s)
            self.pacer.run_due()
        self.clock.now = max(self.clock.now, end)


def taken(session: LiveSession) -> list[Item]:
    """What waits in the session's outbox."""
    return session.outbox.take(0.0) or []


def frames(items: list[Item]) -> list[LiveFrame]:
    return [item for item in items if isinstance(item, LiveFrame)]


def sounds(items: list[Item]) -> list[Sound]:
    return [item for item in items if isinstance(item, Sound)]


def buzz(seconds: float, *, level: float = 0.5) -> Float32Array:
    """Audio at 16 kHz that is nowhere silent."""
    return np.full(round(seconds * RATE_HZ), level, np.float32)


def watch(time: LiveTime, session: LiveSession, seconds: float) -> list[Item]:
    """What leaves the session meanwhile, with a client that takes everything at once."""
    items: list[Item] = taken(session)
    for _ in range(round(seconds * 25)):
        time.run(0.04)
        items += taken(session)
    return items
