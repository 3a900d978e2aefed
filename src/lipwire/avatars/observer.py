"""What is told of an avatar's frames as they are composed, for whoever measures a server."""

from typing import Final


class FrameObserver:
    """Is called by an ``Avatar`` with the time that it took to compose each frame, which means to
    put a mouth on the filmed frame. This class ignores it; to measure, set an instance of a
    subclass as ``Avatar.observer``. ``composed`` is called by the threads that compose, several at
    a time perhaps."""

    def composed(self, seconds: float, jpeg_s: float | None = None) -> None:
        """Record that a frame took ``seconds`` to be composed, of which encoding it as JPEG took
        ``jpeg_s``, also in seconds; ``jpeg_s`` is None for other forms than JPEG. Called after each
        frame; does nothing in this class."""


NO_OBSERVER: Final = FrameObserver()
