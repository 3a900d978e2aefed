"""Audio encoders, opened once for all avatars that link to the same file."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final, Self

from lipwire.audio import AudioEncoder
from lipwire.domain import AvatarChanged, Call, InvalidInput
from lipwire.domain.closing import Closing
from lipwire.registry import Loaded, Registry

_MOST: Final = 64


class EncoderFile(str):
    """An audio encoder's file as it was at one moment: a text of its device, inode, size and time
    of change, equal for all links that lead to the file, and another one once it is replaced.
    ``path`` is where it was found."""

    path: Path

    @classmethod
    def at(cls, path: Path) -> Self:
        """Return the ``EncoderFile`` of the file that is at ``path`` now. Raises nothing where
        there is no such file: opening it will fail."""
        try:
            found = path.stat()
        except OSError:
            name = str(path)  # opening it says what is wrong
        else:
            name = f"{found.st_dev}:{found.st_ino}:{found.st_size}:{found.st_mtime_ns}"
        file = cls(name)
        file.path = path
        return file

    def __str__(self) -> str:
        return self.path.name  # in messages


class AudioEncoders(Closing):
    """The audio encoders of a server's avatars; a context manager.

    Each is opened in a thread of its own when it is first asked for, so that only those who ask for
    it wait. When too many are open, the least recently used ones that nobody uses are closed.
    """

    def __init__(
        self,
        open_encoder: Callable[[Path], AudioEncoder] = AudioEncoder.open,
        *,
        most: int = _MOST,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``open_encoder`` is called with the path of a file, and returns the encoder in it. At
        most ``most`` encoders are open at a time. ``clock`` gives seconds."""

        def load(name: str) -> Loaded[AudioEncoder]:
            assert isinstance(name, EncoderFile)
            encoder = open_encoder(name.path)
            if EncoderFile.at(name.path) != name:
                raise AvatarChanged(f"audio encoder {name.path.name} was replaced")
            return Loaded(encoder, 0, lambda: None)

        self._encoders: Registry[AudioEncoder] = Registry(
            load,
            max_items=most,
            policy="lru",
            clock=clock,
            failure_memory_s=0.0,
            kind="audio encoder",
        )

    def use(
        self, file: EncoderFile | None, call: Call | None
    ) -> AbstractContextManager[AudioEncoder]:
        """Return a context manager that gives the audio encoder in ``file``, and keeps it open for
        the block. ``call`` is the request that it is for: its deadline limits the wait.

        Raises InvalidInput where ``file`` is None (the avatar has no audio encoder here). Entering
        the block raises AvatarChanged where the file was replaced and is not open any more,
        DeadlineExceeded where opening it takes longer than ``call`` has left, Overloaded where too
        many are in use, Unavailable once this is closed, and AvatarInvalid where the file is
        missing or damaged (``AudioEncoder.open``).
        """
        if file is None:
            raise InvalidInput(
                "the avatar has no audio encoder here, so raw_audio cannot be heard; send"
                " audio_features"
            )
        left_s = None if call is None else call.remaining_s()
        return self._encoders.use(file, timeout_s=left_s)

    def close(self) -> None:
        """Close all audio encoders, those in use when their last user is done; later uses raise
        Unavailable."""
        self._encoders.close(0.0)
