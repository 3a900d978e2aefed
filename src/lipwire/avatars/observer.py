"""What is told of an avatar's frames as they are composed, for whoever measures a server."""

from typing import Final


class FrameObserver:
    """What an ``Avatar`` tells how long its frames take to be composed. This one does nothing with
    that; whoever measures makes a subclass and sets it as ``Avatar.observer``. ``composed`` is
    called by the threads that compose, several at a time perhaps."""

    def composed(self, seconds: float, jpeg_s: float | None = None) -> None:
        """Take note of a frame that took ``seconds`` to be composed, of which encoding it as JPEG
        took ``jpeg_s``, also in seconds; None where it was not made as JPEG. Called after each
        frame; this one does nothing."""


NO_OBSERVER: Final = FrameObserver()
