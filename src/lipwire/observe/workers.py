"""Numbers of a server's processes, read by their parent over Unix sockets that only their user can
reach."""

import logging
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest

from lipwire.domain.closing import Closing
from lipwire.observe.summing import Summed

_LOG: Final = logging.getLogger("lipwire.observe")
_ANSWERED_WITHIN_S: Final = 2.0
_POLL_S: Final = 0.2
_PIECE_BYTES: Final = 65536
HEALTHY: Final = b"\nlipwire_healthy 1.0\n"
"""What the numbers of a process have in them that can make mouths."""


class AnsweringSocket(Closing):
    """Answers whoever connects to a Unix socket with what a function returns. A context manager: it
    listens, in a thread of its own, until it is closed."""

    def __init__(self, path: Path, read: Callable[[], bytes]) -> None:
        """``read()`` returns the bytes that a connection is sent before it is closed. ``path`` is
        where the socket is made; a file that an earlier process has left there is replaced."""
        self._read = read
        self._path = path
        self._stopping = threading.Event()
        path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(str(path))
        self._socket.listen(8)
        self._socket.settimeout(_POLL_S)
        self._thread = threading.Thread(target=self._run, name="lipwire-metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening, and wait for the thread, which first finishes an answer that it has
        begun. The file of the socket is not removed."""
        self._stopping.set()
        self._thread.join()
        self._socket.close()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                connection, _ = self._socket.accept()
            except TimeoutError:
                continue
            with connection, suppress(OSError):
                connection.settimeout(_ANSWERED_WITHIN_S)
                try:
                    text = self._read()
                except Exception:
                    _LOG.exception("the numbers of this process could not be read")
                    continue
                connection.sendall(text)


class WorkersMetrics:
    """The metrics of the processes of a server, read over their Unix sockets and added up.
    Thread-safe."""

    def __init__(self, sockets: Sequence[Path]) -> None:
        """``sockets`` are the paths at which the processes' ``AnsweringSocket`` listen, one for
        each process, in the order of the processes' numbers from 0."""
        self._sockets = sockets
        self._lock = threading.Lock()
        self._summed = Summed()
        self._registry = CollectorRegistry()
        self._registry.register(self._summed)

    def read(self) -> bytes:
        """Return the sums in Prometheus' text format. The processes are asked one after the other.
        Of a process that does not answer within about two seconds, only counters and histograms
        count, as they were when it last answered."""
        with self._lock:
            texts = {
                number: text
                for number, path in enumerate(self._sockets)
                if (text := _answer_of(path))
            }
            self._summed.take(texts)
            return generate_latest(self._registry)

    def any_healthy(self) -> bool:
        """Return whether any of the processes answers and says in its metrics that it can make
        mouths, the pictures that the network draws. They are asked one after the other, each with
        about two seconds to answer."""
        return any(HEALTHY in _answer_of(path) for path in self._sockets)


def _answer_of(path: Path) -> bytes:
    """What is answered at the socket ``path``; empty where nothing is."""
    pieces = []
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(_ANSWERED_WITHIN_S)
            connection.connect(str(path))
            while piece := connection.recv(_PIECE_BYTES):
                pieces.append(piece)
    except OSError:
        return b""
    return b"".join(pieces)
