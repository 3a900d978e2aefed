"""Render a table on a Ray cluster of two nodes, and end a worker and a node meanwhile.

python -m tests.rendermany.oncluster TABLE JOBS_BEFORE_THE_WORKER JOBS_BEFORE_THE_NODE

Prints a line of JSON: videos done and failed, and workers that were lost.
"""

import json
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

from ray.cluster_utils import Cluster

from lipwire.rendermany import Ledger, RenderSettings, read_jobs, render_many
from lipwire.rendermany.cluster import RayWorkers

_STORE_BYTES = 80_000_000


def a_worker() -> int:
    """The process of one of the actors, which Ray names after what it does."""
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if entry.read_bytes().startswith(b"ray::_Actor"):
                return int(entry.parent.name)
    raise RuntimeError("there is no worker")


def main(table: Path, worker_after: int, node_after: int) -> None:
    cluster = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 1,
            "include_dashboard": False,
            "object_store_memory": _STORE_BYTES,
        },
    )
    node = cluster.add_node(num_cpus=1, object_store_memory=_STORE_BYTES)
    settings = RenderSettings(preset="ultrafast", precision="float32")
    opened: list[RayWorkers] = []

    def open_workers(_count: int) -> RayWorkers:
        opened.append(RayWorkers(cluster.address, settings))
        return opened[0]

    ended: set[str] = set()

    def told(done: int, _total: int) -> None:
        if done >= worker_after and "worker" not in ended:
            ended.add("worker")
            os.kill(a_worker(), signal.SIGKILL)
        if done >= node_after and "node" not in ended:
            ended.add("node")
            cluster.remove_node(node, allow_graceful=False)

    try:
        with Ledger(table.with_suffix(".done")) as ledger:
            summary = render_many(read_jobs(table), settings, ledger, open_workers, told=told)
    finally:
        cluster.shutdown()  # type: ignore[no-untyped-call]
    print(
        json.dumps(
            {
                "done": summary.done,
                "failed": [failure.reason for failure in summary.failed],
                "lost": summary.workers_lost,
            }
        )
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
