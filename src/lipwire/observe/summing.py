"""The numbers of several processes of a server as those of one.

Counters go on where a process has ended and another has taken its place: what it had counted when
it was last asked stays in the sum.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from lipwire.observe.metrics import STARTED

_LARGEST: Final = frozenset(
    {
        "lipwire_build_info",
        "lipwire_cores",
        "lipwire_sessions_capacity",
        "lipwire_gpu_utilization_ratio",
        "lipwire_gpu_memory_used_bytes",
        "lipwire_gpu_memory_bytes",
        "lipwire_gpu_lost",
        "lipwire_inference_server_up",
        "lipwire_web_loop_lag_seconds",
        STARTED,
        "process_start_time_seconds",
        "process_max_fds",
    }
)
"""Numbers of which the largest counts; others are added up."""
_GROWING: Final = ("counter", "histogram", "summary")

_Key = tuple[str, tuple[tuple[str, str], ...]]


class Summed(Collector):
    """Adds up the metrics of a server's processes: give them to ``take``; ``collect`` returns the
    sums for a Prometheus registry. Counters and histograms are added up, also those of processes
    that have ended. Of other numbers the current values are added up, or the largest is returned
    where a sum says nothing, such as for start times. Not thread-safe."""

    def __init__(self) -> None:
        self._last: dict[int, dict[_Key, float]] = {}
        """What each process had counted when it was last asked."""
        self._started: dict[int, float] = {}
        """When each process had begun."""
        self._ended: dict[_Key, float] = {}
        """What processes had counted that have ended since."""
        self._families: dict[str, Metric] = {}

    def take(self, texts: Mapping[int, bytes]) -> None:
        """Make new sums of ``texts``: for each process, by its number, the text that its
        ``ServerMetrics.read`` returns now. Of a process that is not in ``texts``, counters and
        histograms count as they were when it was last in, and other numbers do not count."""
        sums: dict[str, dict[_Key, float]] = {}
        families: dict[str, Metric] = {}
        for number, text in texts.items():
            counted: dict[_Key, float] = {}
            started_s = 0.0
            for family in text_string_to_metric_families(text.decode()):
                families.setdefault(family.name, family)
                into = sums.setdefault(family.name, {})
                for sample in family.samples:
                    started_s = sample.value if family.name == STARTED else started_s
                    key = (sample.name, tuple(sample.labels.items()))
                    if family.type in _GROWING:
                        counted[key] = sample.value
                    elif family.name in _LARGEST:
                        into[key] = max(sample.value, into.get(key, sample.value))
                    else:
                        into[key] = into.get(key, 0.0) + sample.value
            self._note(number, started_s, counted)
        families = self._families | families
        grown = dict(self._ended)
        for counted in self._last.values():
            for key, value in counted.items():
                grown[key] = grown.get(key, 0.0) + value
        for (name, labels), value in grown.items():
            sums.setdefault(_family_of(name, families), {})[name, labels] = value
        self._families = {name: _with(families[name], sums.get(name, {})) for name in families}

    def collect(self) -> Iterable[Metric]:
        """Return the sums that ``take`` made last, one metric for each name; none before the first
        ``take``."""
        return [family for family in self._families.values() if family.samples]

    def _note(self, number: int, started_s: float, counted: dict[_Key, float]) -> None:
        """Keep what process ``number``, which began at ``started_s``, has counted."""
        if self._started.get(number) != started_s:
            for key, value in self._last.get(number, {}).items():
                self._ended[key] = self._ended.get(key, 0.0) + value
        self._started[number] = started_s
        self._last[number] = counted


def _family_of(name: str, families: Mapping[str, Metric]) -> str:
    """The family that a sample called ``name`` is of."""
    if name in families:
        return name
    for ending in ("_total", "_bucket", "_count", "_sum", "_created"):
        if name.endswith(ending) and name.removesuffix(ending) in families:
            return name.removesuffix(ending)
    raise KeyError(name)


def _with(family: Metric, values: Mapping[_Key, float]) -> Metric:
    """``family`` with ``values`` as its samples."""
    made = Metric(family.name, family.documentation, family.type)
    made.samples = [Sample(name, dict(labels), value) for (name, labels), value in values.items()]
    return made
