"""An avatar package as it lies on disk: a folder of one network, its frames and their rectangles.

    checkpoint/model_best.onnx       the network
    checkpoint/audio_encoder.onnx    optional: its audio encoder
    frames/frame_0000.png ...        or .jpg; or one source_video.mp4 instead of the folder
    crop_rects.json                  where the face is in each frame
    avatar.yaml                      optional: see settings.py

Reading a package looks at names, settings and rectangles only. Whether the images decode and the
network fits is found out by ``validate_package`` and, for whoever skips that, when it is compiled.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Final

from lipwire.avatars.problems import Findings, shown
from lipwire.avatars.rectangles import (
    MAX_RECTANGLES_BYTES,
    RECTANGLES_NAME,
    parse_rectangles,
)
from lipwire.avatars.settings import (
    MAX_SETTINGS_BYTES,
    SETTINGS_NAME,
    AvatarSettings,
    parse_settings,
)
from lipwire.domain import AvatarInvalid, CropRect, NotFound

MODEL_NAME: Final = "checkpoint/model_best.onnx"
ENCODER_NAME: Final = "checkpoint/audio_encoder.onnx"
FRAMES_NAME: Final = "frames"
VIDEO_NAME: Final = "source_video.mp4"

_FRAME: Final = re.compile(r"(?:frame_)?(\d{1,9})\.(?:png|jpe?g)", re.IGNORECASE | re.ASCII)
_IMAGE_SUFFIXES: Final = frozenset({".png", ".jpg", ".jpeg"})


@dataclass(frozen=True, slots=True)
class Pictures:
    """Where a package's frames come from: image files, or one video."""

    root: Path
    frame_paths: tuple[Path, ...]
    """In the order of their numbers; empty where there is a video."""
    video_path: Path | None

    def label(self, index: int) -> str:
        """Frame ``index`` as messages name it."""
        if self.video_path is not None:
            return f"frame {index} of {self.video_path.relative_to(self.root).as_posix()}"
        return self.frame_paths[index].relative_to(self.root).as_posix()


@dataclass(frozen=True, slots=True)
class AvatarPackage:
    """A package whose names, settings and rectangles are in order. All paths are absolute."""

    path: Path
    """The folder, with symbolic links resolved."""
    name: str
    settings: AvatarSettings
    model_path: Path
    encoder_path: Path | None
    pictures: Pictures
    rects_path: Path
    rects: tuple[CropRect, ...]
    """At least one for each image file; a video's frames are counted when it is decoded."""

    def label(self, path: Path) -> str:
        """``path`` as messages name it: relative to the package, with forward slashes."""
        return path.relative_to(self.path).as_posix()


@dataclass(frozen=True, slots=True)
class Structure:
    """What could be made out of a folder; None is what is missing or wrong."""

    root: Path
    settings: AvatarSettings | None
    model_path: Path | None
    encoder_path: Path | None
    pictures: Pictures | None
    rects_path: Path | None
    rects: tuple[CropRect, ...] | None


def read_package(path: Path) -> AvatarPackage:
    """The package in folder ``path``.

    Raises NotFound where nothing is there, and AvatarInvalid with the first thing found wrong.
    """
    findings = Findings()
    found = inspect_structure(path, findings)
    findings.raise_first()
    # Whatever is None was an error already; this says so to the type checker.
    if (
        found.settings is None
        or found.model_path is None
        or found.pictures is None
        or found.rects_path is None
        or found.rects is None
    ):
        raise AvatarInvalid(f"{path} is not an avatar package")
    return AvatarPackage(
        path=found.root,
        name=found.settings.name or found.root.name,
        settings=found.settings,
        model_path=found.model_path,
        encoder_path=found.encoder_path,
        pictures=found.pictures,
        rects_path=found.rects_path,
        rects=found.rects,
    )


def inspect_structure(path: Path, findings: Findings) -> Structure:
    """As ``read_package``, but everything wrong goes into ``findings``.

    Raises NotFound where nothing is there, and AvatarInvalid where it is no folder.
    """
    try:
        root = path.resolve(strict=True)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(f"no avatar package at {path}; there is no such folder") from None
    except (OSError, RuntimeError, ValueError) as error:  # no permission, a loop of links, a NUL
        raise NotFound(f"no avatar package at {shown(str(path))}; {_reason(error)}") from None
    if not root.is_dir():
        raise AvatarInvalid(f"{path} is a file; an avatar package is a folder")
    settings = _read_settings(root, findings)
    known = settings or AvatarSettings()
    model_path = _required_file(root, MODEL_NAME, findings)
    encoder_path = _encoder(root, known, findings)
    pictures, first_frame = _pictures(root, known, findings)
    rects_path = _required_file(root, RECTANGLES_NAME, findings)
    rects = None
    if rects_path is not None:
        data = _read(rects_path, RECTANGLES_NAME, MAX_RECTANGLES_BYTES, findings)
        if data is not None:
            rects = parse_rectangles(data, findings, first_frame=first_frame)
    if rects is not None and pictures is not None and pictures.video_path is None:
        compare_counts(len(rects), len(pictures.frame_paths), findings)
    return Structure(root, settings, model_path, encoder_path, pictures, rects_path, rects)


def compare_counts(rects: int, frames: int, findings: Findings) -> None:
    """Fewer rectangles than frames is an error, more is a warning."""
    if rects < frames:
        findings.error(
            f"{RECTANGLES_NAME} has {rects} rectangles for {frames} frames; each frame needs one"
        )
    elif rects > frames:
        findings.warning(
            f"{RECTANGLES_NAME} has {rects} rectangles for {frames} frames; the rest is not used"
        )


def _read_settings(root: Path, findings: Findings) -> AvatarSettings | None:
    path = _contained(root, SETTINGS_NAME, SETTINGS_NAME, findings)
    if path is None:
        return None
    if not path.exists():
        return AvatarSettings()
    data = _read(path, SETTINGS_NAME, MAX_SETTINGS_BYTES, findings)
    return None if data is None else parse_settings(data, findings)


def _encoder(root: Path, settings: AvatarSettings, findings: Findings) -> Path | None:
    if settings.audio_encoder is not None:
        return _required_file(root, settings.audio_encoder, findings, key="audio_encoder")
    path = _contained(root, ENCODER_NAME, ENCODER_NAME, findings)
    return path if path is not None and path.is_file() else None


def _pictures(
    root: Path, settings: AvatarSettings, findings: Findings
) -> tuple[Pictures | None, int | None]:
    """The frames, and the number in the first one's file name (None for a video)."""
    folder = _contained(root, FRAMES_NAME, FRAMES_NAME, findings)
    if settings.source_video is not None:
        if folder is not None and folder.is_dir():
            findings.warning(f"{FRAMES_NAME}/ is not used, since {SETTINGS_NAME} names a video")
        video = _required_file(root, settings.source_video, findings, key="source_video")
    elif folder is None:
        return None, None
    elif folder.is_dir():
        numbered = _numbered_frames(root, folder, findings)
        if not numbered:
            return None, None
        return Pictures(root, tuple(frame for _, frame in numbered), None), numbered[0][0]
    elif folder.exists():
        findings.error(f"{FRAMES_NAME} is a file; it has to be a folder of images")
        return None, None
    elif (root / VIDEO_NAME).exists():
        video = _required_file(root, VIDEO_NAME, findings)
    else:
        findings.error(f"no frames: neither {FRAMES_NAME}/frame_0000.png nor {VIDEO_NAME} is there")
        return None, None
    return (None if video is None else Pictures(root, (), video)), None


def _numbered_frames(root: Path, folder: Path, findings: Findings) -> list[tuple[int, Path]]:
    by_number: dict[int, str] = {}
    try:
        with os.scandir(folder) as entries:  # says what is a link without a system call for each
            found = list(entries)
            links = {entry.name: entry.is_symlink() for entry in found}
            special = {entry.name for entry in found if not entry.is_file()}
    except OSError as error:
        findings.error(f"{FRAMES_NAME}/ cannot be read; {_reason(error)}")
        return []
    unknown = []
    sound = True
    for name in sorted(links):
        match = _FRAME.fullmatch(name)
        if match is None:
            if Path(name).suffix.lower() in _IMAGE_SUFFIXES:
                unknown.append(name)
            continue
        number = int(match[1])
        if number in by_number:
            findings.error(
                f"frame {number} is there twice, as {by_number[number]} and {name}; one has to go"
            )
            sound = False
            continue
        by_number[number] = name
    if unknown:
        findings.warning(
            f"{FRAMES_NAME}/{unknown[0]}"
            + (f" and {len(unknown) - 1} more" if len(unknown) > 1 else "")
            + " is not used; frames are named frame_0000.png or .jpg"
        )
    if not by_number:
        findings.error(f"no frames: {FRAMES_NAME}/ holds no frame_0000.png or .jpg")
        return []
    numbers = sorted(by_number)
    for expected, number in enumerate(numbers, start=numbers[0]):
        if number != expected:
            findings.error(
                f"frame {expected} is missing: {FRAMES_NAME}/{by_number[expected - 1]} is followed"
                f" by {by_number[number]}; numbers run without gaps"
            )
            return []
    frames = []
    for number in numbers:
        label = f"{FRAMES_NAME}/{by_number[number]}"
        # Only links are resolved: it costs a system call for each folder above, for each frame.
        path = folder / by_number[number]
        is_link = links[by_number[number]]
        inside = _contained(root, label, label, findings) if is_link else path
        if inside is None:
            sound = False
            continue
        if by_number[number] in special:
            findings.error(f"{label} is not a file")
            sound = False
            continue
        frames.append((number, inside))
    return frames if sound else []


def _required_file(
    root: Path, name: str, findings: Findings, *, key: str | None = None
) -> Path | None:
    label = f"{SETTINGS_NAME}: {key} {shown(name)}" if key else name
    path = _contained(root, name, label, findings)
    if path is None:
        return None
    if path.is_file():
        return path
    seen = "is not a file" if path.exists() else "is missing"
    findings.error(f"{label} {seen}; the package needs it")
    return None


def _contained(root: Path, name: str, label: str, findings: Findings) -> Path | None:
    """``root / name``, unless it leads out of the package by "..", a root, a drive or a link."""
    posix, windows = PurePosixPath(name), PureWindowsPath(name)
    leaves = posix.is_absolute() or windows.is_absolute() or windows.drive or windows.root
    if leaves or ".." in posix.parts or ".." in windows.parts:
        findings.error(f"{label} leads out of the package; paths are relative to its folder")
        return None
    try:
        path = (root / name).resolve()
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links, a NUL in the name
        findings.error(f"{label} cannot be followed; {_reason(error)}")
        return None
    if not path.is_relative_to(root):
        findings.error(f"{label} is a link that leads out of the package; links stay inside it")
        return None
    return path


def _read(path: Path, label: str, max_bytes: int, findings: Findings) -> bytes | None:
    try:
        size_bytes = path.stat().st_size
        if path.is_file() and size_bytes <= max_bytes:
            return path.read_bytes()
    except OSError as error:
        findings.error(f"{label} cannot be read; {_reason(error)}")
        return None
    if not path.is_file():  # reading a pipe would wait for ever
        findings.error(f"{label} is not a file")
    else:
        findings.error(f"{label} has {size_bytes} bytes; at most {max_bytes} are read")
    return None


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return " ".join(str(error).split()) or type(error).__name__
