"""A short run, for a test: ``python -m tests.support.cluster.trial FOLDER``, in namespaces of its
own, prints what was wrong, a line each, and last how many frames were looked at."""

import sys
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Final

from tests.support.cluster.cluster import Cluster
from tests.support.cluster.run import run
from tests.support.cluster.troubles import Trouble, a_round

_KINDS: Final = ("kill -9, inference", "network cut, compositing", "certificate changed")
_SECONDS: Final = 3.0
_LIMIT_S: Final = 60.0
"""Of a machine that is busy with other tests; how long it takes is the benchmark's to say."""


def some(cluster: Cluster, chance: Random) -> Sequence[Trouble]:
    """A few troubles of a round."""
    return [trouble for trouble in a_round(cluster, chance) if trouble.kind in _KINDS]


if __name__ == "__main__":
    found = run(Path(sys.argv[1]), rounds=1, seconds=_SECONDS, troubles=some)
    print("\n".join([*found.problems(_LIMIT_S), f"{found.record.counts['frames']} frames"]))
