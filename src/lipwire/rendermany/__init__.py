"""Many renders from a table, on this machine's cores or on a Ray cluster: each once, however often
it is interrupted."""

from lipwire.rendermany.dispatch import Dispatch
from lipwire.rendermany.jobs import RenderJob, RenderSettings, read_jobs
from lipwire.rendermany.ledger import Ledger
from lipwire.rendermany.local import LocalWorkers
from lipwire.rendermany.run import Failure, RunSummary, render_many
from lipwire.rendermany.workers import Happened, Workers

__all__ = [
    "Dispatch",
    "Failure",
    "Happened",
    "Ledger",
    "LocalWorkers",
    "RenderJob",
    "RenderSettings",
    "RunSummary",
    "Workers",
    "read_jobs",
    "render_many",
]
