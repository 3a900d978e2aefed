"""A run of ``lipwire bench live``."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from lipwire.bench.live import measures
from lipwire.bench.live.measures import Figure
from lipwire.bench.live.rig import Rig, Servers, rig
from lipwire.engine import Device, cuda_problem, kernels_problem, open_driver
from lipwire.engine.special.openvino import why_not

_FLOAT32: Final = "processor in float32"
_BFLOAT16: Final = "processor in bfloat16"
_GPU: Final = "GPU"
_MOST_SESSIONS: Final = 64
_MOST_QUICK: Final = 3


@dataclass(frozen=True, slots=True)
class LiveReport:
    """The figures of live sessions with networks run in one way: ``runner`` names the kind of
    device and the precision."""

    runner: str
    figures: list[Figure]


def run_live(
    seconds: float = 10.0,
    *,
    quick: bool = False,
    tell: Callable[[str, Figure], None] = lambda _runner, _figure: None,
) -> list[LiveReport]:
    """Measure live sessions of the demo avatar: on the processor in float32, in bfloat16 where the
    processor has it, and on a GPU where there is one. Returns one report for each of these.

    Each figure is measured with ``seconds`` of speech. With ``quick``, an avatar whose network
    takes a millisecond is used, and bfloat16 is left out, to see whether everything runs.
    ``tell(runner, figure)`` is called with each figure when it is found, and the name of the report
    that it belongs to.
    """
    reports = []
    for runner in _runners(quick):
        report = LiveReport(runner, [])
        with rig(avatars=2, quick=quick, use_gpu=runner == _GPU) as avatars:
            precision = "auto" if runner == _BFLOAT16 else "float32"
            most = _MOST_QUICK if quick else _MOST_SESSIONS
            for figure in _figures(avatars, seconds, most, precision):
                report.figures.append(figure)
                tell(runner, figure)
        reports.append(report)
    return reports


def _runners(quick: bool) -> list[str]:
    gpu = Device.cuda(0)
    there = bool(open_driver().gpus()) and None in (cuda_problem(gpu), kernels_problem(gpu))
    special = not quick and why_not() is None
    return [_FLOAT32, *([_BFLOAT16] if special else []), *([_GPU] if there else [])]


def _figures(avatars: Rig, seconds: float, most: int, precision: str) -> Iterator[Figure]:
    times = max(3, min(20, round(seconds)))
    with avatars.serve(precision=precision) as servers:
        yield Figure.of("first frame, cold", measures.first_frames(servers, 3, cold=True))
        yield Figure.of("first frame, warm", measures.first_frames(servers, times, cold=False))
        _settle(avatars, servers, precision)
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
    with avatars.serve(by_speed=False, precision=precision) as servers:
        _settle(avatars, servers, precision)
        held, why = measures.carried(avatars, servers, seconds, most)
        yield Figure("sessions held", note=f"{held} ({why}); leases allow {allowed}")
    with avatars.two_servers(precision=precision) as servers:
        _settle(avatars, servers, precision)
        yield from measures.beside_load(avatars, servers, seconds)


def _settle(avatars: Rig, servers: Servers, precision: str) -> None:
    if precision == "auto":
        measures.specialise(avatars, servers)
