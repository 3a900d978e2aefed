from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from lipwire.bench import Comparison
from lipwire.cli.bench import ROUNDS, Subject

if TYPE_CHECKING:
    from tests.cli.conftest import Lipwire

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
    document = json.loads(lipwire("bench", Subject.ALL.value, "--json", "--quick").out)
    assert [each["subject"] for each in document["comparisons"]] == [s.value for s in ROUNDS]
    assert document["comparisons"][0]["ratio"] == 4.0
    assert document["machine"]["cores"] >= 1
