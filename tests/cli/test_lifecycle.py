"""Signals need a process of their own."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

SERVER = """
import sys, time
from lipwire.cli.lifecycle import Stopping
with Stopping(with_stdin={with_stdin}) as stopping:
    print("up", flush=True)
    assert stopping.wait()
    print("asked", flush=True)
    time.sleep({work_s})
    print("drained", flush=True)
"""


@contextmanager
def server(*, with_stdin: bool = False, work_s: float = 0.0) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", SERVER.format(with_stdin=with_stdin, work_s=work_s)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_the_work_in_hand_finish(number: int) -> None:
    with server(work_s=0.2) as process:
        process.send_signal(number)
        out, _ = process.communicate(timeout=60)
        assert (process.returncode, out) == (0, "asked\ndrained\n")


def test_a_second_signal_ends_it_at_once() -> None:
    with server(work_s=60) as process:
        process.send_signal(signal.SIGTERM)
        assert process.stdout is not None
        assert process.stdout.readline() == "asked\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 128 + signal.SIGTERM


def test_the_end_of_stdin_is_a_request_where_a_parent_holds_it() -> None:
    with server(with_stdin=True) as process:
        out, _ = process.communicate(timeout=60)
        assert (process.returncode, out) == (0, "asked\ndrained\n")


ELSEWHERE = """
import os, signal, threading, time
from lipwire.cli.lifecycle import Stopping
helper = threading.Thread(target=time.sleep, args=(120,), daemon=True)
helper.start()
with Stopping() as stopping:
    def deliver():
        time.sleep(0.3)
        signal.pthread_kill(helper.ident, signal.SIGTERM)
    threading.Thread(target=deliver, daemon=True).start()
    print(stopping.wait(), flush=True)
"""


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="signals of threads are POSIX")
def test_a_signal_that_another_thread_receives_is_heard() -> None:
    # The system may give a process's signal to any thread, and then nothing interrupts the main
    # thread's waiting.
    ran = subprocess.run(
        [sys.executable, "-c", ELSEWHERE], capture_output=True, text=True, timeout=60, check=False
    )
    assert (ran.returncode, ran.stdout) == (0, "True\n"), ran.stderr
