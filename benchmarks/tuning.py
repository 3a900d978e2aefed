"""What `output.jpeg_quality` changes: `python benchmarks/tuning.py [ROUNDS]`.

Frames of the demo avatar with their own mouths, composed at each quality in turns, on one core:
milliseconds a frame, of which the JPEG, and bytes. Medians of all rounds.
"""

import os
import sys
from statistics import median
from typing import Final

from lipwire.avatars import Avatar, FrameObserver, find_avatar

QUALITIES: Final = (65, 75, 85)
FRAMES: Final = 60


class Times(FrameObserver):
    """Keeps how long frames took."""

    def __init__(self) -> None:
        self.whole_s: list[float] = []
        self.jpeg_s: list[float] = []

    def composed(self, seconds: float, jpeg_s: float | None = None) -> None:
        """Keep the times of one frame."""
        self.whole_s.append(seconds)
        self.jpeg_s.append(jpeg_s or 0.0)


def main(rounds: int) -> None:
    """Measure, and print a table."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    avatars = {
        q: Avatar.open(find_avatar("demo"), parts=frozenset({"jpeg"}), quality=q) for q in QUALITIES
    }
    mouths = avatars[QUALITIES[0]].crops(0, FRAMES)
    times = {quality: Times() for quality in QUALITIES}
    sizes: dict[int, list[int]] = {quality: [] for quality in QUALITIES}
    for number in range(rounds + 1):
        for quality, avatar in avatars.items():
            avatar.observer = times[quality] if number else FrameObserver()  # the first warms up
            for frame in range(FRAMES):
                sizes[quality].append(len(avatar.jpeg(frame, mouths[frame])))
    print("quality  ms a frame  JPEG of it  kB a frame")
    for quality, each in times.items():
        whole, jpeg = (1000 * median(values) for values in (each.whole_s, each.jpeg_s))
        print(f"{quality:7}  {whole:10.3f}  {jpeg:10.3f}  {median(sizes[quality]) / 1000:10.1f}")
    for avatar in avatars.values():
        avatar.close()


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 9)
