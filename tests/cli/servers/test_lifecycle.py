"""Signals need a process of their own."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.support.waiting import until

USED = """
import sys, time
from lipwire.cli.servers.lifecycle import Stopping
with Stopping(on_hangup=lambda: print("reopened", flush=True)) as stopping:
    print("up", flush=True)
    stopping.wait()
    print("asked", flush=True)
"""

IN_TERMINAL = """
import os, sys
os.close(os.open(sys.argv[1], os.O_RDWR))  # a session's first terminal is the one that controls it
"""

SERVER = """
import sys, time
from pathlib import Path
from lipwire.cli.servers.lifecycle import Stopping
with Stopping(with_stdin={with_stdin}) as stopping:
    print("up", flush=True)
    assert stopping.wait()
    print("asked", flush=True)
    while not Path({done!r}).exists():  # the work in hand
        time.sleep(0.01)
    print("drained", flush=True)
"""


@contextmanager
def server(done: Path, *, with_stdin: bool = False) -> Iterator[subprocess.Popen[str]]:
    """A process that has work in hand until there is a file ``done``."""
    with subprocess.Popen(
        [sys.executable, "-c", SERVER.format(with_stdin=with_stdin, done=str(done))],
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


@pytest.fixture
def done(tmp_path: Path) -> Path:
    return tmp_path / "done"


def ask_to_end(process: subprocess.Popen[str], number: int) -> None:
    """Returns when it has heard."""
    process.send_signal(number)
    assert process.stdout is not None
    assert process.stdout.readline() == "asked\n"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_lets_the_work_in_hand_finish(number: int, done: Path) -> None:
    with server(done) as process:
        ask_to_end(process, number)
        assert process.poll() is None
        done.touch()
        out, _ = process.communicate(timeout=60)
        assert (process.returncode, out) == (0, "drained\n")


def test_a_second_signal_ends_it_at_once(done: Path) -> None:
    with server(done) as process:
        ask_to_end(process, signal.SIGTERM)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 128 + signal.SIGTERM


def test_a_terminal_that_closes_is_heard_of_twice(done: Path) -> None:
    with server(done) as process:
        ask_to_end(process, signal.SIGHUP)
        process.send_signal(signal.SIGHUP)
        done.touch()
        out, _ = process.communicate(timeout=60)
        assert (process.returncode, out) == (0, "drained\n")


def test_a_hangup_that_has_a_use_does_not_ask_for_the_end() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", USED], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        for _ in range(2):
            process.send_signal(signal.SIGHUP)
            assert process.stdout.readline() == "reopened\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == "asked\n"
    assert process.returncode == 0


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="terminals are POSIX")
def test_a_terminal_that_closes_asks_for_the_end_whatever_else_a_hangup_does() -> None:
    ours, theirs = os.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", IN_TERMINAL + USED, os.ttyname(theirs)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.send_signal(signal.SIGHUP)
        assert process.stdout.readline() == "reopened\n"
        os.close(theirs)
        os.close(ours)
        try:
            until(lambda: process.poll() is not None)
        finally:
            process.kill()
        assert process.stdout.read() == "asked\n"
    assert process.returncode == 0


def test_a_child_that_is_told_twice_finishes_its_work(done: Path) -> None:
    with server(done, with_stdin=True) as process:
        ask_to_end(process, signal.SIGTERM)
        process.send_signal(signal.SIGTERM)
        done.touch()
        out, _ = process.communicate(timeout=60)
        assert (process.returncode, out) == (0, "drained\n")


def test_the_end_of_stdin_is_a_request_where_a_parent_holds_it(done: Path) -> None:
    done.touch()
    with server(done, with_stdin=True) as process:
        out, _ = process.communicate(timeout=60)
        assert (process.returncode, out) == (0, "asked\ndrained\n")


ELSEWHERE = """
import os, signal, threading, time
from lipwire.cli.servers.lifecycle import Stopping
helper = threading.Thread(target=time.sleep, args=(120,), daemon=True)
helper.start()
with Stopping() as stopping:
    def deliver():
        time.sleep(0.3)  # the main thread waits; how it waits cannot be asked
        signal.pthread_kill(helper.ident, signal.SIGTERM)
    threading.Thread(target=deliver, daemon=True).start()
    print(stopping.wait(), flush=True)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="signals of threads are POSIX")
def test_a_signal_that_another_thread_receives_is_heard() -> None:
    # The system may give a process's signal to any thread, and then nothing interrupts the main
    # thread's waiting.
    ran = subprocess.run(
        [sys.executable, "-c", ELSEWHERE], capture_output=True, text=True, timeout=60, check=False
    )
    assert (ran.returncode, ran.stdout) == (0, "True\n"), ran.stderr
