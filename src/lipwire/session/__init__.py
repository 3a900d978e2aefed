"""A render: from a recording and an avatar to frames, computed ahead in threads and given in
order."""

from lipwire.session.offline import MouthBatch, animate
from lipwire.session.performer import Performer, Performing
from lipwire.session.render import Pace, render_frames, render_video
from lipwire.session.timing import Stage, StageTime, Stopwatch

__all__ = [
    "MouthBatch",
    "Pace",
    "Performer",
    "Performing",
    "Stage",
    "StageTime",
    "Stopwatch",
    "animate",
    "render_frames",
    "render_video",
]
