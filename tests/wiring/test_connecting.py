"""The compositing server's connection to its inference servers, as the configuration has it."""

import socket

import pytest
from tests.rpc.inferenceservers import Server
from tests.support.waiting import WAIT_S

from lipwire.config import CompositingConfig
from lipwire.domain import Call
from lipwire.wiring.backends import connect_backend


@pytest.mark.parametrize("use_proxy", [False, True])
def test_a_proxy_counts_where_the_key_says_so(
    use_proxy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("no_proxy", raising=False)
    server = Server()
    section = {"url": server.url, "use_proxy": use_proxy}
    config = CompositingConfig.model_validate({"inference_server": section})
    with socket.socket() as taken:  # bound, and not listening
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("grpc_proxy", f"http://127.0.0.1:{taken.getsockname()[1]}")
        with connect_backend(config) as backend:
            assert backend.health(call=Call(WAIT_S)).healthy is not use_proxy
    server.kill()
    assert not CompositingConfig().inference_server.use_proxy
