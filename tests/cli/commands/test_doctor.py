from __future__ import annotations

import json
import re
import shutil
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import Lipwire, Served


@pytest.fixture
def config(package_template: Path, tmp_path: Path) -> Path:
    """A configuration without faults."""
    shutil.copytree(package_template, tmp_path / "models" / "anna")
    path = tmp_path / "compositing.yaml"
    path.write_text("models_root: models\nserver: {port: 0}\nweb: {port: 0}\n")
    return path


def checks_of(document: dict[str, Any], subject: str) -> dict[str, dict[str, str]]:
    (group,) = (each for each in document["groups"] if each["subject"] == subject)
    return {check["name"]: check for check in group["checks"]}


def test_every_group_is_in_the_document(lipwire: Lipwire, config: Path) -> None:
    outcome = lipwire("doctor", config, "--quick", "--json")
    document = json.loads(outcome.out)
    assert [group["subject"] for group in document["groups"]] == ["this machine", str(config)]
    machine = checks_of(document, "this machine")
    assert {"cores", "memory", "open files", "cache folder", "clock", "GPUs"} <= machine.keys()
    assert "speed" not in machine
    assert machine["FFmpeg in PyAV"]["outcome"] == "ok"
    assert checks_of(document, str(config))["avatars"]["seen"] == "1 of 1 can be read, 8 frames"
    assert outcome.code == (1 if document["faults"] else 0)
    assert document["healthy"] == (not document["faults"])


def test_a_fault_is_named_in_the_table_and_in_the_exit_code(lipwire: Lipwire, config: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        config.write_text(f"models_root: gone\nserver: {{port: {port}}}\n")
        document = json.loads(lipwire("doctor", config, "--quick", "--json").out)
        outcome = lipwire("doctor", config, "--quick")
    found = checks_of(document, str(config))
    assert "there is nothing at" in found["avatars"]["seen"]
    assert "is taken" in found["server.port"]["seen"]
    assert outcome.code == 1
    assert re.search(r"^[1-9]\d* faults?, \d+ warnings?$", outcome.out, re.MULTILINE)
    assert re.search(r"^fault +avatars +there is nothing at", outcome.out, re.MULTILINE)


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("output: {format: png}\n", "output.format is png"),
        ("- a list\n", "has to be a mapping"),
        (None, "there is no"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_a_fault(
    lipwire: Lipwire, tmp_path: Path, text: str | None, seen: str
) -> None:
    path = tmp_path / "compositing.yaml"
    if text is not None:
        path.write_text(text)
    outcome = lipwire("doctor", path, "--quick", "--json")
    assert outcome.code == 1
    check = checks_of(json.loads(outcome.out), str(path))["configuration"]
    assert check["outcome"] == "fault"
    assert seen in check["seen"]


def test_several_configurations_are_looked_at_together(
    lipwire: Lipwire, config: Path, tmp_path: Path
) -> None:
    other = tmp_path / "inference.yaml"
    other.write_text(
        "models_root: models\nserver: {port: 0, workers: 200}\ngpus: {enabled: false}\n"
    )
    document = json.loads(lipwire("doctor", config, other, "--quick", "--json").out)
    assert checks_of(document, str(other))["avatars"]["outcome"] == "ok"
    cores = checks_of(document, "this machine")["cores"]
    assert (cores["outcome"], "(201)" in cores["wanted"]) == ("warning", True)


def test_half_a_certificate_of_a_client_is_bad_usage(lipwire: Lipwire, tmp_path: Path) -> None:
    assert lipwire("doctor", "--quick", "--tls-cert", tmp_path / "client.crt").code == 2


@pytest.mark.slow
def test_a_running_server_is_asked(lipwire: Lipwire, config: Path, one: Served) -> None:
    outcome = lipwire(
        *("doctor", config, "--quick", "--json", "--timeout", 300, "--server", one.address)
    )
    found = checks_of(json.loads(outcome.out), f"server {one.address}")
    assert found["health"]["outcome"] == "ok"
    assert found["version"]["outcome"] == "ok"
    assert found["avatars"]["seen"].startswith("1 known")


@pytest.mark.slow
def test_frames_are_made_to_see_how_fast_that_is(
    lipwire: Lipwire, config: Path, compiled_template: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    shutil.copytree(compiled_template, tmp_path / "avatars" / "demo")
    monkeypatch.setenv("LIPWIRE_AVATARS", str(tmp_path / "avatars"))
    document = json.loads(lipwire("doctor", config, "--json").out)
    speed = checks_of(document, "this machine")["speed"]
    assert speed["outcome"] in ("ok", "warning")
    assert "frames a second of the demo avatar" in speed["seen"]
