"""What servers print."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
from tests.cli.conftest import Serving, frames_of
from tests.support.waiting import until

from lipwire.domain import Float32Array
from lipwire.rpc.requests import requests_of_windows


@pytest.mark.slow
def test_json_logs_are_nothing_but_json(
    serving: Serving, models_root: Path, windows: Float32Array
) -> None:
    served = serving("serve", "--models-root", models_root, "--port", 0, "--json-logs")
    port = int(served.wait_for(r'"message": "ready".*"port": (\d+)'))
    frames_of(f"127.0.0.1:{port}", requests_of_windows("sanders", windows[:2], 2))
    assert served.end() == 0
    served.wait_for('"stopped"')
    entries = [json.loads(line) for line in served.lines]
    (times,) = [entry for entry in entries if "composite_ms" in entry]
    assert (times["model"], times["frames"], times["level"]) == ("sanders", 2, "info")
    assert entries[0]["message"] == "starting"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("logging", "said"),
    [
        ("log_compositing_times: true", True),
        ("log_compositing_times: false", False),
        ("level: warn", False),
    ],
)
def test_the_guides_logging_keys_decide_what_is_logged(
    serving: Serving,
    models_root: Path,
    windows: Float32Array,
    tmp_path: Path,
    logging: str,
    said: bool,
) -> None:
    (tmp_path / "config.yaml").write_text(
        f"models_root: {models_root}\nserver:\n  port: ':0'\nlogging:\n  {logging}\n"
    )
    served = serving("serve")  # config.yaml of its folder
    assert "Loaded from: config.yaml" in served.wait_for(r"Loaded from: .*")
    frames_of(served.address, requests_of_windows("sanders", windows[:2], 2))
    assert served.end() == 0
    assert ("sanders: 2 frames in" in served.text) == said


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="the system has no SIGHUP")
@pytest.mark.parametrize("workers", [1, 2])
def test_a_servers_file_is_made_anew_after_it_was_rotated(
    serving: Serving, models_root: Path, windows: Float32Array, tmp_path: Path, workers: int
) -> None:
    path, rotated = tmp_path / "lipwire.log", tmp_path / "lipwire.log.1"
    (tmp_path / "config.yaml").write_text(
        f"models_root: {models_root}\nserver: {{port: 0, workers: {workers}}}\n"
        "web: {port: 0}\nlogging: {file: lipwire.log}\n"
    )
    served = serving("serve")
    port = int(served.wait_for(r"istening on port (\d+)"))
    served.wait_for("Ready to accept")
    frames_of(f"127.0.0.1:{port}", requests_of_windows("sanders", windows[:2], 2))
    until(lambda: "sanders: 2 frames in" in path.read_text())
    path.rename(rotated)
    served.process.send_signal(signal.SIGHUP)
    until(path.exists)
    frames_of(f"127.0.0.1:{port}", requests_of_windows("sanders", windows[:3], 3))
    until(lambda: "sanders: 3 frames in" in path.read_text())
    assert served.end() == 0
    assert "stopped" in path.read_text()
    assert "3 frames" not in rotated.read_text()
    assert "sanders: 3 frames in" in served.text
