"""Figures say where they come from."""

import json
from pathlib import Path

import pytest

from lipwire.domain import InvalidInput
from lipwire.planning.figures import NAMES, figures

DENSITY = {
    "machine": {"processor": "AMD EPYC"},
    "density": [{"cores": 4, "mouths_a_second": 80.0, "besides_share": 0.1}],
}
LIVE = {
    "machine": {"processor": "AMD EPYC"},
    "live": [
        {
            "runner": "processor",
            "figures": [
                {"what": "first frame, cold", "p50_ms": 285.0},
                {"what": "first frame, warm", "p50_ms": 7.0},
            ],
        }
    ],
}


def written(path: Path, document: object) -> Path:
    path.write_text(json.dumps(document))
    return path


def test_all_figures_are_there_with_their_kind() -> None:
    for on_gpu in (True, False):
        found = figures({}, on_gpu=on_gpu)
        assert set(found) == set(NAMES)
        assert all(figure.why for figure in found.values())
    assert figures({}, on_gpu=True)["frame_ms"].kind == "guide"
    assert figures({}, on_gpu=False)["frame_ms"].kind == "measured"


def test_what_is_given_counts() -> None:
    found = figures({"frame_ms": 2.0, "cores": None}, on_gpu=True)
    assert (found["frame_ms"].value, found["frame_ms"].kind) == (2.0, "given")
    assert found["cores"].kind == "assumed"


def test_what_was_measured_here_counts_before_the_documentation(tmp_path: Path) -> None:
    density = written(tmp_path / "density.json", DENSITY)
    found = figures({}, on_gpu=False, density=density)
    assert found["frame_ms"].value == pytest.approx(50.0)  # 20 mouths a second and core
    assert found["besides_share"].value == pytest.approx(0.1)
    assert "AMD EPYC" in found["frame_ms"].why
    on_gpu = figures({}, on_gpu=True, density=density)
    assert on_gpu["frame_ms"].kind == "guide"
    assert on_gpu["besides_share"].value == pytest.approx(0.1)


def test_a_load_is_what_a_cold_first_frame_takes_longer(tmp_path: Path) -> None:
    found = figures({}, on_gpu=False, live=written(tmp_path / "live.json", LIVE))
    assert found["load_ms"].value == pytest.approx(278.0)


@pytest.mark.parametrize(
    "document", [{}, [], {"density": []}, {"density": [{"cores": 2, "mouths_a_second": 0}]}]
)
def test_another_file_is_refused(tmp_path: Path, document: object) -> None:
    path = written(tmp_path / "other.json", document)
    with pytest.raises(InvalidInput, match=r"is no result; wanted is .*bench density --json"):
        figures({}, on_gpu=False, density=path)
    with pytest.raises(InvalidInput, match=r"is no result; wanted is .*bench live --json"):
        figures({}, on_gpu=False, live=path)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="cannot be read: No such file"):
        figures({}, on_gpu=False, density=tmp_path / "none.json")


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_figures_out_of_range_are_refused(value: float) -> None:
    with pytest.raises(InvalidInput, match="--frame-ms is"):
        figures({"frame_ms": value}, on_gpu=False)
