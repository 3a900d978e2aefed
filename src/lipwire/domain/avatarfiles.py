"""Where the files of one avatar lie, and which form of them is meant."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lipwire.domain.errors import InvalidInput

MODEL_NAME: Final = "checkpoint/model_best.onnx"
ENCODER_NAME: Final = "checkpoint/audio_encoder.onnx"
FRAMES_NAME: Final = "frames"
VIDEO_NAME: Final = "source_video.mp4"
RECTANGLES_NAME: Final = "crop_rects.json"
"""Where a package's files lie in its folder."""


@dataclass(frozen=True, slots=True)
class AvatarFiles:
    """Where an avatar's files lie: in one folder, each for itself, or some of both.

    A file that is not named is looked for under its usual name in ``folders``. Raises InvalidInput
    where nothing is named.
    """

    folder: Path | None = None
    """An avatar package: a folder that holds everything not named below."""
    model: Path | None = None
    """The network, an ONNX file."""
    frames: Path | None = None
    """A folder of images, or a video."""
    rectangles: Path | None = None
    """The crop rectangles, a JSON file."""
    audio_encoder: Path | None = None
    """The audio encoder, an ONNX file."""

    def __post_init__(self) -> None:
        if self.folder is None and not (self.model or self.frames or self.rectangles):
            raise InvalidInput("an avatar of no files; name its folder, network or frames")

    @classmethod
    def at(cls, where: AvatarFiles | Path | str) -> AvatarFiles:
        """Return ``where`` itself if it is AvatarFiles, else the files of the package in the folder
        ``where``."""
        return where if isinstance(where, AvatarFiles) else cls(folder=Path(where))

    @property
    def named(self) -> tuple[Path, ...]:
        """The paths of network, frames, rectangles and audio encoder, as far as they are named."""
        each = (self.model, self.frames, self.rectangles, self.audio_encoder)
        return tuple(path for path in each if path is not None)

    @property
    def folders(self) -> tuple[Path, ...]:
        """Folders in which files that are not named are looked for.

        These are the package's folder, and those that the named files lie in; of a network in a
        folder ``checkpoint``, the folder above that.
        """
        found = [] if self.folder is None else [self.folder]
        found += [path.parent for path in (self.rectangles, self.frames) if path is not None]
        if self.model is not None:
            beside = self.model.parent
            found.append(beside.parent if beside.name == "checkpoint" else beside)
        return tuple(dict.fromkeys(found))

    @property
    def key(self) -> str:
        """A text that tells avatars apart which share a folder: the absolute paths of network,
        frames and rectangles, a line each, empty for one that is not named.

        The whole text is empty where those that are named lie where a package in ``folders[0]`` has
        them.
        """
        root = self.folders[0]
        usual = {
            self.model: MODEL_NAME,
            self.frames: FRAMES_NAME,
            self.rectangles: RECTANGLES_NAME,
        }
        if all(path is None or path == root / name for path, name in usual.items()):
            return ""
        each = (self.model, self.frames, self.rectangles)
        return "\n".join("" if path is None else os.path.abspath(path) for path in each)  # noqa: PTH100

    def completed_by(self, other: AvatarFiles) -> AvatarFiles:
        """Return these files, and those of ``other`` where these name none."""
        return AvatarFiles(
            folder=self.folder or other.folder,
            model=self.model or other.model,
            frames=self.frames or other.frames,
            rectangles=self.rectangles or other.rectangles,
            audio_encoder=self.audio_encoder or other.audio_encoder,
        )

    def through(self, change: Callable[[Path], Path]) -> AvatarFiles:
        """Return these files with every path replaced by ``change(path)``."""
        each = (self.folder, self.model, self.frames, self.rectangles, self.audio_encoder)
        return AvatarFiles(*(None if path is None else change(path) for path in each))

    def __str__(self) -> str:
        return ", ".join(str(path) for path in (self.folder, *self.named) if path is not None)


@dataclass(frozen=True, slots=True)
class Revision:
    """Hashes that say which form of an avatar's files is meant, the same on every machine.

    The frames have one and the network has one, since one server may hold the frames and another
    the network. An empty one is not known, or does not matter.
    """

    frames: str = ""
    """Hash of the frames, their crop rectangles, and the settings that decide about pixels."""
    model: str = ""
    """Hash of the network."""

    def same_frames(self, other: Revision) -> bool:
        """Return whether both mean the same frames; True where either does not say."""
        return not self.frames or not other.frames or self.frames == other.frames

    def same_model(self, other: Revision) -> bool:
        """Return whether both mean the same network; True where either does not say."""
        return not self.model or not other.model or self.model == other.model


ANY_REVISION = Revision()
"""The revision that suits whatever is there."""
