"""Ports for servers that are started again at the same one."""

import random
import socket
from contextlib import suppress


def own_port() -> int:
    """A free port that the system gives to nobody who asks for any: a server that has ended finds
    it free when it is started again."""
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
