"""How long mouths took in earlier sessions, for those that begin."""

import threading
from collections import OrderedDict, deque
from typing import Final

_MOST: Final = 1000
_LATEST: Final = 8


class MouthTimes:
    """The time that mouths took lately, for each avatar that spoke in some live session of this
    process. New sessions begin with it as what they expect. Thread-safe.

    A session that expects too little begins to speak too early, and is without some mouths until it
    has measured more.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._of: OrderedDict[str, deque[float]] = OrderedDict()

    def expected_s(self, avatar: str) -> float | None:
        """Return how many seconds a mouth of the avatar named ``avatar`` will take, from being
        asked for until it is there: the least of the last 8 times that ``took`` noted, because a
        time measured at a busy moment says little. None where none was noted."""
        with self._lock:
            latest = self._of.get(avatar)
            return None if latest is None else min(latest)

    def took(self, avatar: str, seconds: float) -> None:
        """Note that a mouth of the avatar named ``avatar`` takes ``seconds`` where it is asked for
        alone. ``expected_s`` returns the least of the last 8 of these. The latest 1000 avatars are
        remembered."""
        with self._lock:
            self._of.setdefault(avatar, deque(maxlen=_LATEST)).append(seconds)
            self._of.move_to_end(avatar)
            if len(self._of) > _MOST:
                self._of.popitem(last=False)
