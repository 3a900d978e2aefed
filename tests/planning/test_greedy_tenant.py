"""What a tenant that asks for ten times its share costs the others, in virtual time."""

import random
from collections import defaultdict

import pytest

from lipwire.domain import LipwireError, Service, percentile
from lipwire.planning.server import ServerSettings, SimulatedServer
from lipwire.planning.virtualtime import VirtualTime
from lipwire.scheduling.jobs import Job

FRAME_S = 0.014
OTHERS = 4
USED = 0.6
BATCH = 12
LIVE_EVERY_S = 0.16
SECONDS = 40.0
ROUNDS = 3


class Trial:
    """Four tenants that use 60 % of ``workers`` with batches of 12 frames at random moments, a
    conversation, and a greedy one beside them or not."""

    def __init__(self, workers: int, seed: int, *, greedy: bool) -> None:
        self.time = VirtualTime()
        self.times_s: dict[Service, list[float]] = defaultdict(list)
        self.greedy_frames = 0
        self._chance = random.Random(seed)
        settings = ServerSettings(FRAME_S, workers=workers, spread=0.1, queue_size=200)
        self._server = SimulatedServer("one", self.time, settings, random.Random(seed))
        self._frames_s = workers / FRAME_S
        for number in range(OTHERS):
            self._batch_in_time(f"tenant-{number}")
        self._talk()
        if greedy:
            self._ask_much()
        self.time.run(2 * SECONDS)

    def _batch_in_time(self, tenant: str) -> None:
        pause_s = self._chance.expovariate(USED * self._frames_s / BATCH / OTHERS)
        if self.time.now + pause_s < SECONDS:
            self.time.after(pause_s, lambda: self._batch(tenant))

    def _batch(self, tenant: str) -> None:
        self._ask(tenant, BATCH)
        self._batch_in_time(tenant)

    def _talk(self) -> None:
        self._ask("talker", 1, "live")
        if self.time.now < SECONDS:
            self.time.after(LIVE_EVERY_S, self._talk)

    def _ask_much(self) -> None:
        self._ask("greedy", 24)
        if self.time.now < SECONDS:
            self.time.after(24 * (OTHERS + 2) / (10 * self._frames_s), self._ask_much)

    def _ask(self, tenant: str, frames: int, service: Service = "batch") -> None:
        asked_s = self.time.now

        def done(job: Job[str], error: Exception | None) -> None:
            if tenant == "greedy":
                self.greedy_frames += 0 if error else frames
            else:
                assert error is None, f"{tenant}: {error}"
                self.times_s[service].append(self.time.now - asked_s)

        try:
            self._server.submit(
                tenant, frames, done, service=service, tenant=tenant, deadline=asked_s + 30
            )
        except LipwireError:
            assert tenant == "greedy"


@pytest.mark.slow
@pytest.mark.parametrize("workers", [2, 4])
def test_the_others_hardly_notice_a_greedy_tenant(workers: int) -> None:
    p99_s: dict[tuple[bool, Service], float] = {}
    frames = 0
    for greedy in (False, True):
        times_s: dict[Service, list[float]] = defaultdict(list)
        for seed in range(ROUNDS):
            trial = Trial(workers, seed, greedy=greedy)
            frames += trial.greedy_frames
            for service, values in trial.times_s.items():
                times_s[service] += values
        p99_s |= {(greedy, service): percentile(each, 99) for service, each in times_s.items()}
    assert p99_s[True, "batch"] / p99_s[False, "batch"] <= 1.2
    assert p99_s[True, "live"] / p99_s[False, "live"] <= 1.1
    assert p99_s[True, "live"] <= 1.5 * FRAME_S, "a worker is free when it speaks"
    unused = 1 - USED - FRAME_S / LIVE_EVERY_S / workers
    assert frames / (ROUNDS * SECONDS) >= 0.8 * unused * workers / FRAME_S, "it has the rest"
