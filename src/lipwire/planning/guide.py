"""The guide's own capacity planning: what it says of a user, a GPU and a thousand users.

The figures are those of the deployment guide of the system that Lipwire replaces, chapter "Scaling
& Optimization", section "Capacity Planning", and the hardware that it names.
"""

import math
from dataclasses import dataclass
from typing import Final

GPU_FRAMES_A_SECOND: Final = 320
"""Of an RTX 4090: eight clients of 40 frames a second."""
GPU_GB: Final = 24
NETWORK_MB: Final = 500
BACKGROUNDS_MB: Final = 2_100
"""Of 523 frames."""
USER_MB: Final = NETWORK_MB + BACKGROUNDS_MB
CACHED_USER_MB: Final = 400
"""Of a user whose frames are in an LRU cache instead."""


@dataclass(frozen=True, slots=True)
class GuidesPlan:
    """What would be needed by the deployment guide of the system that Lipwire replaces, which plans
    with GPUs of the type RTX 4090: ``gpus_for_memory``, the number of GPUs whose memory holds a
    network for each user; ``gpus_for_speed``, the number of GPUs that make the frames of those who
    talk; and the memory for all users, in GB, where it holds all their frames (``memory_gb``), or
    only a cache of frames (``cached_memory_gb``)."""

    gpus_for_memory: int
    gpus_for_speed: int
    memory_gb: float
    cached_memory_gb: float

    @property
    def gpus(self) -> int:
        """How many GPUs are needed by that guide: the larger one of ``gpus_for_memory`` and
        ``gpus_for_speed``."""
        return max(self.gpus_for_memory, self.gpus_for_speed)


def guides_plan(users: int, talking: float, fps: float) -> GuidesPlan:
    """Return what would be needed for ``users`` people, each with an avatar, by the rules of the
    deployment guide of the system that Lipwire replaces (for comparison with ``make_plan``).
    ``talking`` is how many of them (a number, not a share) talk at once; each sees ``fps`` frames a
    second."""
    return GuidesPlan(
        gpus_for_memory=math.ceil(users * NETWORK_MB / (GPU_GB * 1000)),
        gpus_for_speed=math.ceil(talking * fps / GPU_FRAMES_A_SECOND),
        memory_gb=users * USER_MB / 1000,
        cached_memory_gb=users * CACHED_USER_MB / 1000,
    )
