"""What a process that works on a stranger's package may take."""

import os
import subprocess
import sys

import pytest

from lipwire.avatars.sandbox.limits import MAX_CORES, SandboxLimits, thread_counts
from lipwire.avatars.sandbox.messages import tells_of_no_memory


def test_libraries_start_no_more_threads_than_there_are_cores() -> None:
    assert SandboxLimits().cores == MAX_CORES == 4
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    assert thread_counts({}, 4) == dict.fromkeys(names, "4")
    # What is less already stays.
    given = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "64"}
    assert thread_counts(given, 4) == {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "4"}
    for nonsense in ("", "0", "-1", "many", "4,2"):
        assert thread_counts({"OMP_NUM_THREADS": nonsense}, 4)["OMP_NUM_THREADS"] == "4"


CONFINED = """
import os, threading
from lipwire.avatars.sandbox.limits import SandboxLimits, confine

waiting = threading.Event()
before = threading.Thread(target=waiting.wait)
before.start()
before_id = before.native_id
confine(SandboxLimits(memory_bytes=1 << 36, cores={cores}))
seen = [len(os.sched_getaffinity(0)), len(os.sched_getaffinity(before_id))]
after = threading.Thread(target=lambda: seen.append(len(os.sched_getaffinity(0))))
after.start()
after.join()
waiting.set()
print(*seen)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="which cores a process uses is Linux's to say")
@pytest.mark.parametrize("cores", [1, 1000])
def test_every_thread_keeps_to_so_many_cores(cores: int) -> None:
    program = CONFINED.format(cores=cores)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    expected = min(cores, len(os.sched_getaffinity(0)))
    assert done.stdout.split() == [str(expected)] * 3


@pytest.mark.parametrize(
    "message",
    [
        "std::bad_alloc",
        "can't start new thread",
        "pthread_create failed, error code: 11 error msg: Resource temporarily unavailable",
        "model_best.onnx: cannot be loaded: /onnxruntime_src/onnxruntime/core/platform/posix/"
        "env.cc:327 onnxruntime::{anonymous}::PosixThread::PosixThread(const char*, int, unsigned",
        "OpenBLAS blas_thread_init: pthread_create failed for thread 1 of 4",
        "[Errno 12] Cannot allocate memory",
    ],
)
def test_what_libraries_say_where_no_memory_is_left(message: str) -> None:
    assert tells_of_no_memory(message)


def test_other_errors_are_not_about_memory() -> None:
    assert not tells_of_no_memory("model_best.onnx: operator 'Loop', allowed are none")
