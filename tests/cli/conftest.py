"""The command line, run inside the test's process; and servers, which need one of their own."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lipwire.cli.main import main


@dataclass(frozen=True, slots=True)
class Outcome:
    code: int
    out: str
    err: str


Lipwire = Callable[..., Outcome]


@pytest.fixture
def lipwire(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Lipwire]:
    """``lipwire("render", "anna", ...)`` gives the exit code and what was printed."""
    monkeypatch.setenv("LIPWIRE_DEBUG", "")
    monkeypatch.setenv("COLUMNS", "120")
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def run(*arguments: object) -> Outcome:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([os.fspath(a) if isinstance(a, os.PathLike) else str(a) for a in arguments])
        printed = capsys.readouterr()
        code = ended.value.code
        return Outcome(code if isinstance(code, int) else 0, printed.out, printed.err)

    yield run
    for number, handler in before.items():
        signal.signal(number, handler)


@dataclass
class Served:
    """A ``lipwire`` process that serves."""

    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)
    """What it printed until now."""

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def wait_for(self, pattern: str, timeout_s: float = 60) -> str:
        """The first group of ``pattern`` as soon as it was printed."""
        until_s = time.monotonic() + timeout_s
        while not (found := re.search(pattern, self.text)):
            assert time.monotonic() < until_s, f"no {pattern!r} in:\n{self.text}"
            assert self.process.poll() is None or self.text, "it ended without a word"
            if self.process.poll() is not None:
                time.sleep(0.2)
                found = re.search(pattern, self.text)
                assert found, f"it ended with {self.process.returncode}:\n{self.text}"
                break
            time.sleep(0.02)
        return found[1] if found.groups() else found[0]

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def port(self) -> int:
        return int(
            self.wait_for(r"(?s)[Cc]ompositing server (?:listening on port|at 127.0.0.1:) ?(\d+)")
        )

    def end(self, number: int = signal.SIGTERM, timeout_s: float = 60) -> int:
        """Its exit code; where it does not end, what its threads were doing is in the message."""
        self.process.send_signal(number)
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGABRT)  # faulthandler prints every thread's stack
            self.process.wait(10)
            raise AssertionError(f"it did not end within {timeout_s} s:\n{self.text}") from None


Serving = Callable[..., Served]


def serving_in(stack: ExitStack, folder: Path) -> Serving:
    """``serving("serve", "--port", 0, ...)`` starts a process in ``folder``; it ends with
    ``stack``."""

    def start(*arguments: object, **environ: str) -> Served:
        process = stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-u", "-m", "lipwire", *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                cwd=folder,
                env={
                    **os.environ,
                    "LIPWIRE_DEBUG": "",
                    "PYTHONFAULTHANDLER": "1",
                    **environ,
                },
            )
        )
        served = Served(process)

        def read() -> None:
            assert process.stdout is not None
            with suppress(ValueError):  # closed, when the test was over first
                for line in process.stdout:
                    served.lines.append(line.rstrip("\n"))

        threading.Thread(target=read, daemon=True).start()
        stack.callback(process.kill)
        return served

    return start


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Serving]:
    """Servers for one test."""
    with ExitStack() as stack:
        yield serving_in(stack, tmp_path)
