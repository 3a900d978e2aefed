"""A client that sends little by little."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def trickling(connection: socket.socket) -> Iterator[None]:
    """Have another thread send a byte now and then during the ``with`` block, until the other end
    takes no more."""
    over = threading.Event()

    def trickle() -> None:
        while not over.wait(0.02):
            try:
                connection.sendall(b" ")
            except OSError:
                return

    thread = threading.Thread(target=trickle)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
