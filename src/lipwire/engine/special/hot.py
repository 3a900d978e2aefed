"""Which networks run specialised: those of avatars that are used much, as far as memory goes.

    run ─▶ network.frames, network.samples          once a second, a thread of the tier's own:
                         └─────────────────────────▶ look ─▶ trial, load ─▶ network.special

A network that was never asked for much runs in the session that all avatars share; nobody waits for
another one to be specialised. Frames count for half as much after each minute.
"""

import contextlib
import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Protocol

import numpy as np

from lipwire.domain import AudioWindows, Crops, StorageFailed
from lipwire.domain.closing import Closing
from lipwire.engine.special.openvino import (
    BROKEN,
    OpenVinoFailed,
    SpecialisedNetwork,
    why_not,
)
from lipwire.engine.special.specialtrial import Verdict
from lipwire.engine.special.store import SpecialStore

HOT_FRAMES: Final = 500.0
"""A network is specialised that so many frames, 20 s, were asked of within the last minutes."""

_EXPECTED_FRAMES: Final = 2 * HOT_FRAMES
"""What the beginning of a session counts for."""
_HALF_LIFE_S: Final = 60.0
_SAMPLES: Final = 8
_SAMPLE_EVERY: Final = 8
"""Frames that are kept for its trial, and how many lie from one to the next."""
_FORGOTTEN_FRAMES: Final = 1.0
_LOOK_S: Final = 1.0
_BUSIER: Final = 1.5
"""A network takes another one's place where it is used so many times as much."""
_AGAIN_S: Final = 60.0
_FAILED_AGAIN_S: Final = 600.0
"""For which there was no room is tried again so much later, and what could not be tried."""
_LOG: Final = logging.getLogger("lipwire.engine")


class Samples:
    """Some of the frames that a network was asked for, 8 at most, kept so that the network can be
    tried with them when it is specialised. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: list[tuple[Crops, AudioWindows]] = []
        self._since = _SAMPLE_EVERY

    @property
    def enough(self) -> bool:
        """Whether 8 frames are kept, as many as a trial needs; then ``add`` keeps no more."""
        return len(self._kept) >= _SAMPLES

    def add(self, crops: Crops, windows: AudioWindows) -> None:
        """Keep the first of the frames with ``crops``, (N, 320, 320, 3) uint8, and ``windows``, (N,
        32, 16, 16) float32; both are copied. Keeps nothing where there are ``enough``, where fewer
        than 8 frames, these N included, have been passed since a frame was kept, where a frame with
        an equal window is kept already (such as one of silence), or where the window is all zeros
        (such as while speed is measured)."""
        with self._lock:
            self._since += len(crops)
            if self._since < _SAMPLE_EVERY or self.enough or not windows[0].any():
                return
            if not any(np.array_equal(windows[0], window) for _, window in self._kept):
                self._since = 0
                self._kept.append((crops[0].copy(), windows[0].copy()))

    def all(self) -> tuple[Crops, AudioWindows]:
        """Return the crops, (N, 320, 320, 3) uint8, and the windows, (N, 32, 16, 16) float32, of
        the N frames that were kept. Raises ValueError where none was kept."""
        with self._lock:
            crops, windows = zip(*self._kept, strict=True)
        return np.stack(crops), np.stack(windows)


class Specialisable(Protocol):
    """A network on the processor that may be specialised (``HotTier``). Whoever runs the network
    counts its mouths in ``frames``, sets ``expected`` where it is about to be used much, passes the
    frames that it is asked for to ``samples``, unless that is None, and runs it in ``special``,
    unless that is None; the tier sets the other attributes."""

    @property
    def source(self) -> Path | None:
        """The network's ONNX file; None where it is not known."""
        ...

    @property
    def source_sha256(self) -> str:
        """The SHA-256 of the network's ONNX file, in 64 hexadecimal digits."""
        ...

    frames: int
    """How many mouths it has made."""
    counted: int
    """How many of them the tier has counted; the tier's own."""
    expected: bool
    """Whether somebody is about to use it much."""
    samples: Samples | None
    """Takes frames that it is asked for, where they are wanted."""
    special: SpecialisedNetwork | None
    """What runs it in place of the session that all share; None for nothing."""

    @property
    def unloaded(self) -> bool:
        """Whether the network was unloaded; then it is not specialised any more."""
        ...


@dataclass(frozen=True, slots=True)
class HotStats:
    """How many networks run specialised now (``networks``), the memory in bytes that they were
    measured to take, and how many networks were ``specialised`` and ``evicted`` since the start."""

    networks: int = 0
    memory_bytes: int = 0
    specialised: int = 0
    evicted: int = 0


@dataclass(slots=True)
class _Use:
    """How much a network is used, and what is done about it."""

    at_s: float
    score: float = 0.0
    state: Literal["cold", "hot", "refused"] = "cold"
    again_s: float = 0.0
    memory_bytes: int = 0

    def count(self, network: Specialisable, now: float) -> None:
        """Bring the score, its frames of late, up to time ``now``."""
        self.score *= 0.5 ** ((now - self.at_s) / _HALF_LIFE_S)
        frames = network.frames
        self.score += frames - network.counted
        network.counted, self.at_s = frames, now
        if network.expected:
            network.expected = False
            self.score = max(self.score, _EXPECTED_FRAMES)


class HotTier(Closing):
    """Specialises the networks that are used most, which means that they run in bfloat16, compiled
    for this very processor by OpenVINO, and not in float32 in a session that they share: one after
    the other, in a thread of its own, as many as its memory has room for. A network counts as used
    much where about 500 frames of it were asked for within the last minutes; frames count for half
    as much after each minute. Thread-safe, but ``look`` is for one thread at a time."""

    def __init__(
        self,
        memory_bytes: int,
        lanes: int,
        *,
        store: SpecialStore | None = None,
        clock: Callable[[], float] = time.monotonic,
        problem: Callable[[], str | None] = why_not,
        load: Callable[[bytes, int], SpecialisedNetwork] = SpecialisedNetwork,
    ) -> None:
        """Specialised networks, each for ``lanes`` frames at a time, take at most ``memory_bytes``
        together. They are kept in ``store``; None for one in the user's cache folder. ``clock()``
        returns a time in seconds. ``problem()`` returns why networks cannot be specialised here, or
        None where they can, and ``load(blob, lanes)`` loads a network from what
        ``SpecialStore.network`` returned."""
        self._memory_bytes = memory_bytes
        self._lanes = lanes
        self._store = store or SpecialStore()
        self._clock = clock
        self._problem = problem
        self._load = load
        self._lock = threading.Lock()
        self._uses: weakref.WeakKeyDictionary[Specialisable, _Use] = weakref.WeakKeyDictionary()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        self._possible: bool | None = None
        self._specialised = self._evicted = 0

    @property
    def stats(self) -> HotStats:
        """How many networks run specialised now, how much memory these take, and how many were
        specialised and evicted since the start."""
        with self._lock:
            hot = [use.memory_bytes for use in self._uses.values() if use.state == "hot"]
            return HotStats(len(hot), sum(hot), self._specialised, self._evicted)

    def watch(self, networks: Callable[[], Iterable[Specialisable]]) -> None:
        """Look once a second from now on which of ``networks()`` are used much, in a thread, until
        the tier is closed or no network can be specialised on this machine. ``networks()`` returns
        the networks that are loaded. Calling ``watch`` again changes nothing."""
        with self._lock:
            if self._thread is None and not self._closed.is_set():
                self._thread = threading.Thread(
                    target=self._work, args=(networks,), name="lipwire-specialise", daemon=True
                )
                self._thread.start()

    def look(self, networks: Iterable[Specialisable]) -> bool:
        """Count the frames that ``networks`` were asked for since the last look, and of those that
        are used much and do not run specialised, specialise the one that is used most, if there is
        one. Where memory is short, less used networks are evicted for it. Waits for the trial of
        the network, which takes seconds; what goes wrong there is logged.

        Returns False where a network is used much and none can be specialised on this machine, so
        that there is no need to look again; else True. The thread that ``watch`` starts calls it.
        """
        wanted = self._wanted(networks)
        if not wanted:
            return True
        if self._possible is None:
            problem = self._problem()
            self._possible = problem is None
            if problem is not None:
                level = logging.WARNING if problem.startswith(BROKEN) else logging.INFO
                _LOG.log(level, "networks run in float32 on the processor: %s", problem)
        if not self._possible:
            for network in wanted:
                network.samples = None
            return False
        ready = [one for one in wanted if self._can_be_tried(one)]
        with self._lock:  # some may have been forgotten meanwhile
            scored = [(self._uses[one].score, one) for one in ready if one in self._uses]
        if scored:
            self._try(max(scored, key=lambda pair: pair[0])[1])
        return True

    def forget(self, network: Specialisable, *, refuse: bool = False) -> None:
        """From now on, have ``network`` run in float32, in the session that all avatars of its
        architecture share, and forget how much it was used; to be called when it is unloaded. With
        ``refuse``, for a network that has failed when run specialised, remember instead that it is
        not to be specialised again."""
        network.special = network.samples = None
        with self._lock:
            if not refuse:
                self._uses.pop(network, None)
            elif (use := self._uses.get(network)) is not None:
                use.state, use.memory_bytes = "refused", 0

    def close(self) -> None:
        """Specialise no more networks, and wait for the thread to end; a trial under way is
        cancelled. Networks that run specialised continue to do so. Closing twice is allowed."""
        self._closed.set()
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.join()

    def _work(self, networks: Callable[[], Iterable[Specialisable]]) -> None:
        going_on = True
        while going_on and not self._closed.wait(_LOOK_S):
            try:
                going_on = self.look(networks())
            except Exception:  # of one network, or of the disk: others are looked at next time
                _LOG.exception("looking for networks to specialise")

    def _wanted(self, networks: Iterable[Specialisable]) -> list[Specialisable]:
        """Those that are used much and do not run specialised; samples of them are taken."""
        now = self._clock()
        wanted = []
        used = [one for one in networks if one.frames != one.counted or one.expected]
        with self._lock:
            for network in used:  # of thousands that are not
                known = network.source is not None and not network.unloaded
                if known and network not in self._uses:
                    self._uses[network] = _Use(now)
            for network, use in list(self._uses.items()):
                use.count(network, now)
                if use.state == "cold" and use.score < _FORGOTTEN_FRAMES:
                    del self._uses[network]
                if use.state == "cold" and use.score >= HOT_FRAMES and now >= use.again_s:
                    wanted.append(network)
                    network.samples = network.samples or Samples()
                elif network.samples is not None:
                    network.samples = None
        return wanted

    def _can_be_tried(self, network: Specialisable) -> bool:
        """Whether there are frames for it, or it was tried here before."""
        enough = network.samples is not None and network.samples.enough
        return enough or self._store.verdict(network.source_sha256, self._lanes) is not None

    def _try(self, network: Specialisable) -> None:
        """Have ``network`` run specialised if it may; otherwise not for a while, or never."""
        refused = True
        try:
            refused = not self._specialise(network)
        except StorageFailed as error:
            refused = not self._put_off(network)
            _LOG.warning("the network %s runs in float32: %s", network.source, error)
        except OpenVinoFailed as error:
            _LOG.warning("the network %s runs in float32: %s", network.source, error)
        except Exception:
            _LOG.exception("the network %s runs in float32", network.source)
        network.samples = None
        with self._lock:
            use = self._uses.get(network)
            if use is not None and use.state == "cold" and refused:
                use.state = "refused"

    def _specialise(self, network: Specialisable) -> bool:
        """Specialise ``network`` if it may be; False where it never may."""
        verdict = self._verdict(network)
        if verdict is None:
            return True
        if verdict.reason:
            if not self._closed.is_set():
                _LOG.info("the network %s runs in float32: %s", network.source, verdict.reason)
            return not verdict.lasting and self._put_off(network)
        if verdict.memory_bytes > self._memory_bytes:
            _LOG.info(
                "the network %s runs in float32: specialised it takes %d MiB, allowed are %d",
                network.source,
                verdict.memory_bytes >> 20,
                self._memory_bytes >> 20,
            )
            return False
        if not self._make_room(network, verdict.memory_bytes):
            return True
        blob = self._store.network(network.source_sha256, self._lanes)
        if blob is None:  # it is made when there are frames again
            return True
        special = self._load(blob, self._lanes)
        with self._lock:
            use = self._uses.get(network)
            if use is None or network.unloaded:
                return True
            use.memory_bytes, use.state = verdict.memory_bytes, "hot"
            network.special = special
            self._specialised += 1
        _LOG.info(
            "the network %s runs in bfloat16: %.1f times as fast, its mouths differ by %.2f of 255"
            " in the mean",
            network.source,
            verdict.speedup,
            verdict.mean,
        )
        return True

    def _put_off(self, network: Specialisable) -> bool:
        """Try ``network`` again later; what was in the way passes. True."""
        with self._lock:
            if (use := self._uses.get(network)) is not None:
                use.again_s = self._clock() + _FAILED_AGAIN_S
        return True

    def _verdict(self, network: Specialisable) -> Verdict | None:
        """What a trial has found, or finds now; None where that needs frames first."""
        kept = self._store.verdict(network.source_sha256, self._lanes)
        if kept is not None:
            return kept
        if network.source is None or network.samples is None or not network.samples.enough:
            return None
        crops, windows = network.samples.all()
        return self._store.make(
            network.source, network.source_sha256, crops, windows, self._lanes, self._closed
        )

    def _make_room(self, network: Specialisable, size_bytes: int) -> bool:
        """Evict networks that are used less than ``network`` until there is room for
        ``size_bytes``. False where that does not do: nothing is evicted, and it is tried again in a
        minute."""
        with self._lock:
            now = self._clock()
            own = self._uses.get(network)
            if own is None:
                return False
            own.count(network, now)
            hot = [(use, one) for one, use in self._uses.items() if use.state == "hot"]
            for use, one in hot:
                use.count(one, now)
            hot.sort(key=lambda pair: pair[0].score)
            free = self._memory_bytes - sum(use.memory_bytes for use, _ in hot)
            evicted = []
            while free < size_bytes and hot and hot[0][0].score * _BUSIER < own.score:
                evicted.append(hot.pop(0))
                free += evicted[-1][0].memory_bytes
            if free < size_bytes:
                own.again_s = now + _AGAIN_S
                return False
            closing = [one.special for _, one in evicted]
            for use, one in evicted:
                one.special, use.memory_bytes, use.state = None, 0, "cold"
                self._evicted += 1
        for special in closing:
            if special is not None:
                with contextlib.suppress(TimeoutError):
                    special.close()
        return True
