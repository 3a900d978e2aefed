"""Options of `lipwire serve` about the page."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lipwire.config import CompositingConfig


@pytest.fixture
def config_of(
    lipwire: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., CompositingConfig]:
    """The configuration that the server would have."""
    monkeypatch.chdir(tmp_path)
    seen: list[CompositingConfig] = []

    def run_server(title: str, config: CompositingConfig, *_: object, web: object) -> None:
        assert web == (None if config.web.enabled is False else config.web)
        seen.append(config)

    monkeypatch.setattr("lipwire.cli.servers.process.run_server", run_server)

    def run(*arguments: object) -> CompositingConfig:
        outcome = lipwire("serve", *arguments)
        assert outcome.code == 0, outcome
        return seen[-1]

    return run


def test_the_port_of_the_page_can_be_chosen(config_of: Callable[..., CompositingConfig]) -> None:
    assert config_of().web.port == 8080
    web = config_of("--web-port", 0).web
    assert (web.port, web.enabled) == (0, None)


def test_there_may_be_no_page(config_of: Callable[..., CompositingConfig]) -> None:
    web = config_of("--no-web").web
    assert (web.port, web.enabled) == (8080, False)


def test_ports_are_checked(lipwire: Callable[..., Any]) -> None:
    outcome = lipwire("serve", "--web-port", 65536)
    assert outcome.code == 2
    assert "--web-port" in outcome.err
