"""Standard streams that a process was started without."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.quickfirst import quick_first

CLOSED = ["0<&-", "1>&-", "2>&-", "1>&- 2>&-", "0<&- 1>&- 2>&-"]


def sh(line: str, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """What a shell makes of ``line``, in which "$@" is Python with ``arguments``."""
    return subprocess.run(
        ["sh", "-c", line, "sh", sys.executable, *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "LIPWIRE_DEBUG": "", **environ},
    )


LOOK = """
import sys
from lipwire.cli.streams import prepare_streams
prepare_streams()
opened = open({path!r}, "w")
assert opened.fileno() > 2, opened.fileno()
import os, subprocess
os.write(1, b"to 1\\n")
os.write(2, b"to 2\\n")
print("printed", flush=True)
print("said", file=sys.stderr, flush=True)
assert sys.stdin.fileno() == 0
sys.stdin.read()
child = "import os; os.write(1, b'to 1\\\\n'); os.write(2, b'to 2\\\\n')"
subprocess.run([sys.executable, "-c", child], check=True)
opened.write("well")
"""


@pytest.mark.parametrize("closed", CLOSED)
def test_nothing_else_gets_their_descriptors(tmp_path: Path, closed: str) -> None:
    path = tmp_path / "opened"
    done = sh(
        f'"$@" {closed} </dev/null' if "0<" not in closed else f'"$@" {closed}',
        "-c",
        LOOK.format(path=str(path)),
    )
    assert done.returncode == 0, done.stderr
    assert path.read_text() == "well"
    assert done.stdout == ("" if "1>" in closed else "to 1\nprinted\nto 1\n")
    assert done.stderr == ("" if "2>" in closed else "to 2\nsaid\nto 2\n")


@pytest.mark.parametrize("closed", quick_first(reversed(CLOSED)))
@pytest.mark.parametrize(
    ("arguments", "code"),
    quick_first([(["avatar", "info", "./nobody"], 2), (["avatar", "list"], 0)]),
)
def test_commands_end_as_ever_without_them(closed: str, arguments: list[str], code: int) -> None:
    done = sh(f'"$@" {closed}', "-m", "lipwire", *arguments)
    assert done.returncode == code, done.stderr
    assert (done.stdout == "") == (code != 0 or "1>" in closed)
    assert done.stderr.count("\n") == (1 if code and "2>" not in closed else 0)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_output_that_cannot_be_written_is_one_line_and_code_1() -> None:
    done = sh('"$@" >/dev/full', "-m", "lipwire", "config", "schema", "--kind", "inference")
    assert done.returncode == 1
    assert done.stderr == "error: no space left on device\n"


@pytest.mark.slow
@pytest.mark.parametrize("encoding", quick_first(["latin-1", "utf-8"]))
def test_a_terminal_that_lacks_letters_gets_their_numbers(encoding: str, tmp_path: Path) -> None:
    folder = tmp_path / "avatars" / "Zo\u00eb \u5b89"
    (folder / "frames").mkdir(parents=True)
    done = subprocess.run(
        [sys.executable, "-m", "lipwire", "avatar", "validate", folder],
        capture_output=True,
        timeout=300,
        check=False,
        env={**os.environ, "LIPWIRE_DEBUG": "", "PYTHONIOENCODING": encoding},
    )
    assert done.returncode == 1, done.stderr
    assert f"{folder} cannot be used".encode(encoding, "backslashreplace") in done.stdout
    assert done.stderr == b""
