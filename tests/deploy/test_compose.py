"""deploy/compose.yaml, as the Compose specification reads it; nothing is started here."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from lipwire.config import load_compositing_config, load_inference_config

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
FILES = [DEPLOY / "compose.yaml", DEPLOY / "compose.gpu.yaml"]
VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*)|:\?[^}]*)?\}")


def read(file: Path) -> dict[str, Any]:
    """The file with its variables at their defaults, or with a text of 20 characters."""
    text = VARIABLE.sub(lambda found: found[2] or "a" * 20, file.read_text())
    content = yaml.safe_load(text)
    assert isinstance(content, dict)
    return content


@pytest.mark.parametrize("file", FILES, ids=[file.name for file in FILES])
def test_it_is_of_the_compose_specification(file: Path) -> None:
    compose_spec = pytest.importorskip("compose_spec")
    plain = {key: value for key, value in read(file).items() if not key.startswith("x-")}
    compose = compose_spec.PyCompose.from_json(json.dumps(plain))
    compose.validate()
    compose.validate_networks()
    compose.validate_volumes()
    assert set(compose.service_names()) == set(plain["services"])


def test_what_is_mounted_is_there() -> None:
    for service in read(FILES[0])["services"].values():
        for mount in service.get("volumes", ()):
            source = mount.split(":")[0]
            if source.startswith("./") and source != "./avatars":
                assert (DEPLOY / source).exists(), source


def test_the_servers_take_their_configuration() -> None:
    services = read(FILES[0])["services"]
    environ = services["compositing-server-1"]["environment"]
    compositing = load_compositing_config(DEPLOY / "compose" / "compositing.yaml", environ)
    inference = load_inference_config(DEPLOY / "compose" / "inference.yaml", {})
    for address in compositing.inference_server.url:
        name, _, port = address.rpartition(":")
        assert name in services
        assert int(port) == inference.server.port
    for name, service in services.items():
        if "server" in name:
            assert int(service["stop_grace_period"].removesuffix("s")) > max(
                config.server.drain_delay + config.drain_timeout_s
                for config in (compositing, inference)
            )
    assert min(compositing.server.drain_delay, inference.server.drain_delay) >= 5


def test_haproxy_and_prometheus_ask_servers_that_are_there() -> None:
    services = read(FILES[0])["services"]
    haproxy = (DEPLOY / "haproxy" / "haproxy.cfg").read_text()
    asked = re.findall(r"presetenv \w+ ([\w-]+-server-\d):\d+", haproxy)
    assert len(asked) == 7
    assert set(asked) <= set(services)
    prometheus = yaml.safe_load((DEPLOY / "compose" / "prometheus.yaml").read_text())
    alone = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    names = [job["job_name"] for job in prometheus["scrape_configs"]]
    assert alone["scrape_configs"][0]["job_name"] in names  # rules and dashboards ask for it
    targets = [
        target
        for job in prometheus["scrape_configs"]
        for static in job["static_configs"]
        for target in static["targets"]
    ]
    assert {target.split(":")[0] for target in targets} <= set(services)


def test_servers_write_nowhere_but_to_caches_and_are_reached_by_haproxy_alone() -> None:
    for name, service in read(FILES[0])["services"].items():
        if "server" in name:
            assert service["read_only"] is True
            assert service["cap_drop"] == ["ALL"]
            assert service["networks"] == ["servers"]
            assert "ports" not in service
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:")
