"""Measure what a tenant that asks for ten times its share costs the others.

    python benchmarks/greedy_tenant.py [SECONDS] [ROUNDS]

The demo avatar's network is loaded six times on the processor of this machine, in one process. Four
tenants ask for batches of 12 frames at random moments, so that they use 60 % of the machine
together, which is measured first. A fifth is a live conversation: one frame each 160 ms. In turns
of SECONDS, ROUNDS each, they are alone, and beside a sixth tenant that asks for ten times its share
(a sixth of the machine), in batches of 24. Printed are the median and the 99th percentile of both
kinds of requests, and the ratio of the latter.
"""

import random
import sys
import threading
import time

import numpy as np
from demonetworks import demo_networks

from lipwire.domain import AUDIO_WINDOW_SHAPE, Call, LipwireError, Service, percentile
from lipwire.serving.networks import DeviceNetwork

OTHERS = 4
BATCH = 12
LIVE_EVERY_S = 0.16
USED = 0.6
GREEDY_BATCH = 24
GREEDY_SHARES = 10
MEASURED_S = 10.0
SETTLE_S = 3.0


def windows(count: int) -> "np.ndarray[tuple[int, ...], np.dtype[np.float32]]":
    """Return windows of silence for ``count`` frames."""
    return np.zeros((count, *AUDIO_WINDOW_SHAPE), np.float32)


class Turn:
    """Requests of one turn: who asks, and how long each took, by class."""

    def __init__(self, networks: list[DeviceNetwork], frames_s: float, seed: int) -> None:
        """``frames_s`` is how many frames the machine makes a second."""
        self._networks = networks
        self._frames_s = frames_s
        self._chance = random.Random(seed)
        self._lock = threading.Lock()
        self.times_ms: dict[Service, list[float]] = {"batch": [], "live": []}
        self.refused = 0
        self.greedy_frames = 0
        self.took_s = 0.0
        self._pending: list[threading.Thread] = []

    def run(self, seconds: float, *, greedy: bool) -> None:
        """Ask for ``seconds``, and wait for the answers."""
        begun_s = time.perf_counter()
        until_s = begun_s + seconds
        rate = USED * self._frames_s / BATCH / OTHERS
        asking = [
            threading.Thread(target=self._ask_at, args=(number, rate, until_s))
            for number in range(OTHERS)
        ]
        asking.append(threading.Thread(target=self._converse, args=(until_s,)))
        if greedy:
            share = self._frames_s / (OTHERS + 2)
            each_s = GREEDY_BATCH / (GREEDY_SHARES * share)
            asking.append(threading.Thread(target=self._ask_much, args=(each_s, until_s)))
        for thread in asking:
            thread.start()
        for thread in asking:
            thread.join()
        for thread in self._pending:
            thread.join()
        self.took_s = time.perf_counter() - begun_s

    def _ask_at(self, number: int, rate: float, until_s: float) -> None:
        chance = random.Random(self._chance.random())
        next_s = time.perf_counter()
        while (next_s := next_s + chance.expovariate(rate)) < until_s:
            time.sleep(max(0.0, next_s - time.perf_counter()))
            self._begin(number, BATCH, "batch", f"tenant-{number}")

    def _converse(self, until_s: float) -> None:
        while time.perf_counter() < until_s:
            self._ask(OTHERS, 1, "live", "talker")
            time.sleep(LIVE_EVERY_S)

    def _ask_much(self, each_s: float, until_s: float) -> None:
        while time.perf_counter() < until_s:
            self._begin(OTHERS + 1, GREEDY_BATCH, "batch", "greedy")
            time.sleep(each_s)

    def _begin(self, network: int, count: int, service: Service, tenant: str) -> None:
        asking = threading.Thread(target=self._ask, args=(network, count, service, tenant))
        self._pending.append(asking)
        asking.start()

    def _ask(self, network: int, count: int, service: Service, tenant: str) -> None:
        begun_s = time.perf_counter()
        try:
            self._networks[network].mouths(
                0, windows(count), call=Call(30.0, service=service, tenant=tenant)
            )
        except LipwireError:
            with self._lock:
                self.refused += tenant != "greedy"
            return
        with self._lock:
            if tenant == "greedy":
                self.greedy_frames += count
            else:
                self.times_ms[service].append((time.perf_counter() - begun_s) * 1000)


def capacity(network: DeviceNetwork) -> float:
    """Return how many frames a second the machine makes of batches."""
    begun_s, frames = time.perf_counter(), 0
    while time.perf_counter() < begun_s + MEASURED_S:
        network.mouths(0, windows(GREEDY_BATCH), call=Call(None, tenant="measured"))
        frames += GREEDY_BATCH
    return frames / (time.perf_counter() - begun_s)


def main(seconds: float, rounds: int) -> None:
    """Print the figures of both kinds of turns."""
    with demo_networks(OTHERS + 2) as (_, networks):
        frames_s = capacity(networks[0])
        print(f"this machine makes {frames_s:.1f} frames a second")
        Turn(networks, frames_s, 0).run(SETTLE_S, greedy=True)
        turns: dict[bool, list[Turn]] = {False: [], True: []}
        for number in range(rounds):
            for greedy in (False, True) if number % 2 else (True, False):
                turn = Turn(networks, frames_s, number)
                turn.run(seconds, greedy=greedy)
                turns[greedy].append(turn)
        p99: dict[tuple[bool, str], float] = {}
        for greedy, each in turns.items():
            for service in ("batch", "live"):
                values = [value for turn in each for value in turn.times_ms[service]]
                p99[greedy, service] = percentile(values, 99)
                print(
                    f"{service}, {'beside it' if greedy else 'alone'}: median"
                    f" {percentile(values, 50):.0f} ms, p99 {p99[greedy, service]:.0f} ms"
                    f" ({len(values)} requests, {sum(turn.refused for turn in each)} refused)"
                )
        frames = sum(turn.greedy_frames for turn in turns[True])
        took_s = sum(turn.took_s for turn in turns[True])
        print(f"the greedy one has {frames / took_s:.1f} frames a second until all are answered")
        for service in ("batch", "live"):
            print(f"p99 of {service}: {p99[True, service] / p99[False, service]:.2f} times")


if __name__ == "__main__":
    given = [float(text) for text in sys.argv[1:]]
    seconds, rounds = given + [30.0, 3.0][len(given) :]
    main(seconds, int(rounds))
