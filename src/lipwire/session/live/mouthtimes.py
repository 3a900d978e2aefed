"""How long mouths took in earlier sessions, for those that begin."""

import threading
from collections import OrderedDict, deque
from typing import Final

_MOST: Final = 1000
_LATEST: Final = 8


class MouthTimes:
    """The time that mouths took lately, for each avatar that spoke in some live session of this
    process: what a session that begins expects. Thread-safe.

    A session that expects too little begins to speak too early, and is without some mouths until it
    knows better.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._of: OrderedDict[str, deque[float]] = OrderedDict()

    def expected_s(self, avatar: str) -> float | None:
        """Return how many seconds a mouth of the avatar named ``avatar`` will take, from being
        asked for until it is there: the least of the last 8 times that were noted, as a busy moment
        is no measure; None where none was."""
        with self._lock:
            latest = self._of.get(avatar)
            return None if latest is None else min(latest)

    def took(self, avatar: str, seconds: float) -> None:
        """Note that a mouth of the avatar named ``avatar``, asked for alone, takes ``seconds``;
        ``expected_s`` goes by it. The latest 1000 avatars are remembered."""
        with self._lock:
            self._of.setdefault(avatar, deque(maxlen=_LATEST)).append(seconds)
            self._of.move_to_end(avatar)
            if len(self._of) > _MOST:
                self._of.popitem(last=False)
