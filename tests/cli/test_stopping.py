import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from lipwire.cli.stopping import SIGNALS, Terminated, end_if_asked, listen, over


@pytest.fixture(autouse=True)
def own_handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
    listen()
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("number", "error"),
    [
        (signal.SIGINT, KeyboardInterrupt),
        (signal.SIGTERM, Terminated),
        (signal.SIGHUP, Terminated),
    ],
)
def test_a_signal_that_got_lost_is_raised_again(
    number: signal.Signals, error: type[BaseException]
) -> None:
    listen()
    end_if_asked()  # nothing came yet
    with pytest.raises(error):
        os.kill(os.getpid(), number)
    with pytest.raises(error):
        end_if_asked()


@pytest.mark.parametrize("number", SIGNALS)
def test_what_is_ignored_stays_ignored(number: signal.Signals) -> None:
    signal.signal(number, signal.SIG_IGN)
    listen()
    os.kill(os.getpid(), number)
    end_if_asked()


@pytest.mark.parametrize("first", SIGNALS)
@pytest.mark.parametrize("second", SIGNALS)
def test_cleaning_up_is_not_cut_off(first: signal.Signals, second: signal.Signals) -> None:
    cleaned = False
    listen()

    def work() -> None:
        nonlocal cleaned
        try:
            os.kill(os.getpid(), first)
        finally:
            with suppress(OSError):
                Path("/nowhere/at/all").unlink()
            os.kill(os.getpid(), second)
            cleaned = True

    with pytest.raises((KeyboardInterrupt, Terminated)):
        work()
    assert cleaned


def test_a_signal_after_one_that_got_lost_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    class Dropping:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGINT)

    lost: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda found: lost.append(found.exc_type))
    listen()
    Dropping()  # dropped at once
    assert lost == [KeyboardInterrupt]
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("second", [each for each in SIGNALS if each != signal.SIGINT])
@pytest.mark.parametrize("first", SIGNALS)
def test_a_generator_that_is_given_up_cleans_up_to_its_end(
    first: signal.Signals, second: signal.Signals
) -> None:
    cleaned: list[None] = []

    def numbers() -> Iterator[int]:
        try:
            yield 1
        finally:
            os.kill(os.getpid(), second)
            cleaned.append(None)

    def work() -> None:
        try:
            for _ in numbers():
                os.kill(os.getpid(), first)
        finally:
            assert cleaned

    listen()
    with pytest.raises((KeyboardInterrupt, Terminated)):
        work()


def test_nothing_is_raised_once_the_work_is_over() -> None:
    listen()
    over()
    os.kill(os.getpid(), signal.SIGTERM)
    end_if_asked()


def test_whoever_insists_does_not_wait_for_the_cleaning_up() -> None:
    code = """
import os, signal, time
from lipwire.cli.stopping import listen
listen()
try:
    os.kill(os.getpid(), signal.SIGINT)
finally:
    os.kill(os.getpid(), signal.SIGINT)
    print("still here", flush=True)
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(300)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=200, check=False
    )
    assert (done.returncode, done.stdout) == (130, "still here\n")
