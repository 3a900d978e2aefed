"""Chaos on a whole cluster: what each trouble costs its clients.

    python benchmarks/cluster_chaos.py ROUNDS [SECONDS [KIND]]

HAProxy with the configuration of ``deploy/haproxy``, three inference and two compositing servers, a
store with S3's protocol (moto's server) and Redis run on machines of their own, which are Linux's
namespaces on this one: each has a network, whose cable can be pulled from the switch, and a disk of
192 MiB. One compositing server knows the addresses of all inference servers, the other asks by
HAProxy. Everything is encrypted, and two tenants have keys, avatars of their own, and clients:
batches, live sessions, orders for videos, and intruders who ask for what is the other tenant's.
Every frame is compared with the right one, which is made without servers.

In each of ROUNDS every trouble happens once, one at a time, for about SECONDS (6) each; with KIND
those alone whose names contain that text ("SIGSTOP", "kill -9, inference"). Printed is
for each kind how often it happened; the longest time, from its beginning on, in which some client
got nothing right (``gap``); how long after its end avatars that no server had before were answered,
and nothing was left of it (``back``); and how many frames or videos were wrong, requests lost, and
answers another tenant's. Ends with 1 where anything was wrong, or took longer than 5 s.

Needs Linux, HAProxy, redis-server, and namespaces (root, or user namespaces).
"""

import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the cluster is a test's

from tests.support.cluster.cluster import Cluster
from tests.support.cluster.hosts import apart, why_not
from tests.support.cluster.run import run
from tests.support.cluster.troubles import Trouble, a_round

from lipwire.config.machine import describe_machine

SECONDS = 6.0
_APART = "LIPWIRE_CHAOS_APART"


def main(rounds: int, seconds: float, kind: str) -> int:
    """Print what ``rounds`` of troubles of a ``kind`` come to; the exit status."""

    def troubles(cluster: Cluster, chance: Random) -> Sequence[Trouble]:
        return [trouble for trouble in a_round(cluster, chance) if kind in trouble.kind]

    with tempfile.TemporaryDirectory(prefix="lipwire-cluster-") as folder:
        found = run(Path(folder), rounds=rounds, seconds=seconds, troubles=troubles, tell=print)
    print()
    print("\n".join(found.table()))
    print(", ".join(f"{count} {what}" for what, count in sorted(found.record.counts.items())))
    print(describe_machine().line())
    problems = found.problems()
    print("\n".join(problems))
    return 1 if problems else 0


if __name__ == "__main__":
    if _APART not in os.environ:
        if reason := why_not():
            sys.exit(reason)
        command = apart([sys.executable, "-u", *sys.argv])
        os.execvpe(command[0], command, {**os.environ, _APART: "1"})
    given = dict(enumerate(sys.argv[1:]))
    sys.exit(main(int(given[0]), float(given.get(1, SECONDS)), given.get(2, "")))
