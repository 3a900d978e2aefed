"""Live sessions from Python."""

import subprocess
import sys

import pytest

import lipwire
from lipwire.api import connect, live
from lipwire.domain import InvalidInput


def test_a_connection_is_had_from_the_package_and_from_the_api() -> None:
    for open_connection in (lipwire.connect, connect):
        with open_connection("localhost:50052") as server:
            assert isinstance(server, live.AvatarConnection)
            assert server.address == "localhost:50052"
        with pytest.raises(InvalidInput):
            open_connection("http://localhost:50052")


def test_what_a_session_sends_can_be_told_apart() -> None:
    for name in live.__all__:
        assert hasattr(live, name)
    kinds = set(live.Received.__args__)
    assert {kind.__name__ for kind in kinds} <= set(live.__all__)


@pytest.mark.slow
def test_who_has_no_live_sessions_imports_no_grpc() -> None:
    program = "import lipwire, lipwire.api, sys; sys.exit('grpc' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
