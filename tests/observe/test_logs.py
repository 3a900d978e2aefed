import io
import json
import logging
import subprocess
import sys

import pytest

from lipwire.domain.tracing import Trace, traced
from lipwire.observe import LogLevel, configure_logging


@pytest.mark.parametrize(
    ("level", "heard"),
    [
        ("debug", ["debug", "info", "warn", "error"]),
        ("info", ["info", "warn", "error"]),
        ("warn", ["warn", "error"]),
        ("error", ["error"]),
    ],
)
def test_the_level_decides_what_is_said(level: LogLevel, heard: list[str]) -> None:
    stream = io.StringIO()
    configure_logging(level, stream=stream)
    logger = logging.getLogger("lipwire.rpc")
    logger.debug("debug")
    logger.info("info")
    logger.warning("warn")
    logger.error("error")
    assert [line.split()[2] for line in stream.getvalue().splitlines()] == heard


def test_json_lines_carry_figures_under_their_own_keys() -> None:
    stream = io.StringIO()
    configure_logging("info", as_json=True, stream=stream)
    logging.getLogger("lipwire.rpc").info("24 frames of %s", "anna", extra={"composite_ms": 9.5})
    (line,) = stream.getvalue().splitlines()
    entry = json.loads(line)
    assert entry["message"] == "24 frames of anna"
    assert entry["composite_ms"] == 9.5
    assert (entry["level"], entry["logger"]) == ("info", "lipwire.rpc")
    assert entry["time"].endswith("Z")


@pytest.mark.parametrize("as_json", [False, True])
def test_what_a_client_sent_cannot_end_the_line(as_json: bool) -> None:
    stream = io.StringIO()
    configure_logging("info", as_json=as_json, stream=stream)
    logging.getLogger("lipwire.rpc").warning("no model %s", "a\nb\x1b[31m")
    assert stream.getvalue().count("\n") == 1
    assert "\x1b" not in stream.getvalue()


def test_configuring_again_does_not_say_things_twice() -> None:
    stream = io.StringIO()
    configure_logging("info", stream=stream)
    configure_logging("info", stream=stream)
    logging.getLogger("lipwire.rpc").info("once")
    assert stream.getvalue().count("once") == 1


GONE = """
import logging, os, sys
from lipwire.observe import configure_logging
configure_logging("info")
logger = logging.getLogger("lipwire.rpc")
sys.stdin.readline()  # until the reader has gone
for number in range(3):
    logger.info("line %d", number)
os._exit(7)  # the interpreter's own end would write out what is left
"""


def test_a_log_whose_reader_has_gone_is_let_go() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", GONE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        process.stdout = None
        _, errors = process.communicate("go\n", timeout=60)
    assert (process.returncode, errors) == (7, "")


def test_what_is_wrong_with_a_record_is_still_shown(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info", stream=io.StringIO())
    logging.getLogger("lipwire.rpc").info("%d", "no number")
    assert "Logging error" in capsys.readouterr().err


@pytest.mark.parametrize("as_json", [False, True])
def test_a_line_has_the_id_of_the_request_that_it_is_about(as_json: bool) -> None:
    stream = io.StringIO()
    configure_logging("info", as_json=as_json, stream=stream)
    logger = logging.getLogger("lipwire.rpc")
    with traced(Trace("mine-1", "0" * 32)):
        logger.info("in it")
    logger.info("out of it")
    within, without = stream.getvalue().splitlines()
    if as_json:
        assert json.loads(within)["request_id"] == "mine-1"
        assert "request_id" not in json.loads(without)
    else:
        assert within.endswith("in it (request mine-1)")
        assert without.endswith("out of it")
