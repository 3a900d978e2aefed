"""A port that several processes listen on together."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from lipwire.domain import InvalidInput, Unavailable


@contextmanager
def held_port(
    host: str,
    port: int,
    *,
    family: socket.AddressFamily = socket.AF_UNSPEC,
    key: str = "server.host",
) -> Iterator[int]:
    """Keep ``port`` of ``host`` (0: any free one) for processes that bind it with SO_REUSEPORT, for
    the ``with`` block, which gets the port's number. A context manager. The socket is bound and
    does not listen, so it gets none of their connections.

    ``family`` is the address family to choose where ``host`` has addresses of several (AF_UNSPEC:
    the first that the system names), ``key`` what the configuration calls ``host``, for errors.
    Raises Unavailable where another program has the port, which SO_REUSEPORT alone would not tell,
    and InvalidInput where ``host`` is not known or the system cannot share ports.
    """
    if not hasattr(socket, "SO_REUSEPORT"):
        raise InvalidInput("server.workers is above 1, but this system cannot share a port; use 1")
    family, address = _address(host, port, family, key)
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # Connections of an earlier server may linger; only one that listens is in the way.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _bind(probe, address)
        address = (address[0], probe.getsockname()[1])
    with socket.socket(family, socket.SOCK_STREAM) as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        _bind(held, address)
        yield address[1]


def _address(
    host: str, port: int, family: socket.AddressFamily, key: str
) -> tuple[socket.AddressFamily, tuple[str, int]]:
    try:
        found = socket.getaddrinfo(host.strip("[]"), port, family, socket.SOCK_STREAM)
    except OSError as error:
        raise InvalidInput(f"{key} is {host!r}: {error.strerror}") from None
    family, _, _, _, address = found[0]
    return family, (str(address[0]), int(address[1]))


def _bind(sock: socket.socket, address: tuple[str, int]) -> None:
    try:
        sock.bind(address)
    except OSError as error:
        reason = os.strerror(error.errno).lower() if error.errno else str(error)
        raise Unavailable(f"cannot listen on {address[0]}:{address[1]}: {reason}") from None
