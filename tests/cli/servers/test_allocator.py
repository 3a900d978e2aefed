import platform
import subprocess
import sys

import pytest

GROW = """
import sys, threading
from lipwire.cli.servers.allocator import keep_few_arenas
keep_few_arenas()
import ctypes
malloc = ctypes.CDLL(None).malloc
together = threading.Barrier(12)
def work():
    together.wait(60)
    malloc(100_000)
    together.wait(60)
threads = [threading.Thread(target=work) for _ in range(12)]
for thread in threads: thread.start()
for thread in threads: thread.join()
libc = ctypes.CDLL(None)
libc.fopen.restype = ctypes.c_void_p
libc.malloc_info(0, ctypes.c_void_p.in_dll(libc, "stdout"))
libc.fflush(None)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no arenas")
@pytest.mark.parametrize(("environ", "most"), [({}, 2), ({"MALLOC_ARENA_MAX": "5"}, 5)])
def test_threads_share_arenas(environ: dict[str, str], most: int) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", GROW], env=environ, capture_output=True, text=True, check=True
    )
    assert ran.stdout.count("<heap nr=") == most
