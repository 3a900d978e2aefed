"""Which inference servers are without an avatar's frames, so that requests bring crops."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

_REMEMBERED_S: Final = 60.0
"""Afterwards the server is asked once more without crops: it may have the frames by then."""
_MOST: Final = 20_000


class CropsWanted:
    """Remembers for a minute which inference servers do not have which avatar's frames, so that
    requests to them have to bring crops, the pictures that the network is shown. ``(address,
    model_id) in crops_wanted`` says whether that server needs crops of that avatar. At most 20,000
    such pairs are kept, the latest. Thread-safe."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """``clock`` gives seconds."""
        self._clock = clock
        self._until_s: OrderedDict[tuple[str, str], float] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, address: str, model_id: str) -> bool:
        """Remember for a minute from now on that the server at ``address`` needs crops of avatar
        ``model_id``. Returns True where the pair is new; False where it was added before, also
        where its minute has run out since."""
        with self._lock:
            news = self._until_s.pop((address, model_id), None) is None
            self._until_s[address, model_id] = self._clock() + _REMEMBERED_S
            while len(self._until_s) > _MOST:
                self._until_s.popitem(last=False)
        return news

    def __contains__(self, pair: tuple[str, str]) -> bool:
        with self._lock:
            return self._clock() < self._until_s.get(pair, 0.0)
