"""Health checks, and what they say of a process that works but does not serve."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.support.waiting import until

from lipwire.domain import NotFound, Unavailable
from lipwire.rpc.healthcheck import check_serving, is_serving
from lipwire.rpc.server import server as server_module
from lipwire.rpc.server.health import LIVENESS
from lipwire.rpc.server.server import RpcServer, ServerOptions
from lipwire.rpc.workers.place import address_of, socket_folder

if TYPE_CHECKING:
    from tests.rpc.conftest import Serve

WAIT_S = 60.0


def test_a_server_that_is_not_healthy_is_live(
    serve: "Serve", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "_HEALTH_EVERY_S", 0.02)
    healthy = [True]
    server = serve(healthy=lambda: healthy[0])
    address = f"127.0.0.1:{server.port}"
    assert is_serving(address, timeout_s=WAIT_S)
    healthy[0] = False
    until(lambda: not is_serving(address, timeout_s=WAIT_S))
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1:\d+ answers, and does not serve now"):
        check_serving(address, timeout_s=WAIT_S)
    check_serving(address, service=LIVENESS, timeout_s=WAIT_S)


def breaks() -> bool:
    raise RuntimeError("a part is broken")


@pytest.mark.parametrize("live", [lambda: False, breaks])
def test_a_process_with_a_part_that_does_not_work_is_not_live(live: Callable[[], bool]) -> None:
    with (
        RpcServer([], ServerOptions(host="127.0.0.1"), live=live) as server,
        pytest.raises(Unavailable, match="says that liveness is not serving"),
    ):
        check_serving(f"127.0.0.1:{server.port}", service=LIVENESS, timeout_s=WAIT_S)


def test_a_process_asks_itself_on_a_socket_of_its_own() -> None:
    with socket_folder() as folder:
        own = folder / "own.sock"
        options = ServerOptions(host="127.0.0.1", own_socket=own)
        with RpcServer([], options) as server:
            assert is_serving(address_of(own), timeout_s=WAIT_S)
            assert is_serving(f"127.0.0.1:{server.port}", timeout_s=WAIT_S)
            assert is_serving(address_of(own), service=LIVENESS, timeout_s=WAIT_S)


def test_a_service_that_is_not_there_and_a_server_that_is_not_are_told(tmp_path: Path) -> None:
    with RpcServer([], ServerOptions(host="127.0.0.1")) as server:
        address = f"127.0.0.1:{server.port}"
        with pytest.raises(NotFound):
            is_serving(address, service="lipwire.v1.Nothing", timeout_s=WAIT_S)
    with pytest.raises(Unavailable, match="connection refused"):
        is_serving(address, timeout_s=WAIT_S)
    with pytest.raises(Unavailable):
        is_serving(address_of(tmp_path / "nobody.sock"), timeout_s=WAIT_S)
