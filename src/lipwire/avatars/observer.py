"""What is told of an avatar's frames as they are composed, for whoever measures a server."""

from typing import Final


class FrameObserver:
    """Told how long frames take to be composed, by the threads that compose them; this one does
    nothing with it."""

    def composed(self, seconds: float, jpeg_s: float | None = None) -> None:
        """Note that a frame took ``seconds`` to be composed, of which its JPEG took ``jpeg_s`` to
        be encoded; None where it is none."""


NO_OBSERVER: Final = FrameObserver()
