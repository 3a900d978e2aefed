"""An avatar package as it lies on disk: a folder of one network, its frames and their rectangles.

    checkpoint/model_best.onnx       the network
    checkpoint/audio_encoder.onnx    optional: its audio encoder
    frames/frame_0000.png ...        or .jpg; or one source_video.mp4 instead of the folder
    crop_rects.json                  where the face is in each frame
    masks/0000.png ...               optional: what is in front of the mouth
    avatar.yaml                      optional: see packagesettings.py

The same files may lie in several places (``AvatarFiles``); who needs only the network, or only the
frames, need not have the other.

Reading a package looks at names, settings and rectangles only. Whether the images decode and the
network fits is found out by ``validate_package`` and, for whoever skips that, when it is compiled.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from lipwire.avatars.checks.hints import encoder_hint, network_hint, rectangles_hint
from lipwire.avatars.checks.problems import Findings
from lipwire.avatars.closedeyes import beyond
from lipwire.avatars.frames.framefiles import Pictures, named_pictures, pictures_in
from lipwire.avatars.frames.masks import Masks, masks_in
from lipwire.avatars.locating import (
    MISSING,
    contained,
    folder_with,
    holds,
    named_file,
    read_file,
    reason_of,
    required_file,
    what_is_wrong,
)
from lipwire.avatars.packagesettings import (
    MAX_SETTINGS_BYTES,
    SETTINGS_NAME,
    AvatarSettings,
    parse_settings,
    unread_keys,
)
from lipwire.avatars.rectangles import MAX_RECTANGLES_BYTES, parse_rectangles
from lipwire.domain import AvatarFiles, AvatarInvalid, CropRect, NotFound
from lipwire.domain.avatarfiles import (
    ENCODER_NAME,
    FRAMES_NAME,
    MASKS_NAME,
    MODEL_NAME,
    RECTANGLES_NAME,
    VIDEO_NAME,
)
from lipwire.domain.wording import shown

Half = Literal["model", "frames"]
"""The network, or the frames with their rectangles."""
BOTH: Final[frozenset[Half]] = frozenset({"model", "frames"})

_ENCODER_BESIDE: Final = "audio_encoder.onnx"


@dataclass(frozen=True, slots=True)
class FramesHalf:
    """The frames of an avatar. ``pictures`` says where they come from, ``rects_path`` is the file
    of crop rectangles, and ``rects`` are the rectangles in the order of the source frames, those of
    the folder of images or the video. There is at least one for each image; for a video their
    number is checked when it is decoded. ``masks`` say what is in front of the mouth; None where
    there are none."""

    pictures: Pictures
    rects_path: Path
    rects: tuple[CropRect, ...]
    """At least one for each image file; a video's frames are counted when it is decoded."""
    masks: Masks | None = None


@dataclass(frozen=True, slots=True)
class AvatarPackage:
    """An avatar whose files, settings and crop rectangles have been read and checked
    (``read_package``). All paths are absolute.

    ``path`` is the package's folder with symbolic links resolved; where ``files`` names no such
    folder, the first of ``files.folders``. ``name`` is what people are shown: that of the settings,
    or the folder's. ``model`` (the network's file) and ``frames`` are None where they are not there
    and were not in ``need`` of ``read_package``, ``encoder_path`` (the audio encoder's) where there
    is none.
    """

    files: AvatarFiles
    path: Path
    """The package's folder with symbolic links resolved; of files that lie apart, the first folder
    that one of them lies in."""
    name: str
    settings: AvatarSettings
    model: Path | None
    """The network; None where it is not there and was not needed."""
    frames: FramesHalf | None
    """The frames with their rectangles; None where they are not there and were not needed."""
    encoder_path: Path | None

    @property
    def model_path(self) -> Path:
        """The network's file. Raises AvatarInvalid where it is missing."""
        if self.model is None:
            raise AvatarInvalid(f"avatar {self.name} has no network here")
        return self.model

    @property
    def _frames(self) -> FramesHalf:
        if self.frames is None:
            raise AvatarInvalid(f"avatar {self.name} has no frames here")
        return self.frames

    @property
    def pictures(self) -> Pictures:
        """Where the frames come from. Raises AvatarInvalid where they are missing."""
        return self._frames.pictures

    @property
    def rects_path(self) -> Path:
        """The file of rectangles. Raises AvatarInvalid where the package was read without its
        frames."""
        return self._frames.rects_path

    @property
    def rects(self) -> tuple[CropRect, ...]:
        """The crop rectangles in the order of the source frames, at least one for each image.
        Raises AvatarInvalid where the package was read without its frames."""
        return self._frames.rects

    @property
    def masks(self) -> Masks | None:
        """Pictures that say, for frames in which something is in front of the mouth, where the
        frame is kept; None where there are none. Raises AvatarInvalid where the package was read
        without its frames."""
        return self._frames.masks

    def label(self, path: Path) -> str:
        """Return ``path`` as messages name it: relative to the package's folder, with forward
        slashes, where it lies there, else its last part."""
        return (
            path.relative_to(self.path).as_posix() if path.is_relative_to(self.path) else path.name
        )


@dataclass(frozen=True, slots=True)
class Structure:
    """What ``inspect_structure`` found of an avatar: the folder (``root``), its settings, the files
    of network and audio encoder, where the frames come from, the file of crop rectangles, the
    rectangles in the order of the source frames, and the masks. A field is None where its file is
    missing or wrong; ``encoder_path`` and ``masks`` are None also where the avatar has none."""

    root: Path
    settings: AvatarSettings | None
    model_path: Path | None
    encoder_path: Path | None
    pictures: Pictures | None
    rects_path: Path | None
    rects: tuple[CropRect, ...] | None
    masks: Masks | None


def read_package(where: AvatarFiles | Path | str, need: frozenset[Half] = BOTH) -> AvatarPackage:
    """Read and check the avatar whose files are ``where``, or whose package is the folder
    ``where``. No frame is decoded, and no network opened.

    ``need`` are the halves that have to be there: ``model`` (the network) and ``frames`` (with
    their crop rectangles). A half that is not among them may be missing or wrong, and is None then.
    Raises NotFound where nothing is there, and AvatarInvalid with the first thing that is wrong.
    """
    files = AvatarFiles.at(where)
    findings = Findings()
    found = inspect_structure(files, findings, need)
    findings.raise_first()
    frames = None
    if found.pictures is not None and found.rects_path is not None and found.rects is not None:
        frames = FramesHalf(found.pictures, found.rects_path, found.rects, found.masks)
    # What is needed and None was an error already; this says so to the type checker.
    if found.settings is None:
        raise AvatarInvalid(f"{files} is not an avatar package")
    return AvatarPackage(
        files=files,
        path=found.root,
        name=found.settings.name or found.root.name,
        settings=found.settings,
        model=found.model_path,
        frames=frames,
        encoder_path=found.encoder_path,
    )


def inspect_structure(
    where: AvatarFiles | Path, findings: Findings, need: frozenset[Half] = BOTH
) -> Structure:
    """Read and check the avatar whose files are ``where``, or whose package is the folder
    ``where``, put everything that is wrong into ``findings``, and return what was found. No frame
    is decoded, and no network opened.

    ``need`` are the halves that have to be there: ``model`` (the network) and ``frames`` (with
    their crop rectangles). Problems of another half are not put into ``findings``, and the fields
    of that half are None then. Raises NotFound where nothing is there, and AvatarInvalid where it
    is no folder or cannot be read.
    """
    files = AvatarFiles.at(where)
    folders = _resolved_folders(files)
    root = folders[0]
    base = folder_with(SETTINGS_NAME, folders)
    settings, unread = _read_settings(base, findings)
    known = settings or AvatarSettings()
    of_model = findings if "model" in need else Findings()
    if files.model is not None:
        model_path = named_file(files.model, of_model)
    elif files.folder is None and "model" not in need:
        # One that lies beside the frames by chance need not be the one that somebody else runs.
        model_path = None
    else:
        model_path = required_file(
            folder_with(MODEL_NAME, folders), MODEL_NAME, of_model, hint=network_hint
        )
    encoder_path = _encoder(files, folders, base, known, findings)
    of_frames = findings if "frames" in need else Findings()
    if files.frames is not None:
        pictures = named_pictures(files.frames, of_frames)
    else:
        holder = next(
            (folder for folder in folders if holds(folder, FRAMES_NAME, VIDEO_NAME)), root
        )
        if known.source_video is not None:
            holder = base
        # Where the video is cannot be known; that its key is wrong was told.
        lost = "source_video" in unread
        pictures = pictures_in(holder, known, Findings() if lost else of_frames)
    if files.rectangles is not None:
        rects_path = named_file(files.rectangles, of_frames)
    else:
        holder = folder_with(RECTANGLES_NAME, folders)
        rects_path = required_file(holder, RECTANGLES_NAME, of_frames, hint=rectangles_hint)
    rects = None
    numbered = pictures is not None and pictures.video_path is None
    first_frame = pictures.first_number if pictures is not None and numbered else None
    if rects_path is not None:
        data = read_file(rects_path, RECTANGLES_NAME, MAX_RECTANGLES_BYTES, of_frames)
        if data is not None:
            rects = parse_rectangles(data, of_frames, first_frame=first_frame)
    if rects is not None and pictures is not None and pictures.video_path is None:
        compare_counts(len(rects), len(pictures.frame_paths), of_frames)
    masks = None
    if pictures is not None:
        masks = masks_in(folder_with(MASKS_NAME, folders), pictures, of_frames)
    if pictures is not None and numbered:
        check_closed_eyes(known, len(pictures.frame_paths), of_frames)
    # What was wrong with a half that nobody needs has gone into findings of its own.
    if of_model is not findings and any(of_model.errors()):
        model_path = None
    if of_frames is not findings and any(of_frames.errors()):
        pictures = rects_path = rects = masks = None
    return Structure(root, settings, model_path, encoder_path, pictures, rects_path, rects, masks)


def _resolved_folders(files: AvatarFiles) -> list[Path]:
    """``files.folders`` with links resolved. Raises as ``inspect_structure``."""
    if files.named:
        return [Path(os.path.realpath(folder)) for folder in files.folders]
    (path,) = files.folders
    try:
        root = path.resolve(strict=True)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(f"no avatar package at {path}; there is no such folder") from None
    except (OSError, RuntimeError, ValueError) as error:  # no permission, a loop of links, a NUL
        raise NotFound(f"no avatar package at {shown(str(path))}; {reason_of(error)}") from None
    if not root.is_dir():
        raise AvatarInvalid(f"{path} is a file; an avatar package is a folder")
    try:
        os.stat(os.path.join(root, "."))  # noqa: PTH116, PTH118 - Path leaves the dot out
    except OSError as error:
        raise AvatarInvalid(f"{path} cannot be read; {reason_of(error)}") from None
    return [root]


def compare_counts(rects: int, frames: int, findings: Findings) -> None:
    """Put an error into ``findings`` where there are fewer crop rectangles than frames, and a
    warning where there are more. ``rects`` and ``frames`` are how many there are."""
    if rects < frames:
        findings.error(
            f"{RECTANGLES_NAME} has {rects} rectangles for {frames} frames; each frame needs one"
        )
    elif rects > frames:
        findings.warning(
            f"{RECTANGLES_NAME} has {rects} rectangles for {frames} frames; the rest is not used"
        )


def check_closed_eyes(settings: AvatarSettings, frames: int, findings: Findings) -> None:
    """Put an error into ``findings`` where ``closed_eyes`` of ``settings`` names frames that a
    source of ``frames`` frames does not have."""
    lost = beyond(settings.closed_eyes, frames)
    if lost is not None:
        findings.error(f"{SETTINGS_NAME}: {lost}")


def _read_settings(root: Path, findings: Findings) -> tuple[AvatarSettings | None, frozenset[str]]:
    """The settings, and the keys that the file gives and that could not be read."""
    path = contained(root, SETTINGS_NAME, SETTINGS_NAME, findings)
    if path is None:
        return None, frozenset()
    if what_is_wrong(root / SETTINGS_NAME) == MISSING:
        return AvatarSettings(), frozenset()
    data = read_file(path, SETTINGS_NAME, MAX_SETTINGS_BYTES, findings)
    if data is None:
        return None, frozenset()
    of_settings = Findings()
    settings = parse_settings(data, of_settings)
    findings.problems += of_settings.problems
    return settings, unread_keys(data, settings) if any(of_settings.errors()) else frozenset()


def _encoder(
    files: AvatarFiles,
    folders: list[Path],
    base: Path,
    settings: AvatarSettings,
    findings: Findings,
) -> Path | None:
    """The encoder that is named, by whoever named the files or by the settings in ``base``; else
    the one that lies beside the network."""
    if files.audio_encoder is not None:
        return named_file(files.audio_encoder, findings)
    if settings.audio_encoder is not None:
        return required_file(
            base, settings.audio_encoder, findings, key="audio_encoder", hint=encoder_hint
        )
    beside = [] if files.model is None else [(files.model.parent, _ENCODER_BESIDE)]
    for folder, name in (*beside, *((folder, ENCODER_NAME) for folder in folders)):
        if holds(folder, name):
            path = contained(Path(os.path.realpath(folder)), name, name, findings)
            return path if path is not None and path.is_file() else None
    return None
