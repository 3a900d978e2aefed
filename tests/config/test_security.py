"""Servers are closed unless a file says otherwise."""

from pathlib import Path

import pytest

from lipwire.config import load_compositing_config, load_inference_config
from lipwire.domain import InvalidInput

TLS = "tls: {cert: a.crt, key: a.key}"
KEYS = "security: {keys_file: keys.json}"
JWT = "security: {jwt: {issuer: a, audience: b, key_file: c}}"


def load(tmp_path: Path, yaml: str) -> object:
    file = tmp_path / "config.yaml"
    file.write_text(f"{yaml}\n")
    load_inference_config(file, {})
    return load_compositing_config(file, {})


@pytest.mark.parametrize(
    "yaml",
    [
        "",
        "server: {host: 127.0.0.1}",
        "server: {host: 127.1.2.3}",
        "server: {host: localhost}",
        "server: {host: '::1'}",
        "server: {host: 0.0.0.0, insecure: true}",
        f"server: {{host: 0.0.0.0, {TLS}}}\n{KEYS}",
        f"server: {{host: 0.0.0.0, {TLS}}}\n{JWT}",
        "server: {host: 10.0.0.1, tls: {cert: a, key: b, client_ca: c, client_names: d}}",
    ],
)
def test_what_is_closed_or_said_to_be_open_loads(tmp_path: Path, yaml: str) -> None:
    load(tmp_path, yaml)


@pytest.mark.parametrize(
    ("yaml", "missing"),
    [
        ("server: {host: 0.0.0.0}", r"without server\.tls \(a certificate\) and security"),
        ("server: {host: '::'}", r"without server\.tls"),
        ("server: {port: '0.0.0.0:50051'}", r"without server\.tls"),
        (f"server: {{host: 10.0.0.1, {TLS}}}", r"without security\.keys_file or security\.jwt"),
        (f"server: {{host: gpu-1}}\n{KEYS}", r"without server\.tls \(a certificate\);"),
        (
            "server: {host: 10.0.0.1, tls: {cert: a, key: b, client_ca: c}}",
            r"without security\.keys_file",
        ),
    ],
)
def test_what_others_reach_has_to_be_closed(tmp_path: Path, yaml: str, missing: str) -> None:
    with pytest.raises(InvalidInput, match=missing):
        load(tmp_path, yaml)


@pytest.mark.parametrize(
    ("yaml", "said"),
    [
        ("server: {tls: {cert: a}}", "cert and key belong together"),
        ("server: {tls: {client_ca: a}}", "client_ca is given and cert is missing"),
        ("server: {tls: {cert: a, key: b, client_names: c}}", "client_ca is missing"),
        ("security: {jwt: {issuer: a}}", "issuer, audience, and one of"),
        ("security: {jwt: {issuer: a, audience: b}}", "issuer, audience, and one of"),
        (
            "security: {jwt: {issuer: a, audience: b, key_file: c, jwks_url: 'http://d'}}",
            "issuer, audience, and one of",
        ),
    ],
)
def test_half_a_setting_is_none(tmp_path: Path, yaml: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        load(tmp_path, yaml)


def test_a_token_is_shown_nowhere(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("inference_server: {token: hush}\n")
    config = load_compositing_config(file, {})
    assert "hush" not in repr(config)
    assert config.inference_server.token is not None
    assert config.inference_server.token.get_secret_value() == "hush"
    file.write_text("inference_server: {tls: {cert: a}}\n")
    with pytest.raises(InvalidInput, match="cert and key belong together"):
        load_compositing_config(file, {})


@pytest.mark.parametrize(
    ("yaml", "wanted"),
    [("", False), ("enabled: true", True), ("ca: a", True), ("cert: a, key: b", True)],
)
def test_tls_towards_inference_servers(tmp_path: Path, yaml: str, wanted: bool) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(f"inference_server: {{tls: {{{yaml}}}}}\n")
    assert load_compositing_config(file, {}).inference_server.tls.wanted is wanted


def test_minutes_a_month_need_a_file(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("security: {limits: {live_minutes_per_month: 60}}\n")
    with pytest.raises(InvalidInput, match="minutes_file is missing"):
        load_compositing_config(file, {})
    file.write_text("security: {limits: {live_minutes_per_month: 60, minutes_file: m.json}}\n")
    limits = load_compositing_config(file, {}).security.limits
    assert limits.minutes_file == tmp_path / "m.json"
    assert load_inference_config(file, {}).security.limits == limits


def test_minutes_a_month_need_no_file_where_redis_keeps_them(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    limits = "security: {limits: {live_minutes_per_month: 60}}\n"
    file.write_text(f"{limits}redis: {{url: 'redis://cache'}}\n")
    assert load_compositing_config(file, {}).security.limits.minutes_file is None
    file.write_text(limits)
    with pytest.raises(InvalidInput, match=r"security\.limits: minutes_file is missing"):
        load_inference_config(file, {})
