"""A plan tried by simulation: with the machines that it names, with one less, and when many more
people come at once.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from lipwire.domain import FPS, InvalidInput
from lipwire.planning.autoscaling import ScalingRules
from lipwire.planning.capacity import FILLED, Demand, Plan, make_plan
from lipwire.planning.figures import Figure
from lipwire.planning.guide import GuidesPlan, guides_plan
from lipwire.planning.scenario import Outcome, Scenario
from lipwire.planning.server import ServerSettings
from lipwire.planning.simulation import simulate

_WARM_UP_TALKS: Final = 5
"""After so many times the mean length of a talk, hardly anybody is there of whom came first."""
_AFTER_SURGE_S: Final = 1800.0
_BEFORE_SURGE_S: Final = 60.0
_SMOOTHED: Final = 18


@dataclass(frozen=True, slots=True)
class Surge:
    """What a sudden surge cost, in the half hour after it began, with ``factor`` times as many
    people and servers added by the rules named ``scaling`` ("none": none were added). ``came`` is
    how many people came in that time, and ``refused`` how many of them were refused.
    ``servers_before`` and ``servers`` are how many servers there were before it and at the end.
    ``over_s`` is after how many seconds it was over: when the last three minutes ended in which
    more than twice the allowed share was refused; 0 where there were none, None where the half hour
    ends with such minutes."""

    scaling: str
    factor: float
    came: int
    refused: int
    servers_before: int
    servers: int
    over_s: float | None


def scenario_of(
    demand: Demand,
    plan: Plan,
    figures: Mapping[str, Figure],
    *,
    gpus: int,
    sessions: int,
    seed: int,
) -> Scenario:
    """Return a scenario for ``simulate`` that tries ``plan``: its servers, with ``demand``,
    measured for as long as about ``sessions`` (above 0) live sessions take to come, 10 s at least.

    ``figures`` are by name, the same that ``make_plan`` was given for ``plan``. Used are frames_mb,
    network_mb, memory_gb, frame_ms, load_ms and talk_s, with GPUs also gpu_memory_gb, without also
    cores. A machine has ``gpus`` GPUs, 0 and more; ``seed`` is that of the random numbers. A server
    serves at most ``plan.places`` sessions at once, whether computing mouths or composing and
    sending frames sets this limit.
    """
    of = {name: figure.value for name, figure in figures.items()}
    gpu = gpus > 0
    avatar_mb = of["frames_mb"] + (0.0 if gpu else of["network_mb"])
    memory_bytes = int(FILLED * of["memory_gb"] * 1e9 / max(1, gpus))
    if gpu:
        # What runs out first, the machine's memory or the GPU's, in the same avatars.
        networks = FILLED * of["gpu_memory_gb"] * 1000 / of["network_mb"]
        memory_bytes = min(memory_bytes, int(networks * avatar_mb * 1e6))
    workers = 1 if gpu else int(of["cores"])
    frame_s = of["frame_ms"] / 1000 * demand.fps / FPS
    server = ServerSettings(
        frame_s=frame_s,
        workers=workers,
        gpu=gpu,
        memory_bytes=memory_bytes,
        avatar_bytes=max(1, int(avatar_mb * 1e6)),
        load_s=of["load_ms"] / 1000,
        most_sessions=plan.places,
    )
    talk_s = of["talk_s"]
    return Scenario(
        server=server,
        servers=plan.servers,
        avatars=demand.avatars,
        exponent=demand.exponent,
        talking=demand.talking,
        talk_s=talk_s,
        warm_up_s=_WARM_UP_TALKS * talk_s,
        measured_s=max(10.0, sessions * talk_s / demand.talking),
        seed=seed,
    )


def simulate_surge(
    scenario: Scenario,
    factor: float,
    scaling: ScalingRules | None,
    *,
    allowed: float,
    tell: Callable[[float], None] = lambda _share: None,
) -> Surge:
    """Simulate ``scenario`` with ``factor`` times as many people coming from one moment on, and
    return how many of them are refused in the half hour after it, how many servers there are at its
    end, and when the surge is over. Servers are added and removed by the rules ``scaling`` (None:
    neither), with two changes: there are never fewer than ``scenario`` has, and there may be
    ``2 * factor`` times as many as it has, even where ``scaling.most`` is lower.

    ``allowed`` is the share of sessions, 0 to 1, that may be refused; ``Surge.over_s`` depends on
    it. ``tell`` is called in this thread with the share of the simulation that is done, 0 to 1.
    """
    rules = None
    if scaling is not None:
        # Never what stops it: twice what the surge would need of servers like these.
        most = max(scaling.most, math.ceil(2 * factor * scenario.servers))
        rules = replace(scaling, least=max(scaling.least, scenario.servers), most=most)
    outcome = simulate(
        replace(
            scenario,
            surge=factor,
            surge_s=_BEFORE_SURGE_S,
            measured_s=_BEFORE_SURGE_S + _AFTER_SURGE_S,
            scaling=rules,
        ),
        tell,
    )
    after = [window for window in outcome.windows if window.from_s >= _BEFORE_SURGE_S]
    return Surge(
        scaling="none" if scaling is None else scaling.name,
        factor=factor,
        came=sum(window.came for window in after),
        refused=sum(window.refused for window in after),
        servers_before=scenario.servers,
        servers=outcome.servers,
        over_s=_over_s([(window.came, window.refused) for window in after], allowed),
    )


def _over_s(windows: list[tuple[int, int]], allowed: float) -> float | None:
    """The end of the last three minutes in which more than twice ``allowed`` were refused; None
    where the whole ends with such minutes. ``windows`` are ten seconds each: (came, refused)."""
    for last in range(len(windows), _SMOOTHED - 1, -1):
        parts = windows[last - _SMOOTHED : last]
        if sum(refused for _, refused in parts) > 2 * allowed * sum(came for came, _ in parts):
            return None if last == len(windows) else 10.0 * last
    return 0.0


@dataclass(frozen=True, slots=True)
class SurgeWanted:
    """A surge to be simulated: ``factor`` times as many people come (1: no surge is simulated).
    There is one simulation for each of ``scalings``, rules by which servers are added; None among
    them is a simulation in which none are added."""

    factor: float
    scalings: tuple[ScalingRules | None, ...]


NO_SURGE: Final = SurgeWanted(1.0, ())


@dataclass(frozen=True, slots=True)
class Study:
    """A plan (``plan``) with all that it was computed from: ``demand``, ``figures`` by name, and
    ``machine_gpus``, the GPUs of a machine. ``guide`` is what the guide's own arithmetic gives.
    ``tried`` has (machines, outcome) for each number of machines that was simulated, and ``surges``
    what simulated surges cost; both are empty where nothing was simulated. ``seed`` made the random
    numbers."""

    demand: Demand
    figures: Mapping[str, Figure]
    machine_gpus: int
    plan: Plan
    guide: GuidesPlan
    tried: tuple[tuple[int, Outcome], ...]
    surges: tuple[Surge, ...]
    seed: int


def make_study(
    demand: Demand,
    figures: Mapping[str, Figure],
    *,
    gpus: int,
    sessions: int = 5000,
    surge: SurgeWanted = NO_SURGE,
    seed: int = 1,
    tell: Callable[[float], None] = lambda _share: None,
) -> Study:
    """Plan for ``demand`` with ``figures``, which ``lipwire.planning.figures.figures`` returns,
    with ``gpus`` GPUs a machine, and try the plan in two simulations of about ``sessions`` live
    sessions each: with the machines that the plan names, and with one less, if that is any. With 0
    ``sessions`` nothing is simulated.

    ``surge`` says whether a sudden surge is simulated as well (its factor is 1 to 100), and with
    which rules for adding servers. ``seed`` makes the random numbers. ``tell`` is called in this
    thread with the share that is done, 0 to 1. Raises InvalidInput for numbers out of range, and
    where ``make_plan`` finds no plan: a machine serves no session, or over 100,000 servers are
    needed.
    """
    if sessions < 0:
        raise InvalidInput(f"--sessions is {sessions}; allowed are 0 and above")
    if not 1 <= surge.factor <= 100:
        raise InvalidInput(f"--surge is {surge.factor:g}; allowed are 1 to 100")
    plan = make_plan(demand, figures, gpus=gpus)
    tried: list[tuple[int, Outcome]] = []
    surges: list[Surge] = []
    if sessions:
        scenario = scenario_of(demand, plan, figures, gpus=gpus, sessions=sessions, seed=seed)
        scalings = surge.scalings if surge.factor > 1 else ()
        counts = [count for count in (plan.machines, plan.machines - 1) if count >= 1]
        runs = len(counts) + len(scalings)

        def part(number: int) -> Callable[[float], None]:
            return lambda share: tell((number + share) / runs)

        for number, count in enumerate(counts):
            servers = count * (plan.servers // plan.machines)
            outcome = simulate(replace(scenario, servers=servers), part(number))
            tried.append((count, outcome))
        surges += [
            simulate_surge(
                scenario,
                surge.factor,
                scaling,
                allowed=demand.refused,
                tell=part(len(counts) + number),
            )
            for number, scaling in enumerate(scalings)
        ]
    return Study(
        demand=demand,
        figures=figures,
        machine_gpus=gpus,
        plan=plan,
        guide=guides_plan(demand.users, demand.talking, demand.fps),
        tried=tuple(tried),
        surges=tuple(surges),
        seed=seed,
    )
