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
        "  ice: {urls: 'stun:example.org:3478', relay_only: true}\n"
    )
    web = load_compositing_config(path, {"LIPWIRE_WEB__ENABLED": "false"}).web
    assert (web.enabled, web.port, web.hosts) == (False, 0, ("a.example", "b.example"))
    assert web.token == "sixteen letters!"
    assert (web.ice.urls, web.ice.relay_only) == (("stun:example.org:3478",), True)


@pytest.mark.parametrize("line", ["port: 65536", "port: -1", "token: short", "ports: 1"])
def test_a_wrong_key_is_one_problem_with_its_line(tmp_path: Path, line: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(f"web:\n  {line}\n")
    (problem,) = check_config(path, {}, "compositing").problems
    assert problem.place == 2
