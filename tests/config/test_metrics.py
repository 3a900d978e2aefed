"""Where a server's numbers can be read."""

from pathlib import Path

import pytest

from lipwire.config import load_compositing_config, load_inference_config
from lipwire.domain import InvalidInput

TLS = "server: {tls: {cert: a.crt, key: a.key}}"
KEYS = "security: {keys_file: keys.json}"


def written(tmp_path: Path, yaml: str) -> Path:
    file = tmp_path / "config.yaml"
    file.write_text(f"{yaml}\n")
    return file


def test_each_server_has_a_port_of_its_own_on_this_machine() -> None:
    compositing, inference = load_compositing_config(None, {}), load_inference_config(None, {})
    assert (compositing.metrics.host, compositing.metrics.port) == ("127.0.0.1", 9464)
    assert (inference.metrics.host, inference.metrics.port) == ("127.0.0.1", 9465)


@pytest.mark.parametrize("load", [load_compositing_config, load_inference_config])
@pytest.mark.parametrize(
    ("yaml", "missing"),
    [
        ("", r"metrics\.host is 0\.0\.0\.0.*without server\.tls .* and security\.keys_file"),
        (TLS, r"metrics\.host .*without security\.keys_file"),
        (KEYS, r"metrics\.host .*without server\.tls"),
    ],
)
def test_numbers_that_others_reach_have_to_be_closed(
    tmp_path: Path, load: object, yaml: str, missing: str
) -> None:
    file = written(tmp_path, f"metrics: {{host: 0.0.0.0}}\n{yaml}")
    with pytest.raises(InvalidInput, match=missing):
        load(file, {})  # type: ignore[operator]


@pytest.mark.parametrize("load", [load_compositing_config, load_inference_config])
@pytest.mark.parametrize(
    "yaml",
    [
        f"metrics: {{host: 0.0.0.0}}\n{TLS}\n{KEYS}",
        "metrics: {host: 0.0.0.0}\nserver: {insecure: true}",
        "metrics: {host: 0.0.0.0, enabled: false}",
        "metrics: {host: '::1', port: 0}",
    ],
)
def test_numbers_that_are_closed_or_said_to_be_open(
    tmp_path: Path, load: object, yaml: str
) -> None:
    load(written(tmp_path, yaml), {})  # type: ignore[operator]
