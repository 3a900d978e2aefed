"""How many bits a second a viewer takes, from what its browser estimates.

A browser's estimate (REMB, draft-alvestrand-rmcat-remb) follows what arrives: while little is
sent, it stays little above that, whatever the network could carry. It is a limit only where it is
below what is sent: then packets queue up somewhere on their way.
"""

from typing import Final

_QUEUES_BELOW: Final = 0.9
"""An estimate below so much of what is sent says that packets queue up."""
_HELD_S: Final = 10.0
"""A limit holds for so long after packets last queued up, and is raised then."""
_RAISED: Final = 2.0


class ViewerRate:
    """The most bits a second that one viewer can be sent, from its browser's estimates: ``limit``,
    None where there is no limit. Not for use from several threads at once."""

    def __init__(self) -> None:
        self.limit: int | None = None
        """Bits a second; None where nothing queues up."""
        self._since_s = 0.0

    def estimated(self, bits_a_second: int, sent: float, most: int, now: float) -> None:
        """Update ``limit`` by ``bits_a_second``, what a browser estimates that it can receive.
        Where the estimate is below 0.9 of ``sent``, it becomes the limit. Otherwise a limit that
        was last changed ten seconds ago or more is doubled, or removed where the double is ``most``
        or above. ``sent`` is what is being sent to the viewer and ``most`` what would be sent
        without any limit, both in bits a second; ``now`` is in seconds of any one clock."""
        if bits_a_second < _QUEUES_BELOW * sent:
            self.limit, self._since_s = bits_a_second, now
        elif self.limit is not None and now - self._since_s >= _HELD_S:
            raised = round(_RAISED * self.limit)
            self.limit, self._since_s = (None if raised >= most else raised), now
