"""A second try for tests that fail beside others: ``pytest -n auto -p tests.support.secondtry``.

Tests with real servers, browsers and clocks share the machine with other tests, and one of them may
fail because the machine was busy. When the run is over, those that failed are run once more, one
after the other and alone. Where all of them pass, the run passes; its output has the first
failures all the same, and names the tests, as each is a fault to look into. There is no second try
where more than five failed, or where a process died: that is no accident.
"""

import subprocess
import sys
from collections.abc import Sequence

import pytest

MOST_FAILURES = 5


class SecondTry:
    """The plugin: what failed, and whether it passed alone."""

    def __init__(self) -> None:
        self._failed: dict[str, None] = {}
        self._died = False
        self._passed_alone = False

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._failed[report.nodeid] = None

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._died |= report.failed  # what cannot be imported cannot be run again

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, error: object) -> None:
        """One of pytest-xdist's processes has ended; ``error`` is None where it was done."""
        self._died |= error is not None

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        if (
            exitstatus == pytest.ExitCode.TESTS_FAILED
            and 0 < len(self._failed) <= MOST_FAILURES
            and not self._died
        ):
            self._passed_alone = run_alone(list(self._failed)) == pytest.ExitCode.OK
            if self._passed_alone:
                session.exitstatus = pytest.ExitCode.OK

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self._passed_alone:
            terminalreporter.section("failed beside other tests, passed alone: look into these")
            for name in self._failed:
                terminalreporter.line(name)


def run_alone(tests: Sequence[str]) -> int:
    """Run ``tests``, given by their ids, in a process of their own, which prints what it finds;
    return pytest's exit code."""
    print(f"\n{len(tests)} failed; once more, alone:", flush=True)
    return subprocess.call([sys.executable, "-m", "pytest", "-n", "0", *tests])


def pytest_configure(config: pytest.Config) -> None:
    """In the process that tells what came out, not in pytest-xdist's processes."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(SecondTry())
