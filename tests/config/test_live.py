"""The keys of live sessions."""

from pathlib import Path

import pytest

from lipwire.config import check_config, load_compositing_config


def test_live_sessions_are_limited_without_a_file() -> None:
    live = load_compositing_config(None, {}).live
    assert (live.max_sessions, live.max_duration, live.max_idle) == (64, None, 900)
    assert (live.nobody_joined_timeout, live.reconnect_grace, live.drain_timeout) == (30, 30, 30)


def test_limits_are_read_from_a_file_and_from_variables(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("live: {max_sessions: 3, max_duration: 60, max_idle: 0, reconnect_grace: 0}\n")
    live = load_compositing_config(path, {"LIPWIRE_LIVE__MAX_SESSIONS": "5"}).live
    assert (live.max_sessions, live.max_duration) == (5, 60)
    assert (live.max_idle, live.reconnect_grace) == (0, 0)


@pytest.mark.parametrize(
    "line",
    [
        "max_sessions: 0",
        "max_sessions: 10001",
        "max_duration: 0.5",
        "max_idle: -1",
        "nobody_joined_timeout: 0",
        "reconnect_grace: -1",
        "drain_timeout: 86401",
        "max_session: 1",
    ],
)
def test_a_limit_out_of_range_is_one_problem_with_its_line(tmp_path: Path, line: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(f"live:\n  {line}\n")
    (problem,) = check_config(path, {}, "compositing").problems
    assert "line 2" in str(problem)
    assert line.partition(":")[0] in str(problem)


def test_the_inference_server_has_no_live_sessions(tmp_path: Path) -> None:
    path = tmp_path / "i.yaml"
    path.write_text("live: {max_sessions: 3}\n")
    assert check_config(path, {}, "inference").problems


def test_a_server_that_stops_waits_for_live_sessions_too() -> None:
    short = load_compositing_config(None, {"LIPWIRE_LIVE__DRAIN_TIMEOUT": "0"})
    long = load_compositing_config(None, {"LIPWIRE_LIVE__DRAIN_TIMEOUT": "3600"})
    assert long.drain_timeout_s == 3600
    assert 0 < short.drain_timeout_s < 3600
