"""A network between two ends of WebRTC that loses packets and is slow: two UDP sockets on loopback.

What either end says of its addresses is replaced, so that it knows of no other way.
"""

import heapq
import random
import re
import selectors
import socket
import threading
import time
from types import TracebackType
from typing import Final, Self

_CANDIDATE: Final = re.compile(
    r"^a=candidate:\S+ 1 udp \d+ (?P<host>\S+) (?P<port>\d+) typ host.*\r\n", re.M | re.I
)
_ANY_CANDIDATE: Final = re.compile(r"^a=(candidate:.*|end-of-candidates)\r\n", re.M)
_MOST_BYTES: Final = 2048


class LossyNetwork:
    """Loses ``loss`` of the packets in each direction, and gives each of the others away
    ``delay_s`` after it came, in their order. A context manager, for one viewer."""

    def __init__(self, *, loss: float = 0.02, delay_s: float = 0.05, seed: int = 1) -> None:
        self._loss: Final = loss
        self._delay_s: Final = delay_s
        self._chance = random.Random(seed)
        self._sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
        for one in self._sockets:
            one.bind(("127.0.0.1", 0))
            one.setblocking(False)
        # Where what came to the other socket goes: the viewer's address, and the server's.
        self._ends: list[tuple[str, int] | None] = [None, None]
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="network")
        self.lost = 0
        self.passed = 0

    def offered(self, sdp: str) -> str:
        """Return a viewer's offer as the server sees it."""
        return self._replaced(sdp, viewer=True)

    def answered(self, sdp: str) -> str:
        """Return the server's answer as the viewer sees it."""
        return self._replaced(sdp, viewer=False)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopped.set()
        self._thread.join()
        for one in self._sockets:
            one.close()

    def _replaced(self, sdp: str, *, viewer: bool) -> str:
        found = _CANDIDATE.search(sdp)
        assert found is not None, sdp
        end = 0 if viewer else 1
        if self._ends[end] is None and not found["host"].endswith(".local"):
            self._ends[end] = (found["host"], int(found["port"]))
        # The server sends to the second socket what is for the viewer, and the viewer to the first.
        host, port = self._sockets[1 if viewer else 0].getsockname()
        line = f"a=candidate:1 1 udp 2130706431 {host} {port} typ host\r\na=end-of-candidates\r\n"
        bare = _ANY_CANDIDATE.sub("", sdp)
        return re.sub(r"^(a=ice-ufrag:)", lambda told: line + told[1], bare, flags=re.M)

    def _run(self) -> None:
        waiting: list[tuple[float, int, int, bytes]] = []
        count = 0
        with selectors.DefaultSelector() as selector:
            for index, one in enumerate(self._sockets):
                selector.register(one, selectors.EVENT_READ, index)
            while not self._stopped.is_set():
                left_s = waiting[0][0] - time.monotonic() if waiting else 0.1
                for key, _ in selector.select(max(0.0, min(0.1, left_s))):
                    index = key.data
                    data, source = self._sockets[index].recvfrom(_MOST_BYTES)
                    self._ends[index] = source
                    if self._chance.random() < self._loss:
                        self.lost += 1
                        continue
                    self.passed += 1
                    count += 1
                    heapq.heappush(
                        waiting, (time.monotonic() + self._delay_s, count, 1 - index, data)
                    )
                while waiting and waiting[0][0] <= time.monotonic():
                    _, _, index, data = heapq.heappop(waiting)
                    end = self._ends[index]
                    if end is not None:
                        self._sockets[index].sendto(data, end)
