import socket

import pytest

from lipwire.domain import InvalidInput, Unavailable
from lipwire.rpc.server.ports import held_port


def listening(port: int, *, shared: bool) -> socket.socket:
    sock = socket.socket()
    if shared:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(("127.0.0.1", port))
    sock.listen()
    return sock


def test_a_held_port_takes_no_connections_of_those_that_share_it() -> None:
    with held_port("127.0.0.1", 0) as port, listening(port, shared=True) as server:
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", port), timeout=60):
                server.accept()[0].close()


@pytest.mark.parametrize("shared", [False, True])
def test_a_port_that_another_program_listens_on_is_refused(shared: bool) -> None:
    with listening(0, shared=shared) as other:
        port = other.getsockname()[1]
        with pytest.raises(Unavailable, match=f"127.0.0.1:{port}: address already in use"):
            held_port("127.0.0.1", port).__enter__()


def test_a_host_that_is_none_is_named() -> None:
    with pytest.raises(InvalidInput, match=r"server.host is 'no such host'"):
        held_port("no such host", 0).__enter__()
