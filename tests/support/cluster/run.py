"""A run: one trouble after the other befalls a cluster, while clients ask it."""

import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.support.cluster.cast import make_cast
from tests.support.cluster.clients import BatchClients, ColdRequests
from tests.support.cluster.cluster import Cluster
from tests.support.cluster.intruders import Intruders
from tests.support.cluster.live import LiveClients
from tests.support.cluster.record import Record
from tests.support.cluster.renders import RenderClients
from tests.support.cluster.troubles import Trouble, a_round, nothing

from lipwire.rpc.credentials import ClientSecurity

LIMIT_S: Final = 5.0
"""How long it may take until all is as before."""
_QUIET_S: Final = 10.0
_OVER_S: Final = 60.0
_OFTEN_S: Final = 0.05
_MOST: Final = 14
"""Troubles of a round."""


@dataclass(slots=True)
class Row:
    """What troubles of one kind have done: ``gap_s`` is the longest time, from the beginning of one
    on, in which some client got nothing, and ``back_s`` the longest after its end until avatars
    that no server had were answered and nothing was left of it; both in seconds, with who or what
    that was."""

    kind: str
    times: int = 0
    gap_s: float = 0.0
    gap_of: str = ""
    back_s: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def seconds(self) -> float:
        """The longest of all."""
        return max(self.gap_s, self.back_s)


@dataclass(frozen=True, slots=True)
class Found:
    """What a run has found, a row for each kind of trouble, and all that clients have seen."""

    rows: Sequence[Row]
    record: Record
    unclean: Sequence[str]
    """Crashes of servers, and exits with another code."""

    def problems(self, limit_s: float = LIMIT_S) -> list[str]:
        """Return a line for each thing that was wrong; ``limit_s`` is how long it may take until
        all is as before."""
        record = self.record
        slow = [
            f"slow: {row.kind}: {row.seconds:.1f} s ({row.gap_of})"
            for row in self.rows
            if row.seconds > limit_s
        ]
        return [
            *(f"wrong: {line}" for line in record.wrong),
            *(f"lost: {line}" for line in record.lost),
            *(f"of another tenant: {line}" for line in record.foreign),
            *(f"unclean: {line}" for line in self.unclean),
            *slow,
            *(f"none: {what}" for what in WANTED if not record.counts[what]),
        ]

    def table(self) -> list[str]:
        """Return the table as lines."""
        head = ("trouble", "times", "gap s", "back s", "wrong", "lost", "other tenant's", "longest")
        lines = [
            (
                row.kind,
                str(row.times),
                f"{row.gap_s:.1f}",
                f"{row.back_s:.1f}",
                *(str(row.counts[what]) for what in ("wrong", "lost", "foreign")),
                row.gap_of,
            )
            for row in self.rows
        ]
        widths = [max(len(line[at]) for line in (head, *lines)) for at in range(len(head))]
        return [
            "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
            for line in (head, *lines)
        ]


WANTED: Final = ("batches", "sessions", "videos", "intrusions refused", "cold avatars")
"""What has to have happened, for anything to have been looked at."""

Troubles = Callable[[Cluster, random.Random], Sequence[Trouble]]


def run(
    folder: Path,
    *,
    rounds: int,
    seconds: float,
    seed: int = 0,
    clients: int = 1,
    live_clients: int = 1,
    troubles: Troubles = a_round,
    tell: Callable[[str], None] = lambda line: None,
) -> Found:
    """Start a cluster in ``folder``, have all ``troubles`` befall it ``rounds`` times, each for
    about ``seconds``, and return what came of it. ``clients`` and ``live_clients`` are those of
    each tenant; ``seed`` draws what happens when. ``tell`` is called with a line about each
    trouble. For namespaces of their own (``hosts.apart``)."""
    chance = random.Random(seed)
    record = Record()
    cast = make_cast(folder, cold=1 + rounds * _MOST // 2)
    rows: dict[str, Row] = {}
    with ExitStack() as stack:
        cluster = stack.enter_context(Cluster(folder, cast))

        def connect(tenant: str) -> tuple[str, ClientSecurity]:
            return cluster.address, cluster.security(tenant)

        batches = BatchClients(connect, cast, record, count=clients, seed=seed)
        live = LiveClients(connect, cast, record, count=live_clients, seed=seed)
        renders = RenderClients(connect, cast, record, folder / "videos")
        intruders = Intruders(connect, cast, record, sessions=live.sessions, renders=renders.latest)
        cold = stack.enter_context(ColdRequests(connect, cast, record))
        everybody = (batches, live, renders, intruders)
        with ExitStack() as working:
            for each in everybody:
                working.enter_context(each)
                each.start()
            _until_flowing(record)
            _befall(nothing(), cluster, record, cold, rows, _QUIET_S, tell)
            for _ in range(rounds):
                for trouble in troubles(cluster, chance):
                    lasts_s = seconds * chance.uniform(0.7, 1.3)
                    _befall(trouble, cluster, record, cold, rows, lasts_s, tell)
        renders.look()
        cluster.end()
        unclean = [line for each in cluster.servers.values() for line in _crashes(each.troubles())]
    return Found(list(rows.values()), record, unclean)


def _until_flowing(record: Record) -> None:
    """Until every client has got something: the first requests load and compile."""
    begun_s = record.clock()
    while record.longest_gap(begun_s, (now_s := record.clock()))[0] >= now_s - begun_s:
        if now_s > begun_s + _OVER_S:
            raise RuntimeError(f"nothing comes: {record.lost} {dict(record.counts)}")
        time.sleep(_OFTEN_S)


def _befall(
    trouble: Trouble,
    cluster: Cluster,
    record: Record,
    cold: ColdRequests,
    rows: dict[str, Row],
    seconds: float,
    tell: Callable[[str], None],
) -> None:
    """Have one trouble happen, and look at what comes of it."""
    row = rows.setdefault(trouble.kind, Row(trouble.kind))
    before = Counter(record.counts)
    clock = record.clock
    begun_s = clock()
    trouble.begin()
    cold.begin()
    time.sleep(max(0.0, begun_s + seconds - clock()))
    trouble.end()
    ended_s = clock()
    while not trouble.is_over() and clock() < ended_s + _OVER_S:
        time.sleep(_OFTEN_S)
    over_s = clock()
    answered_s = cold.end()
    cluster.until_whole()
    time.sleep(max(0.0, ended_s + LIMIT_S - clock()))
    gap_s, from_s, gap_of = record.longest_gap(begun_s, clock())
    back_s = max(over_s, answered_s) - ended_s
    row.times += 1
    if gap_s > row.gap_s:
        row.gap_s, row.gap_of = gap_s, gap_of
    row.back_s = max(row.back_s, back_s)
    row.counts += Counter(record.counts) - before
    tell(
        f"{trouble.kind} ({trouble.where}), {ended_s - begun_s:.1f} s: gap of {gap_s:.1f} s from"
        f" {from_s - begun_s:.1f} s on ({gap_of}), back {back_s:.1f} s after it"
    )


def _crashes(lines: Sequence[str]) -> list[str]:
    """Without errors that were foreseen, which are logged."""
    return [
        line for line in lines if "Traceback" in line or "Fatal" in line or "ended with" in line
    ]
