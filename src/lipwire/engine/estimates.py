"""How long a network takes for a frame, learnt from its runs."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Final

_WEIGHT: Final = 0.25
"""Of the newest run in the running mean."""
_BELIEVED_S: Final = 5.0
"""A mean that no run has confirmed for this long counts half, and half again: one slow moment must
not refuse every request for ever, for refused requests measure nothing."""
_MAX_KEYS: Final = 4096


class ServiceTimes:
    """Seconds a frame, by kind of work. Not thread-safe.

    ``group`` says which kinds are alike: the mean of the group stands in for a kind that was never
    run.
    """

    def __init__(self) -> None:
        self._means: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()  # (mean, when)

    def learn(self, kind: Hashable, group: Hashable, frame_s: float, now: float) -> None:
        for name in (("kind", kind), ("group", group)):
            known = self._means.get(name)
            if known is None:
                mean = frame_s
            else:
                believed = _believed(known, now)
                mean = believed + _WEIGHT * (frame_s - believed)
            self._means[name] = (mean, now)
            self._means.move_to_end(name)
        while len(self._means) > _MAX_KEYS:
            self._means.popitem(last=False)

    def frame_s(self, kind: Hashable, group: Hashable, now: float) -> float:
        """Expected seconds a frame; 0 where nothing like it has ever been run."""
        known = self._means.get(("kind", kind)) or self._means.get(("group", group))
        return 0.0 if known is None else _believed(known, now)


def _believed(known: tuple[float, float], now: float) -> float:
    mean, when = known
    unconfirmed_s = now - when - _BELIEVED_S
    if unconfirmed_s <= 0:
        return mean
    return mean * float(0.5 ** min(unconfirmed_s / _BELIEVED_S, 60.0))
