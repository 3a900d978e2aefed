"""What an evaluation found: figures, the bars they are held against, and pictures."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Bar:
    """A measured figure and its limit: ``value`` has to be at least, or at most (``sense``), the
    ``limit``; both are in ``unit``, which is empty for a plain number. A value that could not be
    measured is NaN."""

    name: str
    value: float
    limit: float
    sense: Literal["at least", "at most"]
    unit: str = ""

    @property
    def passed(self) -> bool:
        """Whether the figure is within its limit; one that could not be measured (NaN) is not."""
        if math.isnan(self.value):
            return False
        return self.value >= self.limit if self.sense == "at least" else self.value <= self.limit

    def line(self) -> str:
        """Return whether the figure passes, its name, value and limit, as one line for a person."""
        unit = f" {self.unit}" if self.unit else ""
        verdict = "PASS" if self.passed else "FAIL"
        return f"{verdict}  {self.name}: {self.value:.3g}{unit} ({self.sense} {self.limit:g}{unit})"


@dataclass(frozen=True, slots=True)
class Report:
    """What the evaluation of one avatar found: how many ``frames`` were looked at, the ``bars``,
    which are figures with limits, further ``figures`` by sequence and then by name, and the paths
    of the ``pictures`` that were drawn."""

    avatar: str
    frames: int
    bars: tuple[Bar, ...]
    figures: dict[str, dict[str, float]]
    pictures: tuple[Path, ...]

    @property
    def passed(self) -> bool:
        """Whether every figure is within its limit."""
        return all(bar.passed for bar in self.bars)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as a dictionary for JSON; what could not be measured is None, measured
        numbers are rounded to four decimals."""
        return {
            "avatar": self.avatar,
            "frames": self.frames,
            "passed": self.passed,
            "bars": [
                {
                    "name": bar.name,
                    "value": _finite(bar.value),
                    "limit": bar.limit,
                    "sense": bar.sense,
                    "unit": bar.unit,
                    "passed": bar.passed,
                }
                for bar in self.bars
            ],
            "figures": {
                name: {key: _finite(value) for key, value in values.items()}
                for name, values in self.figures.items()
            },
            "pictures": [str(path) for path in self.pictures],
        }


def _finite(value: float) -> float | None:
    return round(value, 4) if math.isfinite(value) else None
