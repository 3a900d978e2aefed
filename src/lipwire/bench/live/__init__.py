"""Live sessions measured from their clients: how long after its speech a frame comes, how fast an
interruption works, how many sessions a machine carries, and what other load changes.

``rig`` makes avatars and opens servers in this process; ``clients`` speak and listen; ``measures``
are the figures one by one; ``run`` puts them together. ``density`` computes how many sessions a
machine holds.
"""

from lipwire.bench.live.density import LARGE_CORES, Density, run_density
from lipwire.bench.live.measures import Figure
from lipwire.bench.live.run import LiveReport, run_live

__all__ = ["LARGE_CORES", "Density", "Figure", "LiveReport", "run_density", "run_live"]
