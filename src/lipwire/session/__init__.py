"""A performance: speech and an avatar in, frames out, computed ahead and delivered in order."""

from lipwire.session.offline import MouthBatch, animate
from lipwire.session.performer import Performer
from lipwire.session.render import Pace, Progress, render_frames, render_video
from lipwire.session.soundtrack import Track, track_of_file, track_of_pcm
from lipwire.session.timing import Stage, StageTime, Stopwatch

__all__ = [
    "MouthBatch",
    "Pace",
    "Performer",
    "Progress",
    "Stage",
    "StageTime",
    "Stopwatch",
    "Track",
    "animate",
    "render_frames",
    "render_video",
    "track_of_file",
    "track_of_pcm",
]
