"""A whole cluster while a server is killed, another one's network cut, and the certificate changed:
nothing that a client gets is wrong, lost, or another tenant's."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.cluster.hosts import apart, why_not
from tests.support.haproxy import program
from tests.support.redisserver import needs_redis

ROOT = Path(__file__).resolve().parents[2]


@needs_redis
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_cluster_in_trouble_gives_nothing_wrong_and_loses_nothing(tmp_path: Path) -> None:
    program()
    if reason := why_not():
        pytest.skip(reason)
    done = subprocess.run(
        apart([sys.executable, "-m", "tests.support.cluster.trial", str(tmp_path)]),
        cwd=ROOT,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    *problems, last = done.stdout.splitlines()
    assert problems == [], "\n".join([*problems, done.stderr])
    assert int(last.split()[0]) > 100
