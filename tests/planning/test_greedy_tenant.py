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
PAUSE_S = 15.0
"""Without a greedy one that comes and goes, after as long with it."""


class Trial:
    """Four tenants that use 60 % of ``workers`` with batches of 12 frames at random moments, a
    conversation, and a greedy one beside them: "always", "at times", or "" for none."""

    def __init__(self, workers: int, seed: int, *, greedy: str) -> None:
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
        self._pauses = greedy == "at times"
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
        if not self._pauses or self.time.now % (2 * PAUSE_S) < PAUSE_S:
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


def p99_s(workers: int, greedy: str) -> tuple[dict[Service, float], float]:
    """Of the requests of each class, and how many frames a second the greedy one had."""
    frames = 0
    times_s: dict[Service, list[float]] = defaultdict(list)
    for seed in range(ROUNDS):
        trial = Trial(workers, seed, greedy=greedy)
        frames += trial.greedy_frames
        for service, values in trial.times_s.items():
            times_s[service] += values
    p99 = {service: percentile(each, 99) for service, each in times_s.items()}
    return p99, frames / (ROUNDS * SECONDS)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [2, 4])
def test_the_others_hardly_notice_a_greedy_tenant(workers: int) -> None:
    alone, _ = p99_s(workers, "")
    beside, frames_s = p99_s(workers, "always")
    assert beside["batch"] / alone["batch"] <= 1.15
    assert beside["live"] / alone["live"] <= 1.1
    assert beside["live"] <= 1.5 * FRAME_S, "a worker is free when it speaks"
    assert alone["batch"] <= 2.0 / workers, "and alone nobody waits for what he had before"
    unused = 1 - USED - FRAME_S / LIVE_EVERY_S / workers
    assert frames_s >= 0.8 * unused * workers / FRAME_S, "it has the rest"


@pytest.mark.slow
def test_nor_one_that_comes_and_goes() -> None:
    alone, _ = p99_s(2, "")
    beside, _ = p99_s(2, "at times")
    assert beside["batch"] / alone["batch"] <= 1.15
    assert beside["live"] / alone["live"] <= 1.1
