from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from tests.support.waiting import until

if TYPE_CHECKING:
    from tests.cli.conftest import Lipwire, Served

WAIT_S = 300.0
LEFT = b"\x1b[?1049l"
"""What gives a terminal its own screen back (xterm)."""

pytestmark = pytest.mark.slow


def test_how_things_are_is_printed_once(lipwire: Lipwire, one: Served) -> None:
    lipwire("models", "load", "sanders", "--address", one.address, "--timeout", WAIT_S)
    outcome = lipwire("top", one.address, "--once", "--timeout", WAIT_S)
    assert outcome.code == 0
    lines = [line.split() for line in outcome.out.splitlines()]
    assert [one.address, "compositing", "healthy"] in [line[:3] for line in lines]
    assert [one.address, "sanders"] in [line[:2] for line in lines]


def test_a_server_that_is_not_there_is_said_beside_one_that_is(
    lipwire: Lipwire, one: Served
) -> None:
    outcome = lipwire("top", one.address, "127.0.0.1:9", "--timeout", WAIT_S)
    assert outcome.code == 1
    assert "healthy" in outcome.out
    assert "127.0.0.1:9" in outcome.out
    assert "refused" in outcome.out


def test_an_address_that_is_none_is_bad_usage(lipwire: Lipwire) -> None:
    assert lipwire("top", "http://localhost:50052", "--once").code == 2


@pytest.mark.skipif(os.name != "posix", reason="terminals are POSIX")
@pytest.mark.parametrize("end", ["q", "ctrl-c"])
def test_it_is_shown_in_a_terminal_until_a_key_ends_it(one: Served, end: str) -> None:
    import pty
    import termios

    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)
    termios.tcsetwinsize(theirs, (40, 160))
    process = subprocess.Popen(
        [sys.executable, "-m", "lipwire", "top", one.address, "--timeout", str(WAIT_S)],
        stdin=theirs,
        stdout=theirs,
        stderr=subprocess.PIPE,
        start_new_session=True,
        env={**os.environ, "TERM": "xterm", "LIPWIRE_DEBUG": ""},
    )
    said = b""
    try:
        os.set_blocking(ours, False)

        def read() -> bytes:
            nonlocal said
            with suppress(BlockingIOError):
                said += os.read(ours, 65_536)
            return said

        def ended() -> bool:
            return process.poll() is not None

        until(lambda: b"healthy" in read() or ended(), timeout_s=WAIT_S, seen=lambda: said)
        if end == "q":
            os.write(ours, b"q")
        else:
            process.send_signal(signal.SIGINT)
        until(lambda: LEFT in read() and ended(), timeout_s=WAIT_S, seen=lambda: said)
        assert b"healthy" in said
        assert process.returncode == 0
        assert termios.tcgetattr(theirs) == before
        assert process.stderr is not None
        assert process.stderr.read() == b""
    finally:
        process.kill()
        process.communicate()
        os.close(ours)
        os.close(theirs)
