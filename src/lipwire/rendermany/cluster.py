"""Workers as actors of a Ray cluster."""

import importlib
import os
from typing import Any, Final

import lipwire
from lipwire.domain import DependencyMissing, InvalidInput, Unavailable
from lipwire.rendermany.jobs import RenderJob, RenderSettings
from lipwire.rendermany.workers import Happened, JobResult, JobWorker

_LOST_AT_START: Final = 10


class RayWorkers:
    """Workers as actors of a Ray cluster, one core each (``Workers``). Every node has to have this
    version of Lipwire, and to see avatars, recordings and videos under the same paths. For one
    thread; whoever makes it calls ``close``."""

    def __init__(self, address: str, settings: RenderSettings, *, count: int | None = None) -> None:
        """Connect to the cluster at ``address`` ("HOST:PORT", or "auto" for the one that this
        machine is a node of) and ask it for ``count`` workers, which make videos as ``settings``
        say; with None, one for each core of the cluster. Does not wait until they are ready.

        Raises DependencyMissing where Ray is not installed, Unavailable where the cluster does not
        answer, InvalidInput where ``address`` is not such a text.
        """
        self._ray = _ray()
        try:
            self._ray.init(address, log_to_driver=False, configure_logging=False)
        except ValueError as error:
            raise InvalidInput(f"the address {address[:80]} of the cluster: {error}") from None
        except (ConnectionError, RuntimeError) as error:
            line = str(error).splitlines()[0]
            raise Unavailable(f"the Ray cluster at {address} does not answer: {line}") from None
        self._actor = self._ray.remote(num_cpus=1, max_restarts=0)(_Actor)
        self._settings = settings
        self._all: dict[str, Any] = {}
        self._waited: dict[Any, str] = {}
        """What workers do now, as Ray refers to it, and the worker of each."""
        self._ready: set[str] = set()
        self._started = self._lost_at_start = 0
        cores = int(self._ray.cluster_resources().get("CPU", 0))
        for _ in range(count or max(1, cores)):
            self._start()

    def happened(self, timeout_s: float) -> list[Happened]:
        """Return what has happened to workers since the last call. Waits at most ``timeout_s``
        seconds until something does; returns an empty list where nothing did. Raises Unavailable
        where workers end as soon as they are started, or are of another version of Lipwire."""
        done, _ = self._ray.wait(list(self._waited), num_returns=len(self._waited), timeout=0.0)
        if not done:
            done, _ = self._ray.wait(list(self._waited), num_returns=1, timeout=timeout_s)
        return [self._one(each, self._waited.pop(each)) for each in done]

    def give(self, worker: str, job: RenderJob) -> None:
        """Have the worker of the name ``worker`` render ``job``, and return at once; ``happened``
        reports the end. ``worker`` is a name that ``happened`` has reported as ready or finished;
        the worker has no job now. Raises KeyError for any other name."""
        self._waited[self._all[worker].run.remote(job)] = worker

    def close(self) -> None:
        """End all workers and what they do, and disconnect from the cluster. Closing twice is
        allowed."""
        for actor in self._all.values():
            self._ray.kill(actor)
        self._all.clear()
        self._waited.clear()
        self._ray.shutdown()

    def _start(self) -> None:
        self._started += 1
        name = f"worker {self._started}"
        self._all[name] = self._actor.remote(self._settings)
        self._waited[self._all[name].version.remote()] = name

    def _one(self, done: Any, worker: str) -> Happened:
        try:
            result = self._ray.get(done)
        except self._ray.exceptions.RayError as error:
            return self._lose(worker, str(error).splitlines()[0])
        if isinstance(result, JobResult):
            return Happened(worker, "finished", result)
        if result != lipwire.__version__:
            raise Unavailable(
                f"a node of the cluster has Lipwire {result}, and this is {lipwire.__version__}"
            )
        self._ready.add(worker)
        self._lost_at_start = 0
        return Happened(worker, "ready")

    def _lose(self, worker: str, reason: str) -> Happened:
        self._ray.kill(self._all.pop(worker))
        if worker not in self._ready:
            self._lost_at_start += 1
            if self._lost_at_start >= _LOST_AT_START:
                raise Unavailable(f"workers end as soon as they are started: {reason}")
        self._ready.discard(worker)
        self._start()
        return Happened(worker, "lost", reason=reason)


class _Actor:
    """A worker, where Ray has placed it."""

    def __init__(self, settings: RenderSettings) -> None:
        self._worker = JobWorker(settings)

    def version(self) -> str:
        return lipwire.__version__

    def run(self, job: RenderJob) -> JobResult:
        return self._worker.run(job)


def _ray() -> Any:
    # Before it is imported: it would send what it is used for to its makers.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        return importlib.import_module("ray")
    except ImportError:
        raise DependencyMissing(
            'Ray is not installed; pip install "lipwire[ray]" brings it'
        ) from None
