from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lipwire.bench import Comparison
from lipwire.bench.chaos import Chaos, Plan
from lipwire.bench.chaos.watch import Held
from lipwire.bench.footprint import Growth
from lipwire.bench.gpu import GpuReport, Part
from lipwire.bench.serve import Besides, Load, Spread
from lipwire.cli.commands.bench import ROUNDS, Subject

if TYPE_CHECKING:
    from tests.cli.conftest import Lipwire

SPREAD = Spread(4.0, 9.0)
LOAD = Load(2, 24, 6, SPREAD, SPREAD, SPREAD, SPREAD, fps=48.0)
RESULT = Comparison("a thing", "our way", "plain way", 2.0, 8.0, 2.5, 9.0, 4.0, 3, "note")


def test_every_subject_has_its_module() -> None:
    from importlib import import_module

    for subject in ROUNDS:
        assert callable(import_module(f"lipwire.bench.{subject.value}").run)


@pytest.mark.parametrize("arguments", [["--quick"], ["--rounds", "3"]])
def test_both_sides_and_the_machine_are_shown(
    lipwire: Lipwire, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    asked: list[int] = []

    def run(rounds: int) -> list[Comparison]:
        asked.append(rounds)
        return [RESULT]

    monkeypatch.setattr("lipwire.bench.compose.run", run)
    outcome = lipwire("bench", "compose", *arguments)
    assert (outcome.code, asked) == (0, [3])
    for shown in ("a thing", "our way", "plain way", "2 ms", "8 ms", "4.00x", "note", "Python"):
        assert shown in outcome.out


def test_all_subjects_are_json(lipwire: Lipwire, monkeypatch: pytest.MonkeyPatch) -> None:
    for subject in ROUNDS:
        monkeypatch.setattr(f"lipwire.bench.{subject.value}.run", lambda rounds: [RESULT])
    monkeypatch.setattr("lipwire.bench.serve.run_table", lambda *_, **__: [LOAD])
    monkeypatch.setattr("lipwire.bench.serve.run_besides", lambda *_, **__: Besides(12.5, 12.0))
    document = json.loads(lipwire("bench", Subject.ALL.value, "--json", "--quick").out)
    assert [each["subject"] for each in document["comparisons"]] == [s.value for s in ROUNDS]
    assert document["comparisons"][0]["ratio"] == 4.0
    assert document["machine"]["cores"] >= 1
    assert document["serve"]["loads"][0]["total"]["p99_ms"] == 9.0
    assert document["serve"]["network_ms"] == 12.0


def test_servers_have_the_guides_table(lipwire: Lipwire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lipwire.bench.serve.run", lambda rounds: [RESULT])
    monkeypatch.setattr("lipwire.bench.serve.run_table", lambda *_, **__: [LOAD])
    monkeypatch.setattr("lipwire.bench.serve.run_besides", lambda *_, **__: Besides(12.5, 12.0))
    outcome = lipwire("bench", "serve", "--quick")
    assert outcome.code == 0
    for shown in ("4.0 / 9.0", "0.17", "48.0", "0.50 ms of a core a frame besides the network"):
        assert shown in outcome.out


def test_a_gpus_report_has_its_tables_and_its_problems(
    lipwire: Lipwire, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[tuple[object, ...]] = []

    def run(
        *, limit_s: float, quick: bool, out: Path | None, tell: Callable[[Part], None]
    ) -> GpuReport:
        asked.append((limit_s, quick, out))
        parts = [
            Part("speed", "frames", 2.0, [{"batch": 24, "ms a frame": 0.125}], "CUDA failure 2")
        ]
        for part in parts:
            tell(part)
        return GpuReport({"device": "cuda:0", "gpu": "NVIDIA H200"}, parts)

    monkeypatch.setattr("lipwire.bench.gpu.run_gpu", run)
    outcome = lipwire("bench", "gpu", "--seconds", "60", "--out", str(tmp_path / "gpu.json"))
    assert outcome.code == 0
    for shown in ("0.125", "ms a frame", "speed: CUDA failure 2", "gpu NVIDIA H200"):
        assert shown in outcome.out
    document = json.loads(lipwire("bench", "gpu", "--json", "--quick").out)
    assert document["parts"][0]["rows"] == [{"batch": 24, "ms a frame": 0.125}]
    assert asked == [(60.0, False, tmp_path / "gpu.json"), (480.0, True, None)]


def test_without_a_gpu_one_line_says_why(lipwire: Lipwire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lipwire.bench.gpu.cuda_problem", lambda device: "there is no driver")
    outcome = lipwire("bench", "gpu")
    assert outcome.code == 1
    assert outcome.err.splitlines() == [
        "error: bench gpu needs a GPU, and cuda:0 cannot be used: there is no driver"
    ]


@pytest.mark.parametrize(("wrong", "code"), [([], 0), (["anna: frame 3 of 24 is bert"], 1)])
def test_chaos_fails_where_a_frame_is_wrong(
    lipwire: Lipwire, monkeypatch: pytest.MonkeyPatch, wrong: list[str], code: int
) -> None:
    held = Held("compositing", 300.0, 200.0, {"threads": Growth(20.0, 24.0, 0.5)})
    found = Chaos(60.0, 1875, 45_000, {"right": 1875, "killed": 7}, [held], wrong, [], [])
    asked: list[Plan] = []

    def run(plan: Plan, **_: object) -> Chaos:
        asked.append(plan)
        return found

    monkeypatch.setattr("lipwire.bench.chaos.run_chaos", run)
    options = ["--minutes", "7", "--seed", "3", "--rate", "5", "--replace-packages"]
    outcome = lipwire("bench", "chaos", *options)
    assert outcome.code == code
    assert asked == [Plan(minutes=7.0, seed=3, rate=5.0, replace_packages=True)]
    for shown in ("1875 requests", "0.50 hours", "7 killed", "threads: 20", f"{code} problems"):
        assert shown in outcome.out
    assert all(line in outcome.out for line in wrong)
    document = json.loads(lipwire("bench", "chaos", "--quick", "--json").out)
    assert asked[-1].minutes < 0.1
    assert len(document["chaos"]["problems"]) == code
