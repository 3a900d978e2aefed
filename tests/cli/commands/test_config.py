from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import typer

from lipwire.cli.commands import config
from lipwire.cli.exits import EXIT_FAILED
from lipwire.domain import InvalidInput, NotFound

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cli.conftest import Lipwire

GUIDE = Path(__file__).parents[2] / "config" / "guide"


@pytest.fixture(autouse=True)
def nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the tests set for servers would be told."""
    monkeypatch.delenv("LIPWIRE_ONNX__PRECISION")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """``run("check", file)`` gives the exit code and what was printed."""

    def command(*arguments: object) -> tuple[int, str]:
        capsys.readouterr()
        code = config.app([str(argument) for argument in arguments], standalone_mode=False)
        return int(code or 0), capsys.readouterr().out

    return command


def test_a_sound_file_is_ok_with_its_notes(
    run: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIPWIRE_SERVER__PORT", "6000")
    code, out = run("check", GUIDE / "inference.yaml")
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == "note: LIPWIRE_SERVER__PORT sets server.port"
    assert lines[1].startswith("note: onnx.library_path is not used")
    assert lines[-1] == f"{GUIDE / 'inference.yaml'} is ok, for the inference server"


def test_every_problem_is_listed(run: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("output:\n  format: png\n  jpeg_quality: 0\nmodels: {a: {path: nowhere}}\n")
    code, out = run("check", path)
    assert code == EXIT_FAILED
    assert out.splitlines() == [
        "error: line 2: output.format is png; allowed is jpeg, raw or h264",
        "error: line 3: output.jpeg_quality is 0; allowed is 1 to 100",
        f"{path} cannot be used: 2 errors",
    ]
    document = json.loads(run("check", path, "--json")[1])
    assert (document["valid"], document["kind"]) == (False, "compositing")
    assert [problem["line"] for problem in document["problems"]] == [2, 3]


def test_folders_that_are_not_there_are_notes(
    run: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("models_root: .\nmodels: {a: {path: nowhere}}\n")
    code, out = run("check", path, "--kind", "compositing")
    assert code == 0
    assert out.splitlines()[0] == f"note: models.a: there is nothing at {tmp_path / 'nowhere'}"
    assert len(out.splitlines()) == 2


def test_whose_file_it_is_has_to_be_known(
    run: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("server: {port: 1}\n")
    with pytest.raises(InvalidInput, match="add --kind inference or --kind compositing"):
        run("check", path)
    with pytest.raises(NotFound):
        run("check", tmp_path / "nowhere.yaml")


def test_a_file_cannot_write_to_the_terminal(
    run: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text('gpus: {"\\e[31m": "\\e[31m", count: "\\e[2J"}\n"a\\nb": 1\n')
    _, out = run("check", path)
    assert "\x1b" not in out
    assert len(out.splitlines()) == 4


def test_the_schema_is_json_yaml_or_a_table(run: Callable[..., tuple[int, str]]) -> None:
    assert json.loads(run("schema", "--kind", "inference")[1])["type"] == "object"
    assert "\nserver:\n" in run("schema", "--kind", "compositing", "--yaml")[1]
    assert "| `output.format` |" in run("schema", "--kind", "compositing", "--markdown")[1]
    with pytest.raises(InvalidInput, match="allowed is one of them"):
        run("schema", "--kind", "compositing", "--markdown", "--yaml")


def test_the_module_is_cheap_to_import() -> None:
    """Every command imports it; what a configuration needs comes when one is read."""
    code = (
        "import sys, lipwire.cli.commands.config, lipwire.config\n"
        "print([name for name in ('pydantic', 'yaml', 'numpy') if name in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"


def test_the_commands_belong_to_a_typer_app() -> None:
    assert isinstance(config.app, typer.Typer)
    assert {command.name for command in config.app.registered_commands} == {"check", "schema"}


def test_exit_codes_of_the_whole_command(lipwire: Lipwire, tmp_path: Path) -> None:
    assert lipwire("config", "check", GUIDE / "compositing.yaml").code == 0
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("output: {format: png}\n")
    assert lipwire("config", "check", wrong).code == EXIT_FAILED
    missing = lipwire("config", "check", tmp_path / "nowhere.yaml")
    assert (missing.code, missing.err.count("\n"), missing.out) == (2, 1, "")
