"""`lipwire avatar evaluate`."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lipwire import evaluation
from lipwire.evaluation import Bar, Report

Lipwire = Callable[..., Any]


def report(value: float) -> Report:
    bar = Bar("mouth region", value, 32.0, "at least", "dB")
    return Report("anna\x1b[2J", 25, (bar,), {"all": {"frames": 25.0}}, (Path("opening.png"),))


def pretend(monkeypatch: pytest.MonkeyPatch, value: float) -> dict[str, Any]:
    """Evaluations give ``value``; what they are asked with is noted."""
    asked: dict[str, Any] = {}

    def evaluate(avatar: str, out: Path, **options: Any) -> Report:
        asked.update(avatar=avatar, out=out, **options)
        return report(value)

    monkeypatch.setattr(evaluation, "evaluate", evaluate)
    return asked


def test_the_bars_are_printed_and_passing_is_success(
    lipwire: Lipwire, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = pretend(monkeypatch, 36.0)
    outcome = lipwire("avatar", "evaluate", "anna", "-o", "there")

    assert outcome.code == 0
    assert "PASS  mouth region: 36 dB (at least 32 dB)" in outcome.out
    assert "\x1b[2J" not in outcome.out
    assert (asked["avatar"], asked["out"], asked["audio"]) == ("anna", Path("there"), None)


def test_a_missed_bar_is_failure(lipwire: Lipwire, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, 30.0)
    outcome = lipwire("avatar", "evaluate", "anna")

    assert outcome.code == 1
    assert "FAIL  mouth region" in outcome.out


def test_json_has_every_figure(lipwire: Lipwire, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, float("nan"))
    outcome = lipwire("avatar", "evaluate", "anna", "--json")

    document = json.loads(outcome.out)
    assert outcome.code == 1
    assert document["bars"][0] == {
        "name": "mouth region",
        "value": None,
        "limit": 32.0,
        "sense": "at least",
        "unit": "dB",
        "passed": False,
    }


def test_an_avatar_without_material_is_told_what_to_do(
    lipwire: Lipwire, avatar_package: Path, tmp_path: Path
) -> None:
    outcome = lipwire("avatar", "evaluate", avatar_package, "-o", tmp_path / "out")

    assert outcome.code == 2
    assert outcome.err.count("\n") == 1
    assert "--audio FILE" in outcome.err
    assert not (tmp_path / "out").exists()


def test_a_recording_that_is_none_leaves_nothing(
    lipwire: Lipwire, avatar_package: Path, tmp_path: Path
) -> None:
    (tmp_path / "noise.wav").write_bytes(b"no sound")
    outcome = lipwire(
        "avatar",
        "evaluate",
        avatar_package,
        "--audio",
        tmp_path / "noise.wav",
        "-o",
        tmp_path / "o",
    )

    assert outcome.code == 2
    assert "noise.wav" in outcome.err
    assert not (tmp_path / "o").exists()
