"""A core for each process of a run: ``pytest -n auto -p tests.support.owncore``.

Whatever takes as many threads as there are cores takes one then. With two threads in each of two
processes the threads of one wait for a core that the other has, and everybody for them.
"""

import os
from collections.abc import Iterable

import pytest


def core_of(worker: str, cores: Iterable[int]) -> int | None:
    """The core of ``cores`` that pytest-xdist's ``worker`` is to have, as "gw3"; None for a process
    that is none of its workers."""
    number = worker.removeprefix("gw")
    if number == worker or not number.isdigit():
        return None
    allowed = sorted(cores)
    return allowed[int(number) % len(allowed)]


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests() -> None:
    """Before anything is imported that looks how many cores there are."""
    if not hasattr(os, "sched_setaffinity"):
        return
    core = core_of(os.environ.get("PYTEST_XDIST_WORKER", ""), os.sched_getaffinity(0))
    if core is not None:
        os.sched_setaffinity(0, {core})
