"""How good an avatar is: its mouth compared with the truth, or with the speech alone."""

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

__all__ = [
    "CONTROLS_TENSOR",
    "Bar",
    "Index",
    "Interior",
    "Material",
    "Report",
    "SequenceEntry",
    "Viseme",
    "evaluate",
    "read_material",
    "write_index",
]
