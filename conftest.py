"""LIPWIRE_REQUIRE_ALL=1 (set in CI): a test skipped for want of something fails.

Without it, whoever lacks a program or an extra can still run the rest of the suite. A skip for
another reason (another operating system, running as root) stays a skip. A reason that names
something missing says "needs ..." or "... is not installed", or is pytest.importorskip's own.
"""

import os
import re
import signal
from collections.abc import Generator
from typing import TypeVar

import pytest
from hypothesis import settings

# The same examples every time, and no limit on the time that one takes: what fails here fails
# everywhere, however busy the machine is. `--hypothesis-profile=default` tries new ones.
settings.load_profile("ci")

REQUIRE_ALL = os.environ.get("LIPWIRE_REQUIRE_ALL", "0") not in ("", "0")
MISSING = re.compile(r"^(Skipped: )?(needs |could not import |.* is not installed)", re.IGNORECASE)

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    return _fail_if_missing((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return _fail_if_missing((yield))


def _fail_if_missing(report: Report) -> Report:
    # A skip's longrepr is (path, line, reason).
    if REQUIRE_ALL and report.outcome == "skipped" and isinstance(report.longrepr, tuple):
        reason = report.longrepr[2]
        if MISSING.match(reason):
            report.outcome = "failed"
            report.longrepr = f"nothing may be missing with LIPWIRE_REQUIRE_ALL=1: {reason}"
    return report


def pytest_configure() -> None:
    """Whoever starts the suite in the background has Ctrl-C ignored, here and in what it starts;
    tests of Ctrl-C need it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
