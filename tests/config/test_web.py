"""The keys of the page and its HTTP API."""

from pathlib import Path

import pytest

from lipwire.config import check_config, load_compositing_config


def test_the_page_is_for_this_machine_without_a_file() -> None:
    web = load_compositing_config(None, {}).web
    assert (web.enabled, web.host, web.port) == (None, "127.0.0.1", 8080)
    assert (web.hosts, web.token, web.ice.urls, web.ice.relay_only) == ((), None, (), False)


def test_keys_are_read_from_a_file_and_from_variables(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(
        "web:\n  port: 0\n  hosts: a.example, b.example\n  token: sixteen letters!\n"
        "  ice:\n    urls: 'stun:example.org, turn:example.org:443?transport=tcp'\n"
        "    username: anna\n    relay_only: true\n"
    )
    variables = {"LIPWIRE_WEB__ENABLED": "false", "LIPWIRE_WEB__ICE__CREDENTIAL": "of anna"}
    web = load_compositing_config(path, variables).web
    assert (web.enabled, web.port, web.hosts) == (False, 0, ("a.example", "b.example"))
    assert web.token == "sixteen letters!"
    assert web.ice.urls == ("stun:example.org", "turn:example.org:443?transport=tcp")
    assert (web.ice.username, web.ice.relay_only) == ("anna", True)
    assert web.ice.credential is not None
    assert web.ice.credential.get_secret_value() == "of anna"
    assert "of anna" not in repr(web)


def test_origins_are_as_browsers_send_them(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(
        "web:\n  allowed_origins: [HTTPS://App.example, 'http://localhost:3000',"
        " 'https://a.example:443', 'http://[::1]:80']\n"
    )
    assert load_compositing_config(path, {}).web.allowed_origins == (
        "https://app.example",
        "http://localhost:3000",
        "https://a.example",
        "http://[::1]",
    )
    given = {"LIPWIRE_WEB__ALLOWED_ORIGINS": "https://a.example, https://b.example"}
    assert load_compositing_config(None, given).web.allowed_origins == (
        "https://a.example",
        "https://b.example",
    )
    assert load_compositing_config(None, {}).web.allowed_origins == ()


@pytest.mark.parametrize(
    "origin",
    [
        "a.example",
        "https://a.example/",
        "https://a.example/page",
        "ftp://a.example",
        "null",
        "https://*.example",
        "https://u@a.example",
        "https://a.example:0",
        "https://a.example:x",
    ],
)
def test_what_is_no_origin_is_refused_with_what_is_allowed(tmp_path: Path, origin: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(f"web:\n  allowed_origins: ['{origin}']\n")
    (problem,) = check_config(path, {}, "compositing").problems
    assert origin in str(problem)
    assert "https://app.example.org" in str(problem)


def test_any_origin_needs_a_token(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("web:\n  allowed_origins: '*'\n")
    (problem,) = check_config(path, {}, "compositing").problems
    assert "allowed_origins has *, any page, and token is missing" in str(problem)
    path.write_text("web:\n  allowed_origins: '*'\n  token: sixteen letters!\n")
    assert load_compositing_config(path, {}).web.allowed_origins == ("*",)


@pytest.mark.parametrize("line", ["port: 65536", "port: -1", "token: short", "ports: 1"])
def test_a_wrong_key_is_one_problem_with_its_line(tmp_path: Path, line: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(f"web:\n  {line}\n")
    (problem,) = check_config(path, {}, "compositing").problems
    assert problem.place == 2


@pytest.mark.parametrize(
    ("ice", "said"),
    [
        ("{urls: example.org}", "stun:HOST:PORT"),
        ("{urls: 'stun:example.org:0'}", "stun:HOST:PORT"),
        ("{urls: 'stun:example.org:3478?transport=udp'}", "stun:HOST:PORT"),
        ("{urls: ['turn:example.org:70000']}", "stun:HOST:PORT"),
        ("{urls: 'turn:example.org?transport=sctp'}", "stun:HOST:PORT"),
        ("{urls: 'turn:example.org>; rel=x'}", "stun:HOST:PORT"),
        ("{urls: 'turn:example.org', username: a}", "needs username and credential"),
        ("{urls: 'turns:example.org', credential: a}", "needs username and credential"),
        ("{urls: 'turn:a', secret: b, username: a, credential: c}", "set one of them"),
        ('{urls: "turn:a", secret: "\\u0142"}', "secret has other characters"),
        ("{relay_only: true}", "name no TURN server"),
        ("{urls: 'stun:example.org', relay_only: true}", "name no TURN server"),
        ('{urls: "turn:a", username: "a\\nb", credential: c}', "username has other characters"),
        ('{urls: "turn:a", username: a, credential: "\\u0142"}', "credential has other characters"),
    ],
)
def test_ice_servers_that_could_not_work_are_refused(tmp_path: Path, ice: str, said: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(f"web:\n  ice: {ice}\n")
    (problem,) = check_config(path, {}, "compositing").problems
    assert said in problem.message
