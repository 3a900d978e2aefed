from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lipwire.cli.doctor.access import access
from lipwire.cli.doctor.checks import Outcome
from lipwire.config import CompositingConfig

TLS = {"cert": "server.crt", "key": "server.key"}
OPEN: dict[str, Any] = {"server": {"host": "0.0.0.0", "insecure": True}}
CLOSED: dict[str, Any] = {
    "server": {"host": "0.0.0.0", "tls": TLS},
    "security": {
        "keys_file": "keys.json",
        "limits": {"requests_per_minute": 100},
        "allow_from": "10.0.0.0/8",
        "audit_file": "audit.jsonl",
    },
}


def found(values: dict[str, Any]) -> dict[str, Outcome]:
    checks = list(access(CompositingConfig.model_validate(values)))
    assert all(check.action for check in checks if check.outcome is Outcome.WARNING)
    return {check.name: check.outcome for check in checks}


def test_a_server_of_this_machine_alone_needs_nothing() -> None:
    assert found({}) == {"who can ask": Outcome.NOT_APPLICABLE}


def test_an_open_server_is_warned_of() -> None:
    assert found(OPEN) == {
        "encryption": Outcome.WARNING,
        "who can ask": Outcome.WARNING,
        "limits for each tenant": Outcome.WARNING,
        "addresses": Outcome.NOT_APPLICABLE,
        "record of calls": Outcome.WARNING,
    }


def test_a_closed_server_is_ok() -> None:
    assert set(found(CLOSED).values()) == {Outcome.OK}


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("limits", "limits for each tenant"),
        ("audit_file", "record of calls"),
    ],
)
def test_what_is_missing_is_named(key: str, name: str) -> None:
    security = {k: v for k, v in CLOSED["security"].items() if k != key}
    assert found(CLOSED | {"security": security})[name] is Outcome.WARNING


def test_the_port_of_metrics_counts_as_well() -> None:
    metrics = {"host": "0.0.0.0"}
    names = found({"server": {"insecure": True}, "metrics": metrics})
    assert names["who can ask"] is Outcome.WARNING
    off = found({"server": {"insecure": True}, "metrics": metrics | {"enabled": False}})
    assert off == {"who can ask": Outcome.NOT_APPLICABLE}


def test_the_page_counts_as_well(tmp_path: Path) -> None:
    web = {"host": "0.0.0.0"}
    names = found({"server": {"insecure": True}, "web": web})
    assert names["who can ask"] is Outcome.WARNING
    off = found({"server": {"insecure": True}, "web": web | {"enabled": False}})
    assert off == {"who can ask": Outcome.NOT_APPLICABLE}
