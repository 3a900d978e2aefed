"""Compare the planner's simulation with real schedulers and registries, and draw what it says.

    python benchmarks/planning.py compare [SECONDS [SERVERS ...]]
    python benchmarks/planning.py million
    python benchmarks/planning.py plot FILE.svg

compare: one, two and three servers (or as many as are named), each a real ``Scheduler`` with a
worker and a real ``Registry`` in this process, asked by threads at three loads for SECONDS (default
30) each, and half of that before. The simulation is then given the same requests at the same times,
and how long runs took. Networks and loads are sleeps, so that hardly any processor is needed: what
is compared is who waits for how long, not how fast anything is computed. Printed are throughput,
the 99th percentile of waiting for a run and the hit rate, of both and their ratio.

million: a million avatars on a thousand servers of one GPU each (the guide's 320 frames a second);
printed is how long that took.

plot: what 11,000 avatars with one in a hundred talking cost, on the guide's GPUs and on processors:
sessions refused by the number of servers, by arithmetic and by simulation; and what a sudden
doubling costs with and without a scaler. Writes an SVG.
"""

import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lipwire.domain import LipwireError, Overloaded, Service, percentile
from lipwire.planning.autoscaling import keda
from lipwire.planning.capacity import avatar_name, refused_share, server_name
from lipwire.planning.popularity import Zipf
from lipwire.planning.scenario import Scenario
from lipwire.planning.server import ServerSettings
from lipwire.planning.simulation import simulate
from lipwire.registry import Loaded, Registry
from lipwire.rpc.backends.affinity import rendezvous
from lipwire.scheduling import Observer, Scheduler
from lipwire.scheduling.jobs import Array

FRAME_S = 0.008
"""A run of six is long against what a sleep is late by."""
BATCH = 6
HELD = 40
AVATARS = 300
EXPONENT = 0.8
LOAD_S = 0.02
DEADLINE_S = 10.0
LOADS = (0.3, 0.6, 0.8)
NAMING = 1


@dataclass(frozen=True)
class Seen:
    """What a system did: requests done a second, p99 of waiting for a run, hits of its cache, and
    how long its runs took."""

    throughput: float
    wait_p99_ms: float
    hit_rate: float
    frame_s: float
    """Of a run, with what passes until the next one begins, divided by its frames: mean."""
    spread: float
    """Standard deviation of the logarithm of that."""


class Runs(Observer):
    """Notes how long runs took, and how long it took after each until the next one began, where
    that had been waiting."""

    def __init__(self) -> None:
        self.runs: list[tuple[int, float]] = []
        """Frames and seconds of each."""
        self.between_s: list[float] = []
        self._ended_s = 0.0

    def waited(self, service: Service, seconds: float) -> None:
        between_s = time.monotonic() - self._ended_s
        if between_s < seconds:
            self.between_s.append(between_s)

    def ran(self, frames: int, seconds: float) -> None:
        self.runs.append((frames, seconds))
        self._ended_s = time.monotonic()


def server_settings() -> ServerSettings:
    return ServerSettings(
        frame_s=FRAME_S, workers=1, memory_bytes=HELD, avatar_bytes=1, load_s=LOAD_S
    )


Requests = list[tuple[float, int]]
"""When each comes, in seconds from the beginning, and the rank of its avatar."""


def scenario_of(servers: int, seconds: float) -> Scenario:
    return Scenario(
        server_settings(),
        servers=servers,
        avatars=AVATARS,
        exponent=EXPONENT,
        batch_frames=BATCH,
        batch_deadline_s=DEADLINE_S,
        warm_up_s=seconds / 2,
        measured_s=seconds,
        naming=NAMING,
    )


def requests_of(scenario: Scenario, load: float) -> Requests:
    """Requests that keep servers busy for ``load`` of their time."""
    rate = load * scenario.servers / (BATCH * FRAME_S)
    choose = np.random.default_rng(7)
    count = int(2 * rate * (scenario.warm_up_s + scenario.measured_s))
    times_s = np.cumsum(choose.exponential(1 / rate, count))
    ranks = Zipf(AVATARS, EXPONENT).draw(choose, count)
    ends_s = scenario.warm_up_s + scenario.measured_s
    return [
        (at_s, rank)
        for at_s, rank in zip(times_s.tolist(), ranks.tolist(), strict=True)
        if at_s < ends_s
    ]


class RealServer:
    """A real scheduler and a real registry, whose network and loads sleep."""

    def __init__(self, late_s: float) -> None:
        def run(_key: str, faces: Array, _windows: Array) -> Array:
            time.sleep(max(0.0, FRAME_S * len(faces) - late_s))
            return np.zeros((len(faces), 1), np.uint8)

        def load(name: str) -> Loaded[str]:
            time.sleep(max(0.0, LOAD_S - late_s))
            return Loaded(name, 1, lambda: None)

        self.runs = Runs()
        self.scheduler: Scheduler[str] = Scheduler(
            run, workers=1, queue_size=50, observer=self.runs
        )
        self.registry: Registry[str] = Registry(load, max_bytes=HELD)

    def ask(self, name: str) -> float:
        """Ask for a batch; how long it waited for its first run, in seconds."""
        faces, windows = np.zeros(BATCH, np.int64), np.zeros((BATCH, 0), np.float32)
        with self.registry.use(name):
            deadline = time.monotonic() + DEADLINE_S
            job = self.scheduler.submit(name, faces, windows, deadline=deadline)
            job.result()
        return job.queue_s or 0.0

    def close(self) -> None:
        self.scheduler.close()
        self.registry.close()


def real(scenario: Scenario, requests: Requests, late_s: float) -> Seen:
    """Make ``requests`` to real servers, in real time."""
    names = [server_name(NAMING, number) for number in range(scenario.servers)]
    servers = {name: RealServer(late_s) for name in names}
    waits_s: list[float] = []
    lock = threading.Lock()
    begun_s = time.monotonic()

    def ask(model_id: str, counted: bool) -> None:
        for name in rendezvous(model_id, dict.fromkeys(names, 1.0)):
            try:
                wait_s = servers[name].ask(model_id)
            except Overloaded:
                continue
            except LipwireError:
                return
            if counted:
                with lock:
                    waits_s.append(wait_s)
            return

    before = None
    with ThreadPoolExecutor(120) as clients:
        for at_s, rank in requests:
            time.sleep(max(0.0, begun_s + at_s - time.monotonic()))
            counted = at_s >= scenario.warm_up_s
            if counted and before is None:
                before = [server.registry.totals() for server in servers.values()]
            clients.submit(ask, avatar_name(rank), counted)
    assert before is not None
    counts = []
    for server, old in zip(servers.values(), before, strict=True):
        now = server.registry.totals()
        counts.append((now.hits - old.hits, now.misses - old.misses))
        server.close()
    hits, misses = (sum(part) for part in zip(*counts, strict=True))
    noted = [server.runs for server in servers.values()]
    frames, runs_s = np.array([each for runs in noted for each in runs.runs]).T
    between_s = np.mean([each for runs in noted for each in runs.between_s] or [0.0])
    return Seen(
        len(waits_s) / scenario.measured_s,
        1000 * percentile(waits_s, 99),
        hits / (hits + misses),
        float((runs_s + between_s).sum() / frames.sum()),
        float(np.log(runs_s / frames).std()),
    )


def simulated(scenario: Scenario, requests: Requests, like: Seen) -> Seen:
    """The same requests, in virtual time, with runs as long as those of ``like`` were. As with real
    servers, requests that came in time count, also those that are done later."""
    typical_s = like.frame_s / float(np.exp(like.spread**2 / 2))
    server = replace(scenario.server, frame_s=typical_s, spread=like.spread)
    longer = replace(scenario, server=server, measured_s=scenario.measured_s + DEADLINE_S)
    outcome = simulate(longer, requests=requests)
    return Seen(
        len(outcome.waits_s) / scenario.measured_s,
        1000 * outcome.wait_s(99),
        outcome.hit_rate,
        like.frame_s,
        like.spread,
    )


def compare(seconds: float, counts: list[int]) -> None:
    late_s = lateness()
    print(f"a sleep of a run is late by {1000 * late_s:.2f} ms here, which is taken off")
    print("servers load | a run | requests/s real, simulated | p99 of waiting, ms | hit rate")
    for servers in counts:
        for load in LOADS:
            scenario = scenario_of(servers, seconds)
            requests = requests_of(scenario, load)
            one = real(scenario, requests, late_s)
            other = simulated(scenario, requests, one)
            print(
                f"{servers} {load:.1f} | {1000 * one.frame_s:.3f} ms a frame, ±{one.spread:.1%} | "
                + " | ".join(
                    f"{a:.3g} {b:.3g} ({b / a:.2f})" if a else f"{a:.3g} {b:.3g}"
                    for a, b in (
                        (one.throughput, other.throughput),
                        (one.wait_p99_ms, other.wait_p99_ms),
                        (one.hit_rate, other.hit_rate),
                    )
                ),
                flush=True,
            )


def lateness() -> float:
    late = []
    for _ in range(200):
        begun_s = time.perf_counter()
        time.sleep(BATCH * FRAME_S)
        late.append(time.perf_counter() - begun_s - BATCH * FRAME_S)
    return percentile(late, 50)


def million() -> None:
    gpu = ServerSettings(
        frame_s=1 / 320,
        gpu=True,
        memory_bytes=100 * 10**9,
        avatar_bytes=180 * 10**6,
        load_s=0.074,
    )
    scenario = Scenario(gpu, servers=1000, avatars=1_000_000, talking=10_000.0)
    begun_s = time.perf_counter()
    outcome = simulate(scenario)
    took_s = time.perf_counter() - begun_s
    print(
        f"{scenario.avatars:,} avatars, {scenario.servers:,} servers, {scenario.talking:,.0f} talk"
        f" at once: {scenario.warm_up_s + scenario.measured_s:.0f} s simulated in {took_s:.0f} s"
        f" ({time.process_time():.0f} s of a processor); {outcome.events:,} events,"
        f" {outcome.sessions:,} sessions counted, {100 * outcome.refused_share:.2f} % refused,"
        f" {100 * outcome.hit_rate:.1f} % found in memory"
    )


# -- the plot ------------------------------------------------------------------------------------

GPU_COUNTS = (10, 14, 18, 24, 32, 44, 60)
PROCESSOR_COUNTS = (5, 7, 9, 12, 16, 22, 30)
TALKING = 110.0
COLOURS = ("#00796b", "#c2185b")
WIDTH, HEIGHT, LEFT, TOP = 400, 250, 60, 40


def plot(path: Path) -> None:
    gpu = ServerSettings(
        frame_s=1 / 320,
        gpu=True,
        memory_bytes=100 * 10**9,
        avatar_bytes=180 * 10**6,
        load_s=0.074,
    )
    processor = replace(gpu, frame_s=0.0508, workers=32, gpu=False, avatar_bytes=229 * 10**6)
    processor = replace(processor, most_sessions=22)
    parts = []
    curves = []
    for label, server, counts, places, colour in (
        ("GPUs of 320 fps", gpu, GPU_COUNTS, 11, COLOURS[0]),
        ("32 cores, 51 ms a mouth", processor, PROCESSOR_COUNTS, 22, COLOURS[1]),
    ):
        expected, found = [], []
        for servers in counts:
            expected.append(100 * refused_share(Zipf(11_000, EXPONENT), TALKING, places, servers))
            scenario = Scenario(
                server, servers=servers, avatars=11_000, talking=TALKING, measured_s=2000.0
            )
            shares = [simulate(replace(scenario, seed=s)).refused_share for s in range(4)]
            found.append(100 * float(np.mean(shares)))
            print(f"{label}, {servers} servers: {expected[-1]:.2f} % {found[-1]:.2f} %", flush=True)
        curves.append((label, colour, counts, expected, found))
    parts += refusals_chart(curves)
    scenario = Scenario(
        gpu,
        servers=32,
        avatars=11_000,
        talking=TALKING,
        measured_s=1260.0,
        surge=2.0,
        surge_s=60.0,
    )
    surges = []
    for label, rules, colour in (
        ("no scaler", None, COLOURS[1]),
        ("KEDA, target 0.3, 90 s to start", keda(target=0.3, least=32, most=100), COLOURS[0]),
    ):
        outcomes = [simulate(replace(scenario, scaling=rules, seed=seed)) for seed in range(8)]
        shares_of = []
        for at in range(0, len(outcomes[0].windows), 6):
            minute = [window for outcome in outcomes for window in outcome.windows[at : at + 6]]
            came, refused = (sum(w.came for w in minute), sum(w.refused for w in minute))
            shares_of.append(100 * refused / max(1, came))
        surges.append((label, colour, shares_of))
        servers_at_last = [outcome.servers for outcome in outcomes]
        print(f"{label}: {servers_at_last} servers, {[round(s, 1) for s in shares_of]}")
    parts += surge_chart(surges)
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {2 * (WIDTH + LEFT) + 60}'
        f' {HEIGHT + 100}" font-family="sans-serif" font-size="12">'
        f'<rect width="100%" height="100%" fill="white"/>{"".join(parts)}</svg>\n'
    )


def text(x: float, y: float, words: str, more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {more}>{words}</text>'


def frame(left: float, title: str, below: str, x_ticks: list[tuple[float, str]], top: float) -> str:
    """Axes of a chart whose values go from 0 to ``top`` per cent."""
    drawn = [text(left, TOP - 16, title, 'font-weight="bold"')]
    for tick in range(5):
        y = TOP + HEIGHT * (1 - tick / 4)
        drawn.append(
            f'<line x1="{left}" x2="{left + WIDTH}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>'
        )
        drawn.append(text(left - 6, y + 4, f"{top * tick / 4:g} %", 'text-anchor="end"'))
    for x, label in x_ticks:
        drawn.append(text(left + x, TOP + HEIGHT + 18, label, 'text-anchor="middle"'))
    drawn.append(text(left + WIDTH / 2, TOP + HEIGHT + 38, below, 'text-anchor="middle"'))
    return "".join(drawn)


def line(points: list[tuple[float, float]], colour: str, *, dots: bool) -> str:
    if dots:
        return "".join(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>' for x, y in points
        )
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>'


def refusals_chart(
    curves: list[tuple[str, str, tuple[int, ...], list[float], list[float]]],
) -> list[str]:
    most = max(max(counts) for _, _, counts, _, _ in curves)
    top = 24.0
    ticks = [(WIDTH * count / most, f"{count}") for count in range(0, most + 1, 10)]
    drawn = [frame(LEFT, "Sessions refused", "servers", ticks, top)]
    for number, (label, colour, counts, expected, found) in enumerate(curves):
        for values, dots in ((expected, False), (found, True)):
            points = [
                (LEFT + WIDTH * count / most, TOP + HEIGHT * (1 - min(value, top) / top))
                for count, value in zip(counts, values, strict=True)
            ]
            drawn.append(line(points, colour, dots=dots))
        drawn.append(text(LEFT + 170, TOP + 20 + 18 * number, label, f'fill="{colour}"'))
    drawn.append(text(LEFT + 170, TOP + 56, "lines: arithmetic, dots: simulated", 'fill="#555"'))
    return drawn


def surge_chart(surges: list[tuple[str, str, list[float]]]) -> list[str]:
    left = 2 * LEFT + WIDTH + 20
    minutes = len(surges[0][2])
    top = 16.0
    ticks = [(WIDTH * minute / minutes, f"{minute}") for minute in range(0, minutes + 1, 5)]
    title = "Refused, each minute: twice as many come from minute 1 on"
    drawn = [frame(left, title, "minutes", ticks, top)]
    for number, (label, colour, shares) in enumerate(surges):
        points = [
            (left + WIDTH * (minute + 0.5) / minutes, TOP + HEIGHT * (1 - min(share, top) / top))
            for minute, share in enumerate(shares)
        ]
        drawn.append(line(points, colour, dots=False))
        drawn.append(text(left + 150, TOP + 20 + 18 * number, label, f'fill="{colour}"'))
    return drawn


if __name__ == "__main__":
    what, *more = sys.argv[1:] or ["compare"]
    if what == "compare":
        compare(float(more[0]) if more else 30.0, [int(count) for count in more[1:]] or [1, 2, 3])
    elif what == "million":
        million()
    elif what == "plot" and more:
        plot(Path(more[0]))
    else:
        sys.exit("wanted is compare [SECONDS [SERVERS ...]], million, or plot FILE.svg")
