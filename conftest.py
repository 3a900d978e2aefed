"""LIPWIRE_REQUIRE_ALL=1 (set in CI): a test skipped for want of something fails.

Without it, whoever lacks a program or an extra can still run the rest of the suite. A skip for
another reason (another operating system, running as root) stays a skip. A reason that names
something missing says "needs ..." or "... is not installed", or is pytest.importorskip's own.
"""

import gc
import os
import re
import signal
import sys
from collections.abc import Generator
from typing import TypeVar

import pytest
from hypothesis import settings
from sybil import Sybil
from sybil.integration.pytest import SybilItem
from sybil.parsers.markdown import CodeBlockParser, SkipParser
from tests.fuzz.costs import resident_bytes
from tests.support import snippets

if sys.platform == "linux":
    import resource

# The same examples every time, and no limit on the time that one takes: what fails here fails
# everywhere, however busy the machine is. `--hypothesis-profile=default` tries new ones, and "fast"
# only some.
settings.register_profile("fast", settings.get_profile("ci"), max_examples=20)
settings.load_profile("ci")

# Snippets of the documentation are tests, too.
pytest_collect_file = Sybil(
    parsers=[
        SkipParser(),
        CodeBlockParser("python", snippets.run_python),
        CodeBlockParser("sh", snippets.run_shell),
        CodeBlockParser("yaml", snippets.check_yaml),
        CodeBlockParser("json", snippets.check_json),
    ],
    patterns=["README.md", "CONTRIBUTING.md", "docs/*.md", "docs/decisions/*.md"],
    fixtures=["documented"],
).pytest()
documented = snippets.documented

MOST_MEMORY_BYTES = 12 << 30
"""Of a process of the suite, or one that it starts. The largest has 3 GiB."""
MOST_GARBAGE_BYTES = 256 << 20
"""By so much memory may grow before garbage is looked for."""
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


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Snippets start programs and servers."""
    for item in items:
        if isinstance(item, SybilItem):
            item.add_marker(pytest.mark.slow)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection() -> Generator[None, object, object]:
    """What there is after collection stays until the end: nobody need look for garbage in it, nor
    while it grows. Later, Python's own 700 new objects are too few to look after each time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.set_threshold(5000, 10, 10)
        gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(
    item: pytest.Item, nextitem: pytest.Item | None
) -> Generator[None, object, object]:
    """Garbage is counted by objects, and few of them can hold much: networks, pictures. Where
    memory has grown by the end of a file, it is looked for."""
    try:
        return (yield)
    finally:
        if nextitem is not None and nextitem.path != item.path:
            _collect_where_grown()


_collected_at_bytes = 0


def _collect_where_grown() -> None:
    global _collected_at_bytes
    if resident_bytes() > _collected_at_bytes + MOST_GARBAGE_BYTES:
        gc.collect()
        _collected_at_bytes = resident_bytes()


def pytest_configure() -> None:
    """Whoever starts the suite in the background has Ctrl-C ignored, and with nohup the terminal's
    end, here and in what it starts; tests of them need them.

    A process of the suite that takes ever more memory fails where it does, with every thread's
    stack, before the system ends it without a word.
    """
    if sys.platform == "linux":
        _, most = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (MOST_MEMORY_BYTES, most))
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
