"""`lipwire plan`: how many machines so many people need."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Scaler(StrEnum):
    """What adds servers when more people come; ``all`` compares them."""

    NONE = "none"
    HPA = "hpa"
    KEDA = "keda"
    ALL = "all"


def _given(help_text: str) -> object:
    """An option for a figure, which is measured or assumed where it is not given."""
    return typer.Option(help=help_text, show_default=False)


def command(
    users: Annotated[int, typer.Option(help="How many people there are.", show_default=False)],
    concurrent: Annotated[
        str,
        typer.Option(
            help="How many of them talk at once in the mean: a number (110), or a share of the "
            "users (1%, or 0.01)."
        ),
    ] = "1%",
    fps: Annotated[float, typer.Option(help="Frames a second that each sees.")] = 25.0,
    avatars: Annotated[
        int | None,
        typer.Option(help="How many avatars there are (default: one a user).", show_default=False),
    ] = None,
    gpus: Annotated[
        int, typer.Option(help="GPUs of a machine; 0: networks run on its processor.")
    ] = 0,
    frame_ms: Annotated[float | None, _given("Time of a mouth on a core, or on a GPU.")] = None,
    besides_share: Annotated[
        float | None, _given("Cores that a session takes besides its mouths.")
    ] = None,
    network_mb: Annotated[float | None, _given("Memory of an avatar's network.")] = None,
    frames_mb: Annotated[float | None, _given("Memory of an avatar's frames.")] = None,
    package_mb: Annotated[float | None, _given("Disk of an avatar's package.")] = None,
    session_mbit: Annotated[float | None, _given("Mbit/s to a client, at 25 fps.")] = None,
    load_ms: Annotated[float | None, _given("Time to load an avatar that is compiled.")] = None,
    talk_s: Annotated[float | None, _given("How long a session lasts in the mean.")] = None,
    cores: Annotated[float | None, _given("Cores of a machine.")] = None,
    memory_gb: Annotated[float | None, _given("Memory of a machine.")] = None,
    disk_gb: Annotated[float | None, _given("Disk of a machine.")] = None,
    network_gbit: Annotated[float | None, _given("Gbit/s of a machine's link.")] = None,
    gpu_memory_gb: Annotated[float | None, _given("Memory of a GPU.")] = None,
    density: Annotated[
        Path | None,
        _given("Take speed from a file of `lipwire bench density --json`."),
    ] = None,
    live: Annotated[
        Path | None,
        _given("Take the time of a load from a file of `lipwire bench live --json`."),
    ] = None,
    zipf: Annotated[
        float, typer.Option(help="Exponent of Zipf's law, by which avatars are popular; 0: alike.")
    ] = 0.8,
    refused: Annotated[
        float, typer.Option(help="Share of sessions that may be refused, at most.")
    ] = 0.01,
    hit_rate: Annotated[
        float, typer.Option(help="Share of sessions whose avatar is to be in memory, at least.")
    ] = 0.5,
    sessions: Annotated[
        int, typer.Option(help="Sessions to simulate, about; 0: arithmetic alone.")
    ] = 5000,
    surge: Annotated[
        float,
        typer.Option(help="So many times as many people come at once, to be simulated; 1: none."),
    ] = 1.0,
    scaling: Annotated[
        Scaler, typer.Option(help="What adds servers then; all: none, hpa and keda.")
    ] = Scaler.ALL,
    target: Annotated[
        float, typer.Option(help="Share of a server's time that the scaler aims at.")
    ] = 0.8,
    start_s: Annotated[
        float, typer.Option(help="Seconds until a server that is asked for serves.")
    ] = 90.0,
    seed: Annotated[int, typer.Option(help="Of the simulation's random numbers.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")] = False,
) -> None:
    """Say how many machines, GPUs, memory, disk and bandwidth so many people need.

    Every figure is printed with where it comes from. The number of servers is then tried in a
    simulation, with a machine less, and where asked for with a sudden surge.

    lipwire plan --users 11000 --concurrent 1% --gpus 1 --surge 2
    """
    from lipwire.cli.commands.plan_report import print_study, study_as_json
    from lipwire.cli.terminal import progress_bar
    from lipwire.planning.autoscaling import ScalingRules, hpa, keda
    from lipwire.planning.capacity import Demand
    from lipwire.planning.figures import figures
    from lipwire.planning.study import SurgeWanted, make_study

    given = {
        "frame_ms": frame_ms,
        "besides_share": besides_share,
        "network_mb": network_mb,
        "frames_mb": frames_mb,
        "package_mb": package_mb,
        "session_mbit": session_mbit,
        "load_ms": load_ms,
        "talk_s": talk_s,
        "cores": cores,
        "memory_gb": memory_gb,
        "disk_gb": disk_gb,
        "network_gbit": network_gbit,
        "gpu_memory_gb": gpu_memory_gb,
    }
    demand = Demand(
        users=users,
        avatars=users if avatars is None else avatars,
        talking=_talking(concurrent, users),
        fps=fps,
        exponent=zipf,
        refused=refused,
        hit_rate=hit_rate,
    )
    rules: dict[Scaler, ScalingRules | None] = {
        Scaler.NONE: None,
        Scaler.HPA: hpa(target=target, start_s=start_s),
        Scaler.KEDA: keda(target=target, start_s=start_s),
    }
    chosen = tuple(rules.values()) if scaling is Scaler.ALL else (rules[scaling],)
    with progress_bar("simulating", "%", quiet=as_json) as report:
        study = make_study(
            demand,
            figures(given, on_gpu=gpus > 0, density=density, live=live),
            gpus=gpus,
            sessions=sessions,
            surge=SurgeWanted(surge, chosen),
            seed=seed,
            tell=lambda share: report(round(100 * share), 100),
        )
    if as_json:
        typer.echo(study_as_json(study))
    else:
        print_study(study)


def _talking(text: str, users: int) -> float:
    """How many people ``text`` says: a number, or below 1 or with "%" a share of ``users``."""
    from lipwire.domain import InvalidInput

    try:
        number = float(text.removesuffix("%"))
    except ValueError:
        number = float("nan")
    if text.endswith("%"):
        number /= 100
        if not 0 < number <= 1:
            raise InvalidInput(f"--concurrent is {text}; allowed is what is above 0 %, up to 100 %")
        return number * users
    if not 0 < number < float("inf"):
        raise InvalidInput(
            f"--concurrent is {text!r}; allowed are a number of people and a share of the users, as"
            " 110, 1% and 0.01"
        )
    return number * users if number < 1 else number
