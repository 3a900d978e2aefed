"""Commands start where the system has none of what only POSIX has, as on Windows."""

import subprocess
import sys

import pytest

BLOCKED = """
import builtins, os, select, signal, sys
import asyncio  # it chooses by the platform, which stays this one

POSIX = {"fcntl", "grp", "posix", "pty", "pwd", "readline", "resource", "syslog", "termios", "tty"}
importing = builtins.__import__

def import_without(name, globals=None, *rest, **named):
    ours = globals is not None and str(globals.get("__name__", "")).split(".")[0] == "lipwire"
    if ours and name.split(".")[0] in POSIX:
        raise ModuleNotFoundError(f"No module named {name!r}, for {globals['__name__']}", name=name)
    return importing(name, globals, *rest, **named)

builtins.__import__ = import_without
for name in list(signal.Signals.__members__):
    # https://docs.python.org/3/library/signal.html#signal.signal
    if name not in {"SIGABRT", "SIGFPE", "SIGILL", "SIGINT", "SIGSEGV", "SIGTERM"}:
        delattr(signal, name)
        del signal.Signals._member_map_[name]
del select.poll
"""

EVERY_MODULE = """
import importlib, pkgutil
import lipwire

def heavy(name):
    return name.startswith(("lipwire.training", "lipwire.__main__"))

missing = []
for found in pkgutil.walk_packages(lipwire.__path__, "lipwire."):
    if not heavy(found.name):
        try:
            importlib.import_module(found.name)
        except ModuleNotFoundError as error:
            if error.name in POSIX:
                missing.append(found.name)
print(missing)
"""


def python(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=False
    )


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["--version"], ["avatar", "--help"]])
def test_commands_start(arguments: list[str]) -> None:
    # What follows sys.platform is Lipwire's own alone: libraries are those of this system.
    program = f"""{BLOCKED}
import lipwire.cli.streams as streams

class Windows:
    platform = "win32"
    def __getattr__(self, name):
        return getattr(sys, name)
    def __setattr__(self, name, value):
        setattr(sys, name, value)

streams.sys = Windows()
from lipwire.cli.main import main
main({arguments})
"""
    done = python(program)
    assert (done.returncode, done.stderr) == (0, "")
    assert "lipwire" in done.stdout


def test_a_program_without_a_console_has_streams() -> None:
    program = f"""{BLOCKED}
import lipwire.cli.streams as streams

class Windows:
    platform = "win32"
    stdin = stderr = None
    stdout = sys.stdout

streams.sys = Windows
streams.prepare_streams()
print("dropped", file=Windows.stderr, flush=True)
print(streams.was_closed("stderr"), streams.was_closed("stdout"), repr(Windows.stdin.read()))
"""
    done = python(program)
    assert (done.stdout, done.stderr) == ("True False ''\n", "")


@pytest.mark.slow
def test_only_what_shares_a_port_needs_posix() -> None:
    """Servers in several processes, which Windows has not: they are refused there."""
    done = python(BLOCKED + EVERY_MODULE)
    assert done.stdout == "['lipwire.rpc.workers.sessioncount']\n", done.stderr
