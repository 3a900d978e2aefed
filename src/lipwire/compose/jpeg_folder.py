"""A video as a folder of JPEG files."""

from pathlib import Path
from types import TracebackType
from typing import Self

from lipwire.compose.staging import publish_folder, stage_folder
from lipwire.domain import InvalidInput
from lipwire.domain.newfiles import remove, storage_errors


class JpegFolderWriter:
    """Writes frame_000000.jpg, frame_000001.jpg, ... into the folder ``path``, which appears when
    all is done. For one thread at a time.

        with JpegFolderWriter(Path("out")) as writer:
            writer.write(jpeg)

    An empty folder, or a folder of such files, is replaced; anything else of that name is refused.
    On an error or Ctrl-C nothing new is left, and what was there before is as it was.
    ``frames_written`` counts the frames.

    Entering raises InvalidInput where ``path`` may not be replaced, and StorageFailed where the
    folder cannot be made. Leaving raises InvalidInput where no frame was written or ``path`` may
    not be replaced any more, and StorageFailed where it cannot be renamed.
    """

    def __init__(self, path: Path) -> None:
        self._target = Path(path)
        self._staged: Path | None = None
        self.frames_written = 0

    def __enter__(self) -> Self:
        self._staged = stage_folder(self._target)
        return self

    def write(self, jpeg: bytes) -> None:
        """Add the next frame: ``jpeg`` is the bytes of a JPEG file, which are not checked. Raises
        StorageFailed when it cannot be written, for example on a full disk, and RuntimeError
        outside the ``with`` block."""
        if self._staged is None:
            raise RuntimeError("a JpegFolderWriter is written to inside its with block")
        with storage_errors(self._target):
            (self._staged / f"frame_{self.frames_written:06d}.jpg").write_bytes(jpeg)
        self.frames_written += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        staged, self._staged = self._staged, None
        if staged is None:
            return
        try:
            if kind is None:
                if self.frames_written == 0:
                    raise InvalidInput(f"cannot write {self._target}: there is not one frame")
                publish_folder(staged, self._target)
        finally:
            remove(staged)
