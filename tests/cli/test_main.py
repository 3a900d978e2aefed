from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lipwire import __version__
from lipwire.cli.main import describe, main
from lipwire.domain import AvatarInvalid, InvalidInput, NotFound, StorageFailed

if TYPE_CHECKING:
    from tests.cli.conftest import Lipwire


@pytest.mark.parametrize(
    ("error", "line", "code"),
    [
        (InvalidInput("crf is 99"), "error: crf is 99", 2),
        (NotFound("no avatar"), "error: no avatar", 2),
        (AvatarInvalid("broken"), "error: broken", 1),
        (StorageFailed("full"), "error: full", 1),
        (
            OSError(errno.ENOSPC, "No space left on device", "a.mp4"),
            "error: no space left on device: a.mp4",
            1,
        ),
        (MemoryError(), "error: out of memory", 1),
        (InvalidInput("two\nlines"), "error: two lines", 2),
        (
            ZeroDivisionError("by zero"),
            "error: a fault in lipwire, ZeroDivisionError: by zero (LIPWIRE_DEBUG=1 shows where)",
            1,
        ),
    ],
)
def test_every_error_is_one_line_and_a_code(error: Exception, line: str, code: int) -> None:
    assert describe(error) == (line, code)


def test_a_traceback_only_on_request(lipwire: Lipwire, tmp_path: Path) -> None:
    outcome = lipwire("avatar", "info", tmp_path / "nobody")
    assert outcome.code == 2
    assert outcome.err.count("\n") == 1
    assert outcome.err.startswith("error: no avatar at ")
    assert outcome.out == ""
    with pytest.raises(NotFound):
        main(["--debug", "avatar", "info", str(tmp_path / "nobody")])


@pytest.mark.parametrize("arguments", [["--version"], ["version"]])
def test_the_version_is_shown(lipwire: Lipwire, arguments: list[str]) -> None:
    outcome = lipwire(*arguments)
    assert outcome.code == 0
    assert outcome.out.startswith(f"lipwire {__version__}\n")


@pytest.mark.parametrize("arguments", [["rendr"], ["render"], ["bench", "speed"], ["--nope"]])
def test_bad_usage_is_told_with_code_2(lipwire: Lipwire, arguments: list[str]) -> None:
    outcome = lipwire(*arguments)
    assert outcome.code == 2
    assert "Usage: lipwire" in outcome.err
    assert "Traceback" not in outcome.err


COMMANDS = [
    [],
    ["render"],
    ["bench"],
    ["version"],
    ["avatar"],
    ["avatar", "list"],
    ["avatar", "info"],
    ["avatar", "validate"],
    ["avatar", "compile"],
    ["avatar", "evaluate"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_explains_itself(lipwire: Lipwire, command: list[str]) -> None:
    outcome = lipwire(*command, "--help")
    assert outcome.code == 0
    assert "Usage: lipwire" in outcome.out
    assert "``" not in outcome.out


def test_help_loads_nothing_heavy() -> None:
    """Importing these takes most of a second; help and completion have to be quick."""
    script = """
import sys
from lipwire.cli.main import main
try:
    main(["render", "--help"])
except SystemExit:
    pass
heavy = {"numpy", "cv2", "av", "onnx", "onnxruntime", "soxr", "torch"}
print("LOADED", sorted(heavy & sys.modules.keys()))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=300
    )
    assert "LOADED []" in done.stdout


def test_a_reader_that_goes_away_is_no_error() -> None:
    command = f"{sys.executable} -m lipwire render --help | head -c 1"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, check=True, timeout=300
    )
    assert done.stderr == ""
