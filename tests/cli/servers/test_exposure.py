from collections.abc import Callable
from pathlib import Path

import pytest

from lipwire.cli.servers.exposure import exposure
from lipwire.config import load_compositing_config

CERTIFICATE = "tls: {cert: server.crt, key: server.key}"


@pytest.fixture
def facts(tmp_path: Path) -> Callable[[str], dict[str, object]]:
    """What a server with this configuration says."""

    def of(text: str) -> dict[str, object]:
        path = tmp_path / "config.yaml"
        path.write_text(text)
        config = load_compositing_config(path, {})
        return exposure(config, config.server, config.web)

    return of


def test_a_server_of_this_machine_alone_says_so(facts: Callable[[str], dict[str, object]]) -> None:
    assert facts("server: {port: 50052}") == {
        "Asked by": "anybody",
        "Encrypted": "no",
        "Reached from": "this machine alone; server.host, server.tls and security open it",
    }


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("server: {host: 0.0.0.0, insecure: true}", "0.0.0.0"),
        ("server: {insecure: true}\nweb: {host: 192.0.2.1}", "192.0.2.1"),
        ("server: {host: '::', insecure: true}\nweb: {host: 192.0.2.1}", ":: and 192.0.2.1"),
        (f"server: {{host: 0.0.0.0, insecure: true, {CERTIFICATE}}}", "0.0.0.0"),
    ],
)
def test_what_is_open_to_others_says_where(
    facts: Callable[[str], dict[str, object]], text: str, hosts: str
) -> None:
    said = facts(text)
    assert str(said["INSECURE"]).startswith(f"other machines can ask at {hosts};")
    assert "Reached from" not in said


def test_a_server_that_is_encrypted_and_closed_is_not_insecure(
    facts: Callable[[str], dict[str, object]],
) -> None:
    assert facts(
        f"server: {{host: 0.0.0.0, {CERTIFICATE}}}\n"
        "security: {keys_file: keys.yaml, allow_from: [192.0.2.0/24, '2001:db8::/32']}"
    ) == {
        "Asked by": "whoever has an API key, a token or a certificate",
        "Encrypted": "TLS",
        "Allowed from": "192.0.2.0/24, 2001:db8::/32",
    }
