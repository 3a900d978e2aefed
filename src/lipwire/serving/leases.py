"""How many live sessions the devices of this process carry, and who holds a share of them.

A session takes the time of 25 frames a second of its avatar's device, as measured; a device gives
away at most ``SHARE`` of the time of those frames that it computes side by side. Where networks run
on the processor, composing and encoding frames takes time of the same cores. Frames of live
sessions are run before all others, so other load takes nothing of what is given away.

A share is held for LEASE_S seconds, and longer where it is renewed. What a server held that has
died is free by the time its clients begin again at another.
"""

import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from lipwire.domain import FPS, Call, DeadlineExceeded, InvalidInput, Overloaded
from lipwire.serving.networkfacts import Speed

SHARE: Final = 0.9
"""What sessions may take of a device's time; the rest is for frames that take longer than usual."""
LEASE_S: Final = 4.0
"""How long a share is held that nobody renews."""
_RETRY_AFTER_S: Final = 5.0
_SOONEST_S: Final = 0.25
_LONGEST_HOLDER: Final = 200
_FIRST_FRAMES: Final = FPS
_LATEST_FRAMES: Final = 500
"""What the cost of a frame is a mean of, roughly."""


class FrameCost:
    """The processor time that a process takes for a frame of a live session besides its mouth: to
    hear speech, and to compose, encode and send the frame. ``took`` adds the time of one frame, and
    ``frame_s`` is the mean. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._frame_s = 0.0
        self._first = _FIRST_FRAMES
        self._count = 0

    @property
    def frame_s(self) -> float:
        """Mean of the latest 500 frames or so, in seconds of a core; 0 before the first that
        counts."""
        return self._frame_s

    def took(self, frame_s: float) -> None:
        """Add a frame that took ``frame_s`` seconds of a core to the mean. The first 25 frames do
        not count, because libraries are loaded during them."""
        with self._lock:
            if self._first:
                self._first -= 1
                return
            self._count = min(self._count + 1, _LATEST_FRAMES)
            self._frame_s += (frame_s - self._frame_s) / self._count


@dataclass(frozen=True, slots=True)
class LeasesStats:
    """``held`` is how many live sessions hold a share of a device's time now. ``fit`` is how many
    could hold one on all devices together: ``held``, and as many more sessions as there is time
    left for, all of the avatar for which a share was asked last. It is None before a share was
    asked for and an avatar's speed measured for that."""

    held: int
    fit: int | None
    """On all devices, the others of the avatar that was asked for last; None before one was
    measured."""


@dataclass(slots=True)
class _Held:
    """What a session holds."""

    model_id: str
    until_s: float


class SpeedLeases:
    """Gives live sessions shares of the time of the devices that networks run on, as long as there
    is time left, so that admitted sessions stay in time. A share, a lease, is held for 4 seconds
    (LEASE_S) unless it is renewed. Thread-safe."""

    def __init__(
        self,
        speed: Callable[[str], Speed | None],
        measure: Callable[[str, Call], Speed],
        devices: Callable[[], Sequence[int]],
        expect: Callable[[int, float], None],
        *,
        share: float = SHARE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``speed(model_id)`` returns how fast the avatar's network is, None where that was not
        measured of late; ``measure(model_id, call)`` loads the network where it is not loaded,
        measures that and returns it. ``devices()`` returns the numbers of the devices that are not
        lost. ``expect(device, seconds)`` is called to say for how long a device may get live frames
        at any moment. ``share`` of a device's time is given away at most; more than 1 is more than
        it has. ``clock`` gives seconds."""
        self._speed = speed
        self._measure = measure
        self._devices = devices
        self._expect = expect
        self._share = share
        self._clock = clock
        self._lock = threading.Lock()
        self._measuring = threading.Lock()
        self._held: dict[str, _Held] = {}
        self._known: dict[str, Speed] = {}
        """Of each avatar that a session holds a share for: as it was last measured."""
        self._asked_last: Speed | None = None

    def acquire(self, holder: str, model_id: str, call: Call) -> None:
        """Reserve, or renew, the share of a device's time that a live session of avatar
        ``model_id`` takes, for 4 seconds (LEASE_S) from now.

        ``holder`` is the session's name, 1 to 200 characters, different for each session. ``call``
        is the request that this is for: its deadline limits the wait where the network has to be
        measured first. A holder that has the share already keeps it, however slow the network is by
        now. On a device where nobody else holds one, there is always a share for one session: a
        device that is too slow for it leaves frames out.

        Raises Overloaded, with how many sessions run and how many fit, where there is no share
        left; its ``retry_after_s`` is short where a holder is late to renew a share, which will
        then be free soon. Raises InvalidInput where ``holder`` is empty or too long, and
        DeadlineExceeded where other networks are being measured until ``call``'s deadline. Where
        the network is measured first, the errors of the function ``measure`` that the constructor
        was given are passed on: in a server NotFound where there is no such avatar, AvatarInvalid
        where its network cannot be loaded or fails, Overloaded where there is no room for it or too
        many requests wait, Unavailable where it was unloaded meanwhile, DeadlineExceeded and
        Cancelled where ``call`` ends before.
        """
        if not 0 < len(holder) <= _LONGEST_HOLDER:
            raise InvalidInput(
                f"holder has {len(holder)} characters; allowed are 1 to {_LONGEST_HOLDER}"
            )
        if self._renew(holder, model_id):
            return
        speed = self._speed(model_id) or self._measured(model_id, call)
        with self._lock:
            now = self._clock()
            self._forget_expired(now)
            self._asked_last = speed
            before = self._held.pop(holder, None)
            try:
                self._check_room(model_id, speed, now)
            except Overloaded:
                if before is not None:
                    self._held[holder] = before
                raise
            self._held[holder] = _Held(model_id, now + LEASE_S)
            self._known[model_id] = speed
        self._expect(speed.device, LEASE_S)

    def release(self, holder: str) -> None:
        """Give back the share of ``holder``, the session's name as it was given to ``acquire``.
        Does nothing where it holds none."""
        with self._lock:
            self._held.pop(holder, None)
            self._forget_expired(self._clock())

    def stats(self) -> LeasesStats:
        """Return how many sessions hold a share now, and how many could on all devices together."""
        with self._lock:
            self._forget_expired(self._clock())
            speed = self._asked_last
            if speed is None:
                return LeasesStats(len(self._held), None)
            everywhere = (self._fit(speed._replace(device=device)) for device in self._devices())
            return LeasesStats(len(self._held), sum(everywhere))

    def _renew(self, holder: str, model_id: str) -> bool:
        with self._lock:
            now = self._clock()
            self._forget_expired(now)
            held = self._held.get(holder)
            if held is None or held.model_id != model_id:
                return False
            held.until_s = now + LEASE_S
            device = self._known[model_id].device
        self._expect(device, LEASE_S)
        return True

    def _measured(self, model_id: str, call: Call) -> Speed:
        """One is measured at a time: side by side they would slow each other."""
        left_s = call.remaining_s()
        if not self._measuring.acquire(timeout=-1 if left_s is None else left_s):
            raise DeadlineExceeded("other avatars were being measured all the time that was given")
        try:
            return self._speed(model_id) or self._measure(model_id, call)
        finally:
            self._measuring.release()

    # -- under the lock ----------------------------------------------------------------------------

    def _forget_expired(self, now: float) -> None:
        for holder in [name for name, held in self._held.items() if held.until_s <= now]:
            del self._held[holder]
        wanted = {held.model_id for held in self._held.values()}
        for model_id in self._known.keys() - wanted:
            del self._known[model_id]
        for model_id in wanted:
            self._known[model_id] = self._speed(model_id) or self._known[model_id]

    def _check_room(self, model_id: str, speed: Speed, now: float) -> None:
        held = self._on(speed.device)
        fit = self._fit(speed)
        if len(held) < fit:
            return
        workers = "1 worker" if speed.side_by_side == 1 else f"{speed.side_by_side} workers"
        raise Overloaded(
            f"{_sessions(len(held))} here; {fit} fit, as a frame of avatar {model_id} takes"
            f" {speed.frame_s * 1000:.3g} ms on {workers}",
            retry_after_s=self._retry_after_s(speed.device, now),
        )

    def _retry_after_s(self, device: int, now: float) -> float:
        """Soon where a holder has not renewed its share in time: it may have died."""
        left_s = min(
            held.until_s - now
            for held in self._held.values()
            if self._known[held.model_id].device == device
        )
        return max(left_s, _SOONEST_S) if left_s < LEASE_S / 3 else _RETRY_AFTER_S

    def _on(self, device: int) -> list[Speed]:
        """The speeds of all sessions on ``device``."""
        speeds = (self._known[held.model_id] for held in self._held.values())
        return [speed for speed in speeds if speed.device == device]

    def _fit(self, speed: Speed) -> int:
        """How many sessions fit on a device: those that are there, and more with ``speed``."""
        held = self._on(speed.device)
        left = self._share - sum(map(_cost, held))
        more = math.floor(left / _cost(speed) + _ROUNDING) if speed.frame_s > 0 else 1
        return max(len(held) + more, 1)


_ROUNDING: Final = 1e-9
"""So that 0.9 holds three times 0.3."""


def _cost(speed: Speed) -> float:
    """The share of its device's time that a session takes."""
    return FPS * speed.frame_s / speed.side_by_side


def _sessions(count: int) -> str:
    return "1 live session runs" if count == 1 else f"{count} live sessions run"
