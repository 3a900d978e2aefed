"""A run of ``lipwire bench live``."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from lipwire.bench.live import measures
from lipwire.bench.live.measures import Figure
from lipwire.bench.live.rig import Rig, rig
from lipwire.engine import Device, cuda_problem, kernels_problem, open_driver

_MOST_SESSIONS: Final = 64
_MOST_QUICK: Final = 3


@dataclass(frozen=True, slots=True)
class LiveReport:
    """What was found with networks on one kind of device."""

    runner: str
    figures: list[Figure]


def run_live(
    seconds: float = 10.0,
    *,
    quick: bool = False,
    tell: Callable[[str, Figure], None] = lambda _runner, _figure: None,
) -> list[LiveReport]:
    """Measure live sessions of the demo avatar, on the processor and on a GPU where there is one.

    Each figure takes ``seconds`` of speech. Where ``quick``, it is an avatar whose network takes a
    millisecond, to see whether everything runs. ``tell`` is called with each figure as it is found.
    """
    reports = []
    for runner, use_gpu in _runners():
        report = LiveReport(runner, [])
        with rig(avatars=2, quick=quick, use_gpu=use_gpu) as avatars:
            for figure in _figures(avatars, seconds, _MOST_QUICK if quick else _MOST_SESSIONS):
                report.figures.append(figure)
                tell(runner, figure)
        reports.append(report)
    return reports


def _runners() -> list[tuple[str, bool]]:
    gpu = Device.cuda(0)
    there = bool(open_driver().gpus()) and None in (cuda_problem(gpu), kernels_problem(gpu))
    return [("processor", False), *([("GPU", True)] if there else [])]


def _figures(avatars: Rig, seconds: float, most: int) -> Iterator[Figure]:
    times = max(3, min(20, round(seconds)))
    with avatars.serve() as servers:
        yield Figure.of("first frame, cold", measures.first_frames(servers, 3, cold=True))
        yield Figure.of("first frame, warm", measures.first_frames(servers, times, cold=False))
        yield Figure.of(
            "latency from the last sample that a frame needs",
            *measures.latency(avatars, servers, seconds),
        )
        yield Figure.of("interruption", measures.interruptions(avatars, servers, times))
        for speaking in (True, False):
            share = measures.processor_share(avatars, servers, seconds, speaking=speaking)
            doing = "speaking" if speaking else "at rest"
            yield Figure(f"processor time, {doing}", note=f"{100 * share:.0f} % of a core")
        allowed = measures.capacity(servers)
    with avatars.serve(by_speed=False) as servers:
        held, why = measures.carried(avatars, servers, seconds, most)
        yield Figure("sessions held", note=f"{held} ({why}); leases allow {allowed}")
    with avatars.two_servers() as servers:
        yield from measures.beside_load(avatars, servers, seconds)
