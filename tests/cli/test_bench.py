from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from lipwire.bench import Comparison
from lipwire.bench.serve import Besides, Load, Spread
from lipwire.cli.bench import ROUNDS, Subject

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
