"""Numbers of sessions that processes share by files; here a process has a count for each place."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.support.waiting import until

from lipwire.domain import Overloaded
from lipwire.rpc.workers import WorkerPlace, socket_folder
from lipwire.rpc.workers.sessioncount import SharedCount

PROCESS = """
import sys
from pathlib import Path
from lipwire.rpc.workers import WorkerPlace
from lipwire.rpc.workers.sessioncount import SharedCount
count = SharedCount(WorkerPlace(Path(sys.argv[1]), 1, 2))
count.begin(None)
print("counted", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    with socket_folder() as path:
        yield path


def test_sessions_of_all_processes_count(folder: Path) -> None:
    with ExitStack() as stack:
        counts = [
            stack.enter_context(SharedCount(WorkerPlace(folder, index, 3))) for index in range(2)
        ]
        for count in (*counts, counts[0]):
            count.begin(3)
        for count in counts:
            assert count.each() == {0: 2, 1: 1}  # 2 is not there
            assert count.running == 3
            with pytest.raises(Overloaded, match=r"^3 live sessions run; allowed are 3$"):
                count.begin(3)
        counts[1].end()
        counts[0].begin(3)
        assert counts[1].each() == {0: 3, 1: 0}
        counts[0].close()
        assert counts[1].each() == {1: 0}
        stack.pop_all()
        counts[1].close()


def test_nobody_takes_the_last_place_twice(folder: Path) -> None:
    with ExitStack() as stack:
        counts = [
            stack.enter_context(SharedCount(WorkerPlace(folder, index, 4))) for index in range(4)
        ]
        refused: list[int] = []

        def take(count: SharedCount) -> None:
            for _ in range(25):
                try:
                    count.begin(50)
                except Overloaded:
                    refused.append(1)

        threads = [threading.Thread(target=take, args=(count,)) for count in counts * 2]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert counts[0].running == 50
        assert len(refused) == 8 * 25 - 50


@pytest.mark.slow
def test_what_a_killed_process_had_counts_no_more(folder: Path) -> None:
    with (
        SharedCount(WorkerPlace(folder, 0, 2)) as count,
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        assert process.stdout is not None
        assert process.stdout.readline() == "counted\n"
        assert count.each() == {0: 0, 1: 1}
        with pytest.raises(Overloaded):
            count.begin(1)
        os.kill(process.pid, signal.SIGKILL)
        until(lambda: count.each() == {0: 0})
        count.begin(1)
        with SharedCount(WorkerPlace(folder, 1, 2)) as again:
            assert again.each() == {0: 1, 1: 0}
