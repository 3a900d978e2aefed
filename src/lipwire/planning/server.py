"""A server in virtual time: the scheduler's decisions, the registry's cache and the leases of a
real one, with threads, networks and disks replaced by the time that they take.
"""

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Final

import numpy as np

from lipwire.domain import AudioWindows, Call, InvalidInput, Overloaded, Service
from lipwire.engine import MOST_FRAMES
from lipwire.planning.virtualtime import VirtualTime
from lipwire.registry import Loaded, Policy
from lipwire.registry.cache import Cache
from lipwire.registry.items import Item, Load
from lipwire.registry.registry import LOADERS, MAX_WAITING_LOADS
from lipwire.scheduling import MAX_RUN_FRAMES
from lipwire.scheduling.dispatcher import Dispatcher
from lipwire.scheduling.jobs import Array, Job, Piece
from lipwire.scheduling.livereserve import LIVE_FOR_S
from lipwire.serving.leases import SpeedLeases
from lipwire.serving.networkfacts import Speed


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """What a simulated server is like: one processor, whose ``workers`` make mouths side by side,
    or one GPU (``gpu``), whose mouths are made one after the other. A mouth takes ``frame_s``
    seconds of a worker. Runs take longer or shorter by a random factor, lognormally distributed,
    whose logarithm has the standard deviation ``spread`` (0: no difference). The server holds
    avatars of ``avatar_bytes`` each in ``memory_bytes``, evicted by ``policy``, and loads one in
    ``load_s`` seconds. ``queue_size`` requests may wait. At most ``most_sessions`` live sessions
    run at once, like ``live.max_sessions`` of a real server; None: only leases limit them, the
    shares of the server's time that sessions reserve (``SimulatedServer.lease``).

    Raises InvalidInput for numbers out of range.
    """

    frame_s: float
    workers: int = 1
    gpu: bool = False
    spread: float = 0.0
    memory_bytes: int = 16 * 10**9
    avatar_bytes: int = 230 * 10**6
    load_s: float = 0.05
    queue_size: int = 50
    policy: Policy = "lfu"
    most_sessions: int | None = None

    def __post_init__(self) -> None:
        for label, number in (
            ("frame_s", self.frame_s),
            ("workers", self.workers),
            ("memory_bytes", self.memory_bytes),
            ("avatar_bytes", self.avatar_bytes),
            ("queue_size", self.queue_size),
        ):
            if not number > 0:
                raise InvalidInput(f"{label} is {number:g}; allowed is what is above 0")
        for label, number in (("load_s", self.load_s), ("spread", self.spread)):
            if not number >= 0:
                raise InvalidInput(f"{label} is {number:g}; allowed are 0 and above")
        if self.avatar_bytes > self.memory_bytes:
            raise InvalidInput(
                f"an avatar takes {self.avatar_bytes:,} bytes; a server has {self.memory_bytes:,}"
            )

    @property
    def speed(self) -> Speed:
        """How fast the server makes live frames, in the form in which leases count it: ``frame_s``
        seconds a frame, and as many frames side by side as it has workers, 1 on a GPU."""
        return Speed(0, self.frame_s, 1 if self.gpu else self.workers)


Ready = Callable[[Item[None] | None], None]
"""Called with the avatar that was asked for, pinned, or with None where it was refused."""
Done = Callable[[Job[str], Exception | None], None]
"""Called with a job that has ended, and with the error that it ended with."""


class SimulatedServer:
    """A server in virtual time. Its ``dispatcher``, ``cache`` and ``leases`` are those of a real
    server; what is simulated are the workers' runs and the loads' time. Functions that it is given
    are called while ``VirtualTime.run`` lets time pass, in that thread. Not thread-safe."""

    def __init__(
        self, name: str, time: VirtualTime, settings: ServerSettings, seed: random.Random
    ) -> None:
        """``time`` is the simulation's; ``seed`` gives the random numbers of runs' lengths."""
        self.name: Final = name
        self.settings: Final = settings
        self._time = time
        self._random = seed
        self.cache: Final[Cache[None]] = Cache(
            max_items=None,
            max_bytes=settings.memory_bytes,
            policy=settings.policy,
            clock=time,
            kind="avatar",
        )
        workers = 1 if settings.gpu else settings.workers
        self.dispatcher: Final[Dispatcher[str]] = Dispatcher(
            workers=workers,
            queue_size=settings.queue_size,
            max_run_frames=MOST_FRAMES if settings.gpu else MAX_RUN_FRAMES,
            join=settings.gpu,
            group=lambda _name: "one architecture",
            split=not settings.gpu,
        )
        speed = settings.speed
        self.leases: Final = SpeedLeases(
            lambda _model_id: speed,
            lambda _model_id, _call: speed,
            lambda: (0,),
            lambda _device, seconds: self.dispatcher.reserve.expect(time.now + seconds),
            clock=time,
        )
        self.busy_s = 0.0
        """Time that workers have run in all, each for itself."""
        self._free = list(range(workers))
        self._holders: set[str] = set()
        self._done: dict[Job[str], Done] = {}
        self._looks_again = False
        self._loading: dict[str, tuple[Load[None], list[Ready]]] = {}
        self._loaders_busy = 0
        self._loads_waiting: deque[Load[None]] = deque()

    # -- avatars ---------------------------------------------------------------------------------

    def use(self, name: str, ready: Ready) -> None:
        """Have ``ready`` called with the item of avatar ``name``, pinned: within this call where
        the avatar is loaded, otherwise at the virtual time at which it has been loaded. ``ready``
        is called with None where there is no room for the avatar, or too many loads wait. Whoever
        gets an item has to call ``cache.unpin`` with it."""
        item = self.cache.hit(name, None)
        if item is not None:
            ready(item)
            return
        self.cache.counts.misses += 1
        if name not in self._loading:
            load: Load[None] = Load(name)
            if self._loaders_busy >= LOADERS and len(self._loads_waiting) >= MAX_WAITING_LOADS:
                self.cache.counts.refusals += 1
                ready(None)
                return
            self._loading[name] = (load, [])
            self._loads_waiting.append(load)
        load, waiting = self._loading[name]
        load.waiters += 1
        waiting.append(ready)
        self._begin_loads()

    def _begin_loads(self) -> None:
        while self._loads_waiting and self._loaders_busy < LOADERS:
            load = self._loads_waiting.popleft()
            try:
                self.cache.reserve(load)
            except Overloaded:
                self._refuse(load)
                continue
            self._loaders_busy += 1
            self._time.after(self.settings.load_s, partial(self._loaded, load))

    def _loaded(self, load: Load[None]) -> None:
        self._loaders_busy -= 1
        loaded: Loaded[None] = Loaded(None, self.settings.avatar_bytes, _nothing)
        item = Item(load.name, loaded, None, self.settings.load_s)
        item.check_at_s = float("inf")
        try:
            self.cache.measured(load, item)
        except Overloaded:
            self._refuse(load)
        else:
            self.cache.counts.loads += 1
            with self.cache.lock:
                closing = self.cache.put(item, users=load.waiters, now=self._time.now)
            self.cache.finish(closing)
            for ready in self._loading.pop(load.name)[1]:
                ready(item)
        self._begin_loads()

    def _refuse(self, load: Load[None]) -> None:
        self.cache.counts.refusals += 1
        with self.cache.lock:
            self.cache.give_back(load)
        for ready in self._loading.pop(load.name)[1]:
            ready(None)

    # -- requests for mouths ---------------------------------------------------------------------

    def submit(
        self,
        name: str,
        frames: int,
        done: Done,
        *,
        service: Service = "batch",
        tenant: str = "",
        deadline: float | None = None,
    ) -> None:
        """Queue a request for ``frames`` mouths of avatar ``name``, of class ``service`` ("live",
        "batch" or "render") and asked for by ``tenant``. ``deadline`` is the virtual time, in
        seconds, by which the mouths have to be there (None: no deadline).

        ``done`` is called once, later, with (the job, None) where it was run, or with (the job, the
        error) where it was refused in the queue. Raises Overloaded or DeadlineExceeded where the
        scheduler refuses the request at once; ``done`` is not called then.
        """
        now = self._time.now
        faces, windows = _arrays(frames)
        job: Job[str] = Job(
            name,
            "pixels",
            faces,
            windows,
            deadline=deadline,
            submitted_s=now,
            withdraw=lambda _job: False,
            service=service,
            tenant=tenant,
        )
        pushed_out = self.dispatcher.submit(job, now)
        self._done[job] = done
        self._end_all(pushed_out)
        self._begin_runs()

    def _begin_runs(self) -> None:
        """Do what free workers do, as ``Scheduler`` has them do it."""
        dispatcher, now = self.dispatcher, self._time.now
        while self._free and dispatcher.may_begin(now):
            self._end_all(dispatcher.late_heads(now))
            pieces = dispatcher.take(self._free[-1], now)
            if pieces:
                seconds = sum(piece.frames for piece in pieces) * self.settings.frame_s
                if self.settings.spread:
                    seconds *= self._random.lognormvariate(0.0, self.settings.spread)
                self._time.after(seconds, partial(self._ran, self._free.pop(), pieces, seconds))
        if self._free and len(dispatcher.queue) and not self._looks_again:
            self._looks_again = True
            self._time.after(LIVE_FOR_S, self._look_again)

    def _look_again(self) -> None:
        self._looks_again = False
        self._begin_runs()

    def _ran(self, number: int, pieces: list[Piece[str]], seconds: float) -> None:
        now = self._time.now
        self.busy_s += seconds
        self.dispatcher.ran(pieces, seconds, now)
        self.dispatcher.freed(number)
        self._free.append(number)
        for piece in pieces:
            job = piece.job
            job.done_frames += piece.frames
            if job.done_frames == job.frames and not job.settled:
                job.settled = True
                job.finished_s = now
                self.dispatcher.counts.finished += 1
                self._done.pop(job)(job, None)
        self._begin_runs()

    def _end_all(self, refused: list[tuple[Job[str], Exception]]) -> None:
        for job, error in refused:
            self._done.pop(job)(job, error)

    # -- live sessions ---------------------------------------------------------------------------

    def lease(self, holder: str, name: str) -> Overloaded | None:
        """Reserve the share of the server's time that a live session of avatar ``name`` needs, or
        renew it; ``holder`` is the session's name. Returns None where it is reserved. Where no
        share is left or ``most_sessions`` run, returns the error Overloaded, without raising it."""
        most = self.settings.most_sessions
        if most is not None and holder not in self._holders and len(self._holders) >= most:
            return Overloaded(f"{len(self._holders)} live sessions run; allowed are {most}")
        try:
            self.leases.acquire(holder, name, _CALL)
        except Overloaded as error:
            return error
        self._holders.add(holder)
        return None

    def release(self, holder: str) -> None:
        """Give back what the session ``holder`` has reserved with ``lease``. Does nothing where it
        has reserved nothing."""
        self.leases.release(holder)
        self._holders.discard(holder)


_CALL: Final = Call(None, service="live")


@lru_cache(maxsize=256)
def _arrays(frames: int) -> tuple[Array, AudioWindows]:
    """What stands for the arrays of so many frames: (frames,) and (frames, 0), which hold
    nothing."""
    return np.zeros(frames, np.int64), np.zeros((frames, 0), np.float32)


def _nothing() -> None:
    """Close what holds nothing."""
