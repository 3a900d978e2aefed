"""Requests of many callers, put in order and run on a few threads.

The scheduler is given a callable that runs them, so nothing here depends on networks.
"""

from lipwire.scheduling.jobs import Across, Array, Job
from lipwire.scheduling.scheduler import MAX_RUN_FRAMES, Scheduler
from lipwire.scheduling.schedulerstats import ClassStats, Observer, Quantiles, SchedulerStats

__all__ = [
    "MAX_RUN_FRAMES",
    "Across",
    "Array",
    "ClassStats",
    "Job",
    "Observer",
    "Quantiles",
    "Scheduler",
    "SchedulerStats",
]
