"""How good an avatar is: its mouth against the truth, and against speech alone."""

from lipwire.evaluation.judging import evaluate
from lipwire.evaluation.material import (
    Index,
    Interior,
    Material,
    SequenceEntry,
    Viseme,
    read_material,
    write_index,
)
from lipwire.evaluation.renderer import CONTROLS_TENSOR
from lipwire.evaluation.report import Bar, Report
from lipwire.evaluation.stage import Progress

__all__ = [
    "CONTROLS_TENSOR",
    "Bar",
    "Index",
    "Interior",
    "Material",
    "Progress",
    "Report",
    "SequenceEntry",
    "Viseme",
    "evaluate",
    "read_material",
    "write_index",
]
