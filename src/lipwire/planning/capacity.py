"""How many machines a demand needs, by arithmetic.

Each thing that may run out is looked at by itself; what needs most machines decides. Speed is
Erlang's formula for each server, as an avatar's sessions go to one server: rendezvous hashing
spreads avatars, and not people, so that servers are never loaded alike.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from lipwire.domain import FPS, Call, InvalidInput
from lipwire.planning.figures import Figure
from lipwire.planning.popularity import Zipf, erlang_b, places_for
from lipwire.rpc.backends.affinity import rendezvous
from lipwire.serving.leases import SpeedLeases
from lipwire.serving.networkfacts import Speed

FILLED: Final = 0.8
"""How much of memory, disks and links is planned with."""
_HASHES: Final = 20_000
"""About so many are computed to see how servers are loaded; what is rarer is spread evenly."""
_LEAST_HASHED: Final = 50
_NAMINGS: Final = 4
"""Which server has the most popular avatars is chance: the mean of so many sets of names counts."""
_ASKED_AGAIN: Final = 64
"""So many answers to which server has which avatar are kept."""
_MOUTH_BYTES: Final = 320 * 320 * 3


@dataclass(frozen=True, slots=True)
class Demand:
    """What is to be served. There are ``users`` people and ``avatars`` avatars; ``talking`` of
    these people (a number above 0, at most ``users``) talk to an avatar at once in the mean, and
    each sees ``fps`` frames a second (above 0, to 240). How often each avatar is asked for follows
    Zipf's law with ``exponent`` (``Zipf``). ``refused`` is the share of those who come that may
    find no place, and ``hit_rate`` the share that has to find their avatar in memory, at least;
    both between 0 and 1.

    Raises InvalidInput for numbers out of range; ``make_plan`` checks ``exponent``.
    """

    users: int
    avatars: int
    talking: float
    fps: float = float(FPS)
    exponent: float = 0.8
    refused: float = 0.01
    hit_rate: float = 0.5

    def __post_init__(self) -> None:
        for label, count in (("--users", self.users), ("--avatars", self.avatars)):
            if count < 1:
                raise InvalidInput(f"{label} is {count}; allowed are 1 and above")
        if not 0 < self.talking <= self.users:
            raise InvalidInput(
                f"--concurrent is {self.talking:g} people at once; allowed is what is above 0, up"
                f" to the {self.users} users"
            )
        if not 0 < self.fps <= 240:
            raise InvalidInput(f"--fps is {self.fps:g}; allowed is what is above 0, up to 240")
        for label, share in (("--refused", self.refused), ("--hit-rate", self.hit_rate)):
            if not 0 < share < 1:
                raise InvalidInput(f"{label} is {share:g}; allowed is what is between 0 and 1")


@dataclass(frozen=True, slots=True)
class Need:
    """One thing that may run out, ``what`` ("speed", "memory", ...), the number of ``machines``
    that there have to be for its sake, and ``how`` that was computed, in a few words."""

    what: str
    machines: int
    how: str


@dataclass(frozen=True, slots=True)
class Plan:
    """How many ``machines`` there are to be, with ``gpus`` and ``servers`` in all: a server is a
    GPU, or a machine without one. A server has ``places``: it serves so many live sessions at once.

    ``needs`` has what each thing that may run out needs by itself, the one that needs most machines
    first. ``pooled_machines`` is how many machines speed would need if any server could serve any
    session. ``hot`` says that so many people want one avatar that its server refuses more of them
    than is allowed, however many servers there are; speed is then planned as if any server could
    serve any session. ``resident`` avatars are held in memory, of all machines together.
    ``refused`` is the share of sessions, 0 to 1, expected to be refused with these servers. The
    sizes (GB) and rates (Gbit/s) are what is needed in all, not for each machine.
    """

    machines: int
    gpus: int
    servers: int
    places: int
    needs: tuple[Need, ...]
    pooled_machines: int
    hot: bool
    refused: float
    resident: int
    memory_gb: float
    """Of all machines together, for the avatars held."""
    gpu_memory_gb: float
    disk_gb: float
    """For all avatars once, packages and compiled parts."""
    bandwidth_gbit: float
    """To clients, all together."""
    inside_gbit: float
    """Between compositing and inference servers, where these are apart."""


def make_plan(demand: Demand, figures: Mapping[str, Figure], *, gpus: int) -> Plan:
    """Return how many machines serve ``demand``, computed from ``figures``, which
    ``lipwire.planning.figures.figures`` returns: all of them, by name. A machine has ``gpus`` GPUs;
    with 0 networks run on its processor.

    Raises InvalidInput where ``gpus`` is negative, the exponent of ``demand`` is not 0 to 4, a
    machine cannot serve one session, or over 100,000 servers would be needed.
    """
    if gpus < 0:
        raise InvalidInput(f"--gpus is {gpus}; allowed are 0 and above")
    of = {name: figure.value for name, figure in figures.items()}
    zipf = Zipf(demand.avatars, demand.exponent)
    per_machine = max(1, gpus)
    places = places_of_server(demand.fps, of, gpus)
    if places < 1:
        raise InvalidInput(
            f"a machine of {of['cores']:g} cores holds no session: a frame takes"
            f" {of['frame_ms']:.3g} ms, and a session {of['besides_share']:g} cores besides;"
            " allowed are machines that hold one"
        )
    pooled = math.ceil(places_for(demand.talking, demand.refused) / places)
    hot = refused_alone(zipf, demand.talking, places) > demand.refused
    servers = pooled if hot else servers_for(zipf, demand.talking, places, demand.refused, pooled)

    resident = max(zipf.held_for(demand.hit_rate), min(math.ceil(demand.talking), len(zipf)))
    network_mb = 0.0 if gpus else of["network_mb"]
    memory_gb = resident * (of["frames_mb"] + network_mb) / 1000
    gpu_memory_gb = resident * of["network_mb"] / 1000 if gpus else 0.0
    bandwidth_gbit = demand.talking * of["session_mbit"] * demand.fps / FPS / 1000
    needs = [
        Need(
            "speed",
            math.ceil(servers / per_machine),
            f"{demand.talking:g} sessions, {places} on a server",
        ),
        _filling("memory", memory_gb, of["memory_gb"], "GB", f"{resident} avatars held"),
        _filling("bandwidth", bandwidth_gbit, of["network_gbit"], "Gbit/s", "to clients"),
    ]
    if gpus:
        held = f"{resident} networks held"
        needs.append(_filling("GPU memory", gpu_memory_gb, gpus * of["gpu_memory_gb"], "GB", held))
    needs.sort(key=lambda need: -need.machines)
    machines = needs[0].machines
    return Plan(
        machines=machines,
        gpus=machines * gpus,
        servers=machines * per_machine,
        places=places,
        needs=tuple(needs),
        pooled_machines=math.ceil(pooled / per_machine),
        hot=hot,
        refused=refused_share(zipf, demand.talking, places, machines * per_machine),
        resident=resident,
        memory_gb=memory_gb,
        gpu_memory_gb=gpu_memory_gb,
        disk_gb=demand.avatars * (of["package_mb"] + of["frames_mb"] + of["network_mb"]) / 1000,
        bandwidth_gbit=bandwidth_gbit,
        inside_gbit=demand.talking * demand.fps * _MOUTH_BYTES * 8 / 1e9,
    )


def _filling(what: str, needed: float, of_machine: float, unit: str, why: str) -> Need:
    machines = max(1, math.ceil(needed / (FILLED * of_machine)))
    return Need(what, machines, f"{needed:,.1f} {unit}, {why}; {of_machine:g} a machine")


def places_of_server(fps: float, of: Mapping[str, float], gpus: int) -> int:
    """Return how many live sessions at ``fps`` frames a second one server can serve at once: the
    smaller of the number for which it makes mouths fast enough, as a server's leases (shares of its
    time) count it, and the number that its cores compose and send for; 0 where not even one. A
    server is one of the ``gpus`` GPUs of a machine, or the whole machine where ``gpus`` is 0.

    ``of`` has the values of figures by name, of which ``cores`` (of a machine), ``frame_ms``
    (milliseconds that a mouth takes) and ``besides_share`` (cores that a session takes besides its
    mouths) are used.
    """
    side_by_side = 1 if gpus else int(of["cores"])
    # Leases count 25 frames a second: other rates are as much longer frames.
    speed = Speed(0, of["frame_ms"] / 1000 * fps / FPS, side_by_side)
    if side_by_side < 1 or fps * of["frame_ms"] / 1000 > side_by_side:
        return 0
    leases = SpeedLeases(
        lambda _model_id: speed,
        lambda _model_id, _call: speed,
        lambda: (0,),
        lambda _device, _seconds: None,
        clock=lambda: 0.0,
    )
    leases.acquire("session", "avatar", Call(None))
    by_leases = leases.stats().fit or 0
    cores = of["cores"] / max(1, gpus)
    session_cores = of["besides_share"] + (0.0 if gpus else fps * of["frame_ms"] / 1000)
    by_cores = math.floor(cores / session_cores + 1e-9) if session_cores else by_leases
    return min(by_leases, by_cores)


def server_name(naming: int, number: int) -> str:
    """Return the made-up name of server ``number`` (from 0). Rendezvous hashing of such names
    decides which server has which avatar. ``naming`` is the number of a set of names, any integer:
    each set distributes the avatars differently."""
    return f"server-{naming}-{number}"


def avatar_name(rank: int) -> str:
    """Return the made-up name of the avatar of popularity ``rank``; 0 is the most popular."""
    return f"avatar-{rank}"


def server_shares(zipf: Zipf, servers: int, naming: int) -> list[float]:
    """Return, for each of ``servers`` servers, the share of all requests that it gets; the shares
    add up to 1. Rendezvous hashing of names gives each avatar to one server, and ``zipf.shares`` is
    the share of the requests that each avatar gets.

    Only the most popular avatars, 50 or more, are hashed; the requests for all others are spread
    evenly. The servers' names are made up: ``naming``, any integer, is the number of a set of
    names, and each set distributes the avatars differently.
    """
    hashed = min(len(zipf), max(_LEAST_HASHED, _HASHES // servers))
    shares = [0.0] * servers
    for rank, server in enumerate(_servers_of(hashed, servers, naming)):
        shares[server] += float(zipf.shares[rank])
    rest = float(zipf.shares[hashed:].sum()) / servers
    return [share + rest for share in shares]


@lru_cache(_ASKED_AGAIN)
def _servers_of(avatars: int, servers: int, naming: int) -> list[int]:
    """The server, from 0 on, of each of the most popular ``avatars``. Kept, as plans with other
    figures ask for the same."""
    names = {server_name(naming, number): 1.0 for number in range(servers)}
    numbers = {name: number for number, name in enumerate(names)}
    return [numbers[rendezvous(avatar_name(rank), names)[0]] for rank in range(avatars)]


def refused_share(zipf: Zipf, talking: float, places: int, servers: int) -> float:
    """Return the share of live sessions that find no place, 0 to 1, by Erlang's formula.
    ``talking`` is how many sessions would run at once in the mean if none were refused. Each of
    ``servers`` servers has ``places`` and serves only sessions of the avatars that rendezvous
    hashing gives it; ``zipf.shares`` is the share of the sessions that each avatar has. Which
    server has which avatar depends on the servers' names: the result is the mean over four sets of
    made-up names."""
    refused = 0.0
    for naming in range(_NAMINGS):
        for share in server_shares(zipf, servers, naming):
            refused += share * erlang_b(share * talking, places)
    return refused / _NAMINGS


def refused_alone(zipf: Zipf, talking: float, places: int) -> float:
    """Return the share of live sessions that would find no place, 0 to 1, if each avatar had a
    server of its own with ``places``. More servers cannot lower this share. ``talking`` is how many
    sessions would run at once in the mean if none were refused; ``zipf.shares`` is the share of the
    sessions that each avatar has."""
    alone = 0.0
    for share in zipf.shares:
        refused = float(share) * erlang_b(float(share) * talking, places)
        alone += refused
        if refused < 1e-9:
            break
    return alone


def servers_for(zipf: Zipf, talking: float, places: int, refused: float, least: int) -> int:
    """Return the least number of servers, ``least`` or more, with which the share of sessions that
    find no place is at most ``refused``, 0 to 1. Each server has ``places``, which is how many
    sessions it takes at a time. ``talking`` is how many people would be in a session at once in the
    mean, and ``zipf`` says how they are shared out among the avatars, each of which one server has.

    To be called only where more servers can reach that share: where not more are refused even if
    each avatar has a server of its own (``refused_alone``). Raises InvalidInput where over 100,000
    servers would be needed.
    """
    low, high = least - 1, least
    while refused_share(zipf, talking, places, high) > refused:
        low, high = high, high * 2
        if high > 100_000:
            raise InvalidInput(f"over 100,000 servers of {places} places would be needed")
    while high - low > 1:
        middle = (low + high) // 2
        if refused_share(zipf, talking, places, middle) > refused:
            low = middle
        else:
            high = middle
    return high
