"""Measure how long a request of one frame takes beside clients with large requests.

    python benchmarks/fairness.py [REQUESTS] [ROUNDS]

The demo avatar's network is loaded nine times on the processor of this machine, in one process.
Eight clients, each a tenant with an avatar of its own, ask for 24 frames again and again, as batch.
Another tenant asks for one frame of its avatar, REQUESTS times in each of ROUNDS rounds, with
pauses of up to 40 ms: alone, beside the eight as batch, and beside the eight as live. Printed are
the median and the 99th percentile of its requests, and the frames a second that the eight have.
"""

import random
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

import numpy as np
from demonetworks import demo_networks

from lipwire.domain import AUDIO_WINDOW_SHAPE, Call, Service, percentile
from lipwire.serving.networks import DeviceNetwork

CLIENTS = 8
BATCH = 24
PAUSE_S = 0.04
SETTLE_S = 2.5
"""Longer than batch runs stay short after a live request."""
WARM_UP = 5
CASES: tuple[tuple[str, Service, bool], ...] = (
    ("alone", "batch", False),
    ("batch, beside eight", "batch", True),
    ("live, beside eight", "live", True),
)


class Clients:
    """Clients with large requests, each a tenant."""

    def __init__(self, networks: list[DeviceNetwork]) -> None:
        self._networks = networks

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Ask again and again during the block."""
        stop = threading.Event()
        threads = [
            threading.Thread(target=self._ask, args=(f"tenant-{number}", network, stop))
            for number, network in enumerate(self._networks)
        ]
        for thread in threads:
            thread.start()
        try:
            time.sleep(SETTLE_S)
            yield
        finally:
            stop.set()
            for thread in threads:
                thread.join()

    def _ask(self, tenant: str, network: DeviceNetwork, stop: threading.Event) -> None:
        windows = np.zeros((BATCH, *AUDIO_WINDOW_SHAPE), np.float32)
        while not stop.is_set():
            network.mouths(0, windows, call=Call(None, tenant=tenant))


def main(requests: int, rounds: int) -> None:
    """Print the figures of each case."""
    with demo_networks(CLIENTS + 1) as (scheduler, networks):
        clients = Clients(networks[1:])
        ask_one = partial(ask, networks[0], random.Random(0))
        times_ms: dict[str, list[float]] = {}
        rates: dict[str, list[float]] = {}
        for _ in range(rounds):
            for name, service, beside in CASES:
                with clients.asking() if beside else ExitStack():
                    ask_one(service, WARM_UP)
                    before, begun_s = scheduler.stats().frames, time.perf_counter()
                    times_ms.setdefault(name, []).extend(ask_one(service, requests))
                    elapsed_s = time.perf_counter() - begun_s
                    frames = scheduler.stats().frames - before - requests
                    rates.setdefault(name, []).append(frames / elapsed_s)
    for name, values in times_ms.items():
        print(
            f"{name}: median {percentile(values, 50):.1f} ms, p99 {percentile(values, 99):.1f} ms"
            f" ({len(values)} requests); the eight: {sum(rates[name]) / rounds:.1f} frames a second"
        )


def ask(
    network: DeviceNetwork, choose: random.Random, service: Service, requests: int
) -> list[float]:
    """Ask for one frame after another; the milliseconds that each took."""
    windows = np.zeros((1, *AUDIO_WINDOW_SHAPE), np.float32)
    times_ms = []
    for number in range(requests):
        time.sleep(choose.random() * PAUSE_S)
        begun_s = time.perf_counter()
        network.mouths(number, windows, call=Call(None, service=service, tenant="one"))
        times_ms.append((time.perf_counter() - begun_s) * 1000)
    return times_ms


if __name__ == "__main__":
    given = [int(text) for text in sys.argv[1:]]
    main(*(given + [30, 3][len(given) :]))
