import os
import sys

import pytest
from tests.support import owncore


@pytest.mark.parametrize(
    ("worker", "core"), [("gw0", 1), ("gw1", 3), ("gw2", 5), ("gw3", 1), ("", None), ("main", None)]
)
def test_workers_share_the_cores_that_there_are(worker: str, core: int | None) -> None:
    assert owncore.core_of(worker, {5, 1, 3}) == core


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has sched_setaffinity")
def test_only_a_worker_is_bound_to_its_core(monkeypatch: pytest.MonkeyPatch) -> None:
    bound: list[set[int]] = []
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {4, 7})
    monkeypatch.setattr(os, "sched_setaffinity", lambda pid, cores: bound.append(set(cores)))
    for worker in ("gw0", "gw1", None):
        if worker is None:
            monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
        else:
            monkeypatch.setenv("PYTEST_XDIST_WORKER", worker)
        owncore.pytest_load_initial_conftests()
    assert bound == [{4}, {7}]
