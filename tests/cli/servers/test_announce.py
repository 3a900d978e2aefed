"""What a server prints while it starts, and to whom."""

import sys

import pytest

from lipwire.cli.servers.announce import Announcer


class Full:
    """Standard output on a full disk."""

    encoding = "utf-8"

    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")

    def flush(self) -> None:
        raise OSError(28, "No space left on device")


def test_a_server_starts_though_nobody_can_read_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", Full())
    announced = Announcer("server", as_json=False, quiet=False)
    announced.begin()
    announced.section("Configuration", {"port": 1})
    announced.ready(1)
