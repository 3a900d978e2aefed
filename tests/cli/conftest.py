"""The command line, run inside the test's process."""

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass

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
