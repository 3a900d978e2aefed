"""The figures of live sessions, one by one."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Final

from lipwire.bench.live.clients import UNGATED, Client, latencies_ms, lateness_ms, missing
from lipwire.bench.live.load import asking
from lipwire.bench.live.rig import Rig, Servers
from lipwire.domain import SAMPLE_RATE_HZ, LipwireError, percentile
from lipwire.rpc.connection import CompositingConnection
from lipwire.rpc.conversing import AvatarConnection
from lipwire.session.live import FRAME_MS

AVATAR: Final = "live-0"
OTHER: Final = "live-1"
BATCH_CLIENTS: Final = 8
_TIMES_AS_MANY: Final = 10
_TIMES_BESIDE: Final = 5
_TIMEOUT_S: Final = 120.0
_SETTLE_S: Final = 1.0
_WARM_UP_S: Final = 2.0
_SPOKEN_S: Final = 20.0
_SPECIALISED_S: Final = 60.0
_LOOK_S: Final = 0.1
MOST_MISSING: Final = 0.01
"""Share of its frames that a session may be without, to count as held."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of a measurement. ``what`` is its name; ``p50_ms`` and ``p99_ms`` are a time's
    median and 99th percentile in milliseconds (None where the figure is no time); ``note`` is a
    text with a number or a remark."""

    what: str
    p50_ms: float | None = None
    p99_ms: float | None = None
    note: str = ""

    @classmethod
    def of(cls, what: str, times_ms: list[float], note: str = "") -> "Figure":
        """Return a figure called ``what`` with the median and the 99th percentile of ``times_ms``,
        one or more times in milliseconds, and ``note``."""
        return cls(what, percentile(times_ms, 50), percentile(times_ms, 99), note)


def specialise(rig: Rig, servers: Servers) -> None:
    """Let each avatar of ``rig`` speak at ``servers`` until its network runs in bfloat16, which a
    server does with avatars that are used much. Raises RuntimeError where one does not within a
    minute."""
    with CompositingConnection(servers.compositing) as connection:
        for package in rig.packages:
            with _session(servers, package.name) as client:
                client.session.push(rig.said(_SPOKEN_S), SAMPLE_RATE_HZ)
                until_s = time.monotonic() + _SPECIALISED_S
                while connection.stats(package.name, _TIMEOUT_S).models[0].precision != "bfloat16":
                    if time.monotonic() > until_s:
                        raise RuntimeError("the network does not run in bfloat16; see the log")
                    time.sleep(_LOOK_S)


def latency(rig: Rig, servers: Servers, seconds: float) -> tuple[list[float], str]:
    """Push ``seconds`` of speech to a new session with the first avatar of ``rig`` at ``servers``,
    as fast as a microphone would, after another session has spoken for two seconds. Returns the
    latency in milliseconds of each frame that arrived, from sending the last sample that the frame
    depends on until its arrival, and a text with the share of frames that did not arrive. Raises
    RuntimeError where no frame arrived; an error with which a session ends is raised."""
    with _session(servers) as client:  # how long mouths take is known then
        latencies_ms(client, rig.said(_WARM_UP_S), UNGATED.lookahead_ms)
    with _session(servers) as client:
        times_ms, left_out = latencies_ms(client, rig.said(seconds), UNGATED.lookahead_ms)
    return times_ms, f"{left_out:.1%} of the frames left out"


def interruptions(rig: Rig, servers: Servers, times: int) -> list[float]:
    """Interrupt a session at ``servers`` while it says speech of ``rig``, ``times`` times; return
    how many milliseconds after each interruption the first frame without speech arrived. Raises
    RuntimeError where none arrives in time; an error with which the session ends is raised."""
    with _session(servers) as client:
        return [_interruption(rig, client) for _ in range(times)]


def _interruption(rig: Rig, client: Client) -> float:
    begun = len(client.frames)
    client.session.push(rig.said(20.0), SAMPLE_RATE_HZ)
    client.wait(lambda: client.spoken(begun) >= 10, _TIMEOUT_S)
    spoke_ms = client.frames[-1][1].at_ms
    called_s = time.perf_counter()
    client.session.interrupt()

    def silent_s() -> float | None:
        return next((at for at, f in client.frames if not f.speech and f.at_ms > spoke_ms), None)

    client.wait(silent_s, _TIMEOUT_S)
    came_s = silent_s()
    assert came_s is not None  # it was waited for
    return (came_s - called_s) * 1000


def first_frames(servers: Servers, times: int, *, cold: bool) -> list[float]:
    """Begin a session with the first avatar at ``servers``, ``times`` times one after the other;
    return the milliseconds from asking for each session until its first frame arrived. With
    ``cold`` the avatar is unloaded before each. Raises RuntimeError where no frame arrives in time;
    an error with which a session ends is raised."""
    found = []
    with CompositingConnection(servers.compositing) as connection:
        for _ in range(times):
            if cold:
                connection.unload(AVATAR, _TIMEOUT_S)
            with _session(servers) as client:
                found.append((client.frames[0][0] - client.asked_s) * 1000)
    return found


def carried(rig: Rig, servers: Servers, seconds: float, most: int) -> tuple[int, str]:
    """Find how many sessions the compositing server of ``servers`` carries that all speak, with the
    avatars of ``rig`` in turn. Sessions are added one after the other, up to ``most``, and each
    number of them is watched for ``seconds``, until one session lacks 1 % of its frames, or 1 % of
    all frames are late by more than 40 ms. Returns the last number before that, and a text that
    says what ended the search."""
    with ExitStack() as stack:
        connection = stack.enter_context(AvatarConnection(servers.compositing))
        clients: list[Client] = []
        names = [package.name for package in rig.packages]
        for number in range(most):
            model_id = names[number % len(names)]
            clients.append(stack.enter_context(Client(connection, model_id)))
            firsts = []
            for client in clients:
                client.session.interrupt()
                client.session.push(rig.said(seconds + 10 * _SETTLE_S), SAMPLE_RATE_HZ)
            time.sleep(_SETTLE_S)
            firsts = [len(client.frames) for client in clients]
            time.sleep(seconds)
            now = time.perf_counter()
            pairs = list(zip(clients, firsts, strict=True))
            worst = max(missing(client, first, now) for client, first in pairs)
            late = [ms for client, first in pairs for ms in lateness_ms(client, first)]
            p99_ms = percentile(late, 99) if late else float("inf")
            if worst >= MOST_MISSING or p99_ms > FRAME_MS:
                return number, (
                    f"with {number + 1}, one is without {worst:.1%} of its frames, and the p99 of"
                    f" lateness is {p99_ms:.0f} ms"
                )
    return most, "more were not tried"


def processor_share(rig: Rig, servers: Servers, seconds: float, *, speaking: bool) -> float:
    """Return which share of one core a session at ``servers`` takes, client and server together:
    processor seconds for each second, of this process, in which both run, measured for ``seconds``.
    1.0 is a whole core. With ``speaking`` the avatar says speech of ``rig`` meanwhile, else it
    rests."""
    with _session(servers) as client:
        if speaking:
            client.session.push(rig.said(seconds + 2 * _SETTLE_S), SAMPLE_RATE_HZ)
            client.wait(client.spoken, _TIMEOUT_S)
        else:
            time.sleep(_SETTLE_S)
        begun_s, spent_s = time.perf_counter(), time.process_time()
        time.sleep(seconds)
        return (time.process_time() - spent_s) / (time.perf_counter() - begun_s)


def capacity(servers: Servers) -> int:
    """Return how many live sessions in all the compositing server of ``servers`` would admit, as it
    reports."""
    with CompositingConnection(servers.compositing) as connection:
        return connection.health(_TIMEOUT_S).live_capacity


def beside_load(rig: Rig, servers: Servers, seconds: float) -> Iterator[Figure]:
    """Measure one live session at ``servers``, which have to be an inference and a compositing
    server: alone, beside 8 clients that ask for batches of another avatar, and beside 80 such
    clients of another tenant. Yield the session's latency in milliseconds for each, over
    ``seconds`` of the speech of ``rig``, and beside the clients also how long an interruption took.
    Where a measurement beside clients fails, its figure has the error as its note, and no times."""
    alone, note = latency(rig, servers, seconds)
    yield Figure.of("latency over two servers, alone", alone, note)
    alone_ms = max(percentile(alone, 99), 1e-3)
    for tenant, clients in (("", BATCH_CLIENTS), ("other", BATCH_CLIENTS * _TIMES_AS_MANY)):
        whose = " of another tenant" if tenant else ""
        what = f"latency beside {clients} clients{whose} with batches of 24"
        with asking(servers.inference, OTHER, clients=clients, tenant=tenant):
            time.sleep(_SETTLE_S)
            try:
                times_ms, note = latency(rig, servers, seconds)
                broken_off_ms = interruptions(rig, servers, _TIMES_BESIDE)
            except (LipwireError, RuntimeError) as error:
                yield Figure(what, note=str(error))
                continue
        ratio = percentile(times_ms, 99) / alone_ms
        yield Figure.of(what, times_ms, f"p99 is {ratio:.2f} times that alone; {note}")
        yield Figure.of(what.replace("latency", "interruption"), broken_off_ms)


@contextmanager
def _session(servers: Servers, avatar: str = AVATAR) -> Iterator[Client]:
    """A session whose first frame has come."""
    with AvatarConnection(servers.compositing) as connection, Client(connection, avatar) as client:
        client.wait(lambda: client.frames, _TIMEOUT_S)
        yield client
