from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.support.quickfirst import quick_first

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


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_reader_that_goes_away_is_no_error() -> None:
    command = f"{sys.executable} -m lipwire render --help | head -c 1"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, check=True, timeout=300
    )
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "before"),
    [
        (["serve", "--models-root", ""], "--models-root"),
        (["serve", "--config="], "--config"),
        (["inference-server", "-c", ""], "-c"),
        (["compositing-server", "--inference", ""], "--inference"),
        (["up", "--save", ""], "--save"),
        (["render", "demo", "speech.wav", "-o", ""], "-o"),
        (["render", "demo", "speech.wav", "--frames", ""], "--frames"),
        (["render", "demo", "", "-o", "x.mp4"], "demo"),
        (["render", "", "speech.wav", "-o", "x.mp4"], "render"),
        (["avatar", "info", ""], "info"),
        (["config", "check", ""], "check"),
        (["client", "", "--address", "127.0.0.1:1"], "client"),
        ([""], "lipwire"),
    ],
)
def test_an_empty_text_is_refused(
    lipwire: Lipwire,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    before: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = lipwire(*arguments)
    assert (outcome.code, outcome.out, outcome.err) == (
        2,
        "",
        f"error: an empty text follows {before}; leave it out or name a value\n",
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("place", [0, 1, 2, 3])
def test_options_of_all_commands_stand_anywhere(
    lipwire: Lipwire, avatar_package: Path, monkeypatch: pytest.MonkeyPatch, place: int
) -> None:
    monkeypatch.setenv("LIPWIRE_ALLOW_LINKS_OUTSIDE", "")
    rects = avatar_package / "crop_rects.json"
    rects.rename(avatar_package.parent / "elsewhere")
    rects.symlink_to(avatar_package.parent / "elsewhere")
    command = ["avatar", "validate", str(avatar_package)]
    refused = lipwire(*command)
    assert refused.code == 1
    assert "--allow-links" in refused.out
    assert lipwire(*command[:place], "--allow-links", *command[place:]).code == 0


@pytest.mark.parametrize(
    ("number", "code", "word"),
    quick_first(
        [
            ("SIGINT", 130, "interrupted"),
            ("SIGTERM", 143, "terminated"),
            ("SIGHUP", 129, "terminal"),
        ]
    ),
)
def test_a_signal_that_a_library_swallows_is_still_what_ended_the_command(
    number: str, code: int, word: str
) -> None:
    """As where a file's callback is in hand: the library reports an error of its own."""
    script = f"""
import os, signal
import lipwire.cli.app
from lipwire.cli.main import main

def app(arguments, prog_name):
    try:
        os.kill(os.getpid(), signal.{number})
    except BaseException:
        pass
    raise OSError(1, "Operation not permitted")

lipwire.cli.app.app = app
main([])
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=300
    )
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith(word)
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_signal_while_a_failure_is_told_is_obeyed() -> None:
    script = """
import os, signal
import lipwire.cli.app
from lipwire.cli.main import main

class Late(OSError):
    @property
    def strerror(self):  # read while the failure is being told
        os.kill(os.getpid(), signal.SIGTERM)
        return "late"

def app(arguments, prog_name):
    raise Late

lipwire.cli.app.app = app
main([])
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=300
    )
    assert (done.returncode, done.stderr) == (143, "terminated\n")
