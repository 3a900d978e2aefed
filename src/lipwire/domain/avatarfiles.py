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
MASKS_NAME: Final = "masks"
"""Where a package's files lie in its folder."""


@dataclass(frozen=True, slots=True)
class AvatarFiles:
    """Where an avatar's files lie: all in one folder, each in a place of its own, or some of both.

    ``folder`` is an avatar package, the folder of everything that is not named. ``model`` is the
    network and ``audio_encoder`` the audio encoder, both ONNX files; ``frames`` is a folder of
    images or a video, ``rectangles`` the crop rectangles, a JSON file. What is None is looked for
    in ``folders``, as checkpoint/model_best.onnx, checkpoint/audio_encoder.onnx, frames or
    source_video.mp4, and crop_rects.json. ``compiled`` is the folder of the avatar's compiled form,
    what is made of its files so that it opens fast; None is one in the package, or in the user's
    caches. Raises InvalidInput where all of ``folder``, ``model``, ``frames`` and ``rectangles``
    are None.
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
    compiled: Path | None = None
    """The folder of its compiled form, which need not exist; None is one that is found."""

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
        """The paths that were given, of ``model``, ``frames``, ``rectangles`` and ``audio_encoder``
        in this order, without those that are None."""
        return tuple(path for path in self._apart if path is not None)

    @property
    def _apart(self) -> tuple[Path | None, ...]:
        return self.model, self.frames, self.rectangles, self.audio_encoder

    @property
    def folders(self) -> tuple[Path, ...]:
        """Folders in which files that are not named are looked for.

        These are the package's folder, then those in which the named rectangles, frames and network
        lie; for a network in a folder ``checkpoint``, the folder above that. Each is there once.
        """
        found = [] if self.folder is None else [self.folder]
        found += [path.parent for path in (self.rectangles, self.frames) if path is not None]
        if self.model is not None:
            beside = self.model.parent
            found.append(beside.parent if beside.name == "checkpoint" else beside)
        return tuple(dict.fromkeys(found))

    @property
    def key(self) -> str:
        """A text that differs between avatars which have their first folder, ``folders[0]``, in
        common: the absolute paths of network, frames and rectangles, one line for each, which is
        empty for one that is not named.

        The whole text is empty where each of them is either not named or lies where an avatar
        package in ``folders[0]`` has it.
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
        """Return new AvatarFiles with the paths of these files; each that is None is taken from
        ``other``."""
        return AvatarFiles(
            folder=self.folder or other.folder,
            model=self.model or other.model,
            frames=self.frames or other.frames,
            rectangles=self.rectangles or other.rectangles,
            audio_encoder=self.audio_encoder or other.audio_encoder,
            compiled=self.compiled or other.compiled,
        )

    def through(self, change: Callable[[Path], Path]) -> AvatarFiles:
        """Return new AvatarFiles in which each path is replaced by what ``change(path)`` returns;
        what is None stays None."""
        each = (self.folder, *self._apart, self.compiled)
        return AvatarFiles(*(None if path is None else change(path) for path in each))

    def __str__(self) -> str:
        return ", ".join(str(path) for path in (self.folder, *self.named) if path is not None)


@dataclass(frozen=True, slots=True)
class Revision:
    """Hashes that say which version of an avatar's files is meant, the same on every machine.

    ``frames`` is the hash of the frames, their crop rectangles, and the settings that decide about
    pixels; ``model`` is the hash of the network. There are two because the frames may be on one
    server and the network on another. A hash that is empty is not known, or does not matter.
    """

    frames: str = ""
    """Hash of the frames, their crop rectangles, and the settings that decide about pixels."""
    model: str = ""
    """Hash of the network."""

    def same_frames(self, other: Revision) -> bool:
        """Return whether this revision and ``other`` have the same hash of frames; True also where
        one of the two hashes is empty."""
        return not self.frames or not other.frames or self.frames == other.frames

    def same_model(self, other: Revision) -> bool:
        """Return whether this revision and ``other`` have the same hash of the network; True also
        where one of the two hashes is empty."""
        return not self.model or not other.model or self.model == other.model


ANY_REVISION = Revision()
"""The revision that suits whatever is there."""
