"""Profiles of servers that run."""

from __future__ import annotations

import urllib.request
from pathlib import Path

import pytest
from tests.cli.conftest import WAIT_S, Serving, frames_of

from lipwire.domain import Float32Array
from lipwire.rpc.requests import requests_of_windows


def fetched(address: str) -> str:
    with urllib.request.urlopen(address, timeout=WAIT_S) as answer:
        text: str = answer.read().decode()
    return text


@pytest.mark.slow
def test_a_server_shows_its_threads_and_profiles_to_this_machine(
    serving: Serving, models_root: Path, windows: Float32Array, tmp_path: Path
) -> None:
    (tmp_path / "config.yaml").write_text(
        f"models_root: {models_root}\nserver: {{port: 0, profile_port: 0}}\nweb: {{port: 0}}\n"
    )
    served = serving("serve")
    address = served.wait_for(r"profiles of this process at (http://127\.0\.0\.1:\d+/\S+)")
    served.wait_for("Ready to accept")
    assert "MainThread" in fetched(f"{address}threads")
    frames_of(served.address, requests_of_windows("sanders", windows[:2], 2))
    for line in fetched(f"{address}profile?seconds=1").splitlines():
        assert int(line.rpartition(" ")[2]) > 0
    assert served.end() == 0


@pytest.mark.slow
def test_without_the_key_there_are_no_profiles(serving: Serving, models_root: Path) -> None:
    served = serving("serve", "--models-root", models_root, "--port", 0)
    served.wait_for("Ready to accept")
    assert "profiles of this process" not in served.text
    assert served.end() == 0


@pytest.mark.slow
def test_each_process_has_a_port_of_its_own(
    serving: Serving, models_root: Path, tmp_path: Path
) -> None:
    (tmp_path / "config.yaml").write_text(
        f"models_root: {models_root}\nserver: {{port: 0, workers: 2, profile_port: 0}}\n"
        "web: {enabled: false}\n"
    )
    served = serving("serve")
    served.wait_for("Ready to accept")
    addresses = {
        line.rpartition(" ")[2] for line in served.lines if "profiles of this process at" in line
    }
    assert len(addresses) == 2
    for address in addresses:
        assert "MainThread" in fetched(f"{address}threads")
    assert served.end() == 0
