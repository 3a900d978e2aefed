"""A performance: speech and an avatar in, frames out, computed ahead and delivered in order."""

from lipwire.session.offline import MouthBatch, animate
from lipwire.session.performer import Performer
from lipwire.session.timing import Stage, StageTime, Stopwatch

__all__ = ["MouthBatch", "Performer", "Stage", "StageTime", "Stopwatch", "animate"]
