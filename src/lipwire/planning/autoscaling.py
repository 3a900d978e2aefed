"""How many servers an autoscaler asks for, and how late: Kubernetes' HorizontalPodAutoscaler, and
KEDA, which gives its numbers to one.

The rule is that of Kubernetes' documentation ("Horizontal Pod Autoscaling"): as many servers as
bring the mean of a number to its target, nothing where that is within a tenth, at most twice as
many or four more at a time; downwards, what was asked for at most in a window, and one at a time.
"""

import math
from collections import deque
from dataclasses import dataclass
from typing import Final

from lipwire.domain import InvalidInput

_TOLERANCE: Final = 0.1
_ROUNDING: Final = 1e-9


@dataclass(frozen=True, slots=True)
class ScalingRules:
    """How an autoscaler reacts; ``name`` is what it is called. It looks every ``poll_s`` seconds at
    a measured number that is ``age_s`` seconds old by then, and adds or removes servers so that the
    mean of that number over the servers is ``target``. A server that it asks for begins to serve
    ``start_s`` seconds later. There are ``least`` to ``most`` servers. Before one is removed, the
    highest number of servers that was wished for in the last ``stabilisation_s`` seconds counts,
    and one is removed in ``down_every_s`` seconds at most.

    Raises InvalidInput where ``target`` or ``poll_s`` is not above 0, another time is negative, or
    not 1 <= ``least`` <= ``most``.
    """

    name: str
    target: float = 0.8
    poll_s: float = 15.0
    age_s: float = 30.0
    start_s: float = 90.0
    stabilisation_s: float = 600.0
    down_every_s: float = 300.0
    least: int = 1
    most: int = 100

    def __post_init__(self) -> None:
        if not self.target > 0:
            raise InvalidInput(f"target is {self.target:g}; allowed is what is above 0")
        if not self.poll_s > 0:
            raise InvalidInput(f"poll_s is {self.poll_s:g}; allowed is what is above 0")
        for label, number in (
            ("age_s", self.age_s),
            ("start_s", self.start_s),
            ("stabilisation_s", self.stabilisation_s),
            ("down_every_s", self.down_every_s),
        ):
            if not number >= 0:
                raise InvalidInput(f"{label} is {number:g}; allowed are 0 and above")
        if not 1 <= self.least <= self.most:
            raise InvalidInput(
                f"least is {self.least} and most is {self.most}; allowed is 1 <= least <= most"
            )


def hpa(**changes: float | int) -> ScalingRules:
    """Return the rules, named "hpa", of Kubernetes' HorizontalPodAutoscaler with
    prometheus-adapter: it looks every 15 s (Kubernetes' default) at numbers that are up to 30 s
    old, because Prometheus scrapes every 15 s and the adapter reads from it every 15 s.

    ``changes`` are fields of ``ScalingRules`` by name, in place of these and of its defaults.
    Raises InvalidInput for numbers out of range.
    """
    return _with(ScalingRules("hpa"), changes)


def keda(**changes: float | int) -> ScalingRules:
    """Return the rules, named "keda", of KEDA, which reads from Prometheus itself: the
    HorizontalPodAutoscaler that it makes looks every 15 s at numbers that are up to 15 s old.
    (KEDA's own polling, every 30 s, only decides between no server and one.)

    ``changes`` are fields of ``ScalingRules`` by name, in place of these and of its defaults.
    Raises InvalidInput for numbers out of range.
    """
    return _with(ScalingRules("keda", age_s=15.0), changes)


def _with(rules: ScalingRules, changes: dict[str, float | int]) -> ScalingRules:
    fields = {name: getattr(rules, name) for name in ScalingRules.__slots__}
    return ScalingRules(**(fields | changes))


class Autoscaler:
    """Says how many servers there are to be, by ``rules`` (``ScalingRules``): the caller calls
    ``wanted`` every ``rules.poll_s`` seconds. The answer depends on earlier calls, too: servers are
    removed one at a time, and not before they were superfluous for ``rules.stabilisation_s``
    seconds. Not thread-safe; times are seconds of any one clock."""

    def __init__(self, rules: ScalingRules) -> None:
        """``rules`` say how it reacts."""
        self.rules: Final = rules
        self._wishes: deque[tuple[float, int]] = deque()
        self._down_s = -math.inf

    def wanted(self, current: int, total: float, now: float) -> int:
        """Return how many servers there are to be from ``now`` on: ``current - 1`` at least, and
        ``2 * current`` or ``current + 4`` at most, whichever is more. ``current`` is how many there
        are now, 1 or more, including those that are starting. ``total`` is the sum, over all
        servers that serve, of the measured number whose mean is to be ``rules.target``, as it was
        ``rules.age_s`` seconds ago."""
        rules = self.rules
        ratio = total / (rules.target * current)
        wish = current
        if abs(ratio - 1.0) > _TOLERANCE + _ROUNDING:
            wish = math.ceil(total / rules.target - _ROUNDING)
        wish = min(max(wish, rules.least), rules.most)
        self._wishes.append((now, wish))
        while self._wishes[0][0] < now - rules.stabilisation_s:
            self._wishes.popleft()
        if wish > current:
            return min(wish, max(2 * current, current + 4))
        highest = max(wish for _, wish in self._wishes)
        if highest >= current or now - self._down_s < rules.down_every_s:
            return current
        self._down_s = now
        return current - 1
