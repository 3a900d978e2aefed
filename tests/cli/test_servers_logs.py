"""What servers print."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.cli.conftest import Serving, frames_of

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
