"""How the mouth passes from rest to speech and back."""

from typing import Final

from lipwire.domain import UInt8Array


class Crossfade:
    """Limits how much of a speaking mouth is shown in place of the mouth at rest, so that this
    share (a weight of 0 to 1) changes by at most one step, 1 / (``frames`` + 1), from one frame to
    the next. Keeps the mouth that was shown last, for frames that have none of their own. Call
    ``toward`` once for each frame, in order. Not thread-safe."""

    def __init__(self, frames: int) -> None:
        """``frames`` lie between none of the mouth and all of it; 0 to change at once."""
        self._step: Final = 1.0 / (frames + 1)
        self._weight = 0.0
        self._mouth: UInt8Array | None = None

    @property
    def closed(self) -> bool:
        """Whether the last frame showed only the mouth at rest, nothing of a speaking one."""
        return not self._weight

    def toward(
        self, weight: float, mouth: UInt8Array | None = None
    ) -> tuple[UInt8Array | None, float]:
        """Return what the next frame is to show on its way to ``weight``, 0 to 1, of ``mouth``,
        (320, 320, 3) uint8: (the mouth, and its weight, 0 to 1), or (None, 0) for the mouth at rest
        alone. The weight differs by one step at most from the one of the frame before. ``mouth``
        None stands for the mouth of the last frame. Nothing is mixed here, and the mouth is not
        copied."""
        change = weight - self._weight
        if abs(change) > self._step * 1.001:  # a step may be rounded
            weight = self._weight + (self._step if change > 0 else -self._step)
        self._weight = 0.0 if weight < self._step / 2 else weight
        if mouth is not None:
            self._mouth = mouth
        if not self._weight:
            self._mouth = None
        return self._mouth, self._weight if self._mouth is not None else 0.0

    def reset(self) -> None:
        """Forget the mouth that was shown: the next frame starts from the mouth at rest (weight
        0)."""
        self._weight, self._mouth = 0.0, None
