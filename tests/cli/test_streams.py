"""Standard streams that a process was started without."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

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


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize("closed", CLOSED)
@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["avatar", "info", "./nobody"], 2), (["avatar", "list"], 0)],
)
def test_commands_end_as_ever_without_them(closed: str, arguments: list[str], code: int) -> None:
    done = sh(f'"$@" {closed}', "-m", "lipwire", *arguments)
    assert done.returncode == code, done.stderr
    assert (done.stdout == "") == (code != 0 or "1>" in closed)
    assert done.stderr.count("\n") == (1 if code and "2>" not in closed else 0)


UNWRITABLE = ["2>/dev/full", "2</dev/null", "2>&-", "reader gone"]

SAY = """
import logging, sys, warnings
from lipwire.cli.streams import prepare_streams
prepare_streams()
import typer
from rich.console import Console
for _ in range(3):
    print("printed", file=sys.stderr, flush=True)
    print("x" * 100_000, file=sys.stderr)
    sys.stderr.write("without an end")
    sys.stderr.flush()
    typer.echo("echoed", err=True)
    Console(stderr=True).print("by rich")
    logging.warning("logged")
    warnings.warn("warned")
print("well")
"""


def without_stderr(how: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """What Python with ``arguments`` does with a stderr that cannot be written to."""
    if how != "reader gone":
        return sh(f'"$@" {how}', *arguments)
    reading, writing = os.pipe()
    os.close(reading)
    try:
        return subprocess.run(
            [sys.executable, *arguments],
            stdout=subprocess.PIPE,
            stderr=writing,
            text=True,
            timeout=300,
            check=False,
            env={**os.environ, "LIPWIRE_DEBUG": ""},
        )
    finally:
        os.close(writing)


@pytest.mark.slow
@pytest.mark.parametrize("how", UNWRITABLE)
@pytest.mark.parametrize("unbuffered", [[], ["-u"]])
def test_nothing_ends_because_stderr_cannot_be_written_to(how: str, unbuffered: list[str]) -> None:
    done = without_stderr(how, *unbuffered, "-c", SAY)
    assert (done.returncode, done.stdout) == (0, "well\n")


@pytest.mark.slow
@pytest.mark.parametrize("how", UNWRITABLE)
def test_an_error_that_cannot_be_told_has_its_exit_code(how: str) -> None:
    assert without_stderr(how, "-m", "lipwire", "avatar", "info", "./nobody").returncode == 2


def test_what_is_open_the_wrong_way_counts_as_closed() -> None:
    look = (
        "from lipwire.cli.streams import prepare_streams, was_closed; prepare_streams();"
        "print([name for name in ('stdin', 'stdout', 'stderr') if was_closed(name)])"
    )
    assert sh('"$@" 2</dev/null', "-c", look).stdout == "['stderr']\n"
    assert sh('"$@" 0>/dev/null 2<>/dev/null', "-c", look).stdout == "['stdin']\n"
    out = "import os; os.set_inheritable(3, True); os.write(3, str(was_closed('stdout')).encode())"
    assert sh('"$@" 3>&1 1</dev/null', "-c", f"{look};{out}").stdout == "True"


def test_a_full_pipe_that_does_not_block_is_waited_for() -> None:
    """What a program has done that shares the pipe, and reads late."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    text = "import sys; from lipwire.cli.streams import prepare_streams; prepare_streams();"
    text += "print('x' * 300_000, file=sys.stderr); print('well', flush=True)"
    command = [sys.executable, "-c", text]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=writing, text=True) as child:
        os.close(writing)
        with os.fdopen(reading, "rb") as file:
            assert len(file.read()) == 300_001
        assert child.communicate(timeout=60)[0] == "well\n"
    assert child.returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_output_that_cannot_be_written_is_one_line_and_code_1() -> None:
    done = sh('"$@" >/dev/full', "-m", "lipwire", "config", "schema", "--kind", "inference")
    assert done.returncode == 1
    assert done.stderr == "error: no space left on device\n"


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["latin-1", "utf-8"])
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
