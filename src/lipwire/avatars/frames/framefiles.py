"""Where an avatar's frames come from: a folder of numbered images, or a video."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lipwire.avatars.checks.hints import frames_hint
from lipwire.avatars.checks.problems import Findings, FrameFindings
from lipwire.avatars.locating import contained, named_file, reason_of, required_file, what_is_wrong
from lipwire.avatars.packagesettings import SETTINGS_NAME, AvatarSettings
from lipwire.domain import CropRect
from lipwire.domain.avatarfiles import FRAMES_NAME, VIDEO_NAME

_FRAME: Final = re.compile(r"(?:frame_)?(\d{1,9})\.(?:png|jpe?g)", re.IGNORECASE | re.ASCII)
_IMAGE_SUFFIXES: Final = frozenset({".png", ".jpg", ".jpeg"})


@dataclass(frozen=True, slots=True)
class Pictures:
    """Where a package's frames come from: image files, or one video.

    ``root`` is the folder that names of frames are relative to in messages: the package's, or the
    one that holds the folder or video where its path was given on its own. ``frame_paths`` are the
    image files in the order of their numbers, empty where there is a video, ``video_path``, which
    is None otherwise. ``first_number`` is the number in the first frame's file name, 0 for a video.
    """

    root: Path
    frame_paths: tuple[Path, ...]
    """The files of the images in the order of their numbers; empty where there is a video."""
    video_path: Path | None
    first_number: int = 0
    """The number in the first frame's file name."""

    def used(self, rects: tuple[CropRect, ...]) -> tuple[CropRect, ...]:
        """Return those of ``rects``, one crop rectangle for each source frame in order, that have a
        frame: for images the first as many as there are images; for a video all, as its frames are
        not counted."""
        return rects[: len(self.frame_paths) or None]

    def label(self, index: int) -> str:
        """Return the name of frame ``index``, counted from 0, for messages: "frames/frame_0007.png"
        or "frame 7 of source_video.mp4"."""
        if self.video_path is not None:
            return f"frame {index} of {self.video_path.relative_to(self.root).as_posix()}"
        return self.frame_paths[index].relative_to(self.root).as_posix()


def pictures_in(root: Path, settings: AvatarSettings, findings: Findings) -> Pictures | None:
    """Return where the frames of the package in the folder ``root`` are; None where it has none, or
    something is wrong with them, which is put into ``findings`` as an error. ``settings`` are the
    package's, which may name a video."""
    try:
        return _found_in(root, settings, findings)
    except OSError as error:
        findings.error(f"{FRAMES_NAME}/ cannot be read; {reason_of(error)}")
        return None


def _found_in(root: Path, settings: AvatarSettings, findings: Findings) -> Pictures | None:
    folder = contained(root, FRAMES_NAME, FRAMES_NAME, findings)
    if settings.source_video is not None:
        if folder is not None and folder.is_dir():
            findings.warning(f"{FRAMES_NAME}/ is not used, since {SETTINGS_NAME} names a video")
        video = required_file(
            root, settings.source_video, findings, key="source_video", hint=frames_hint
        )
    elif folder is None:
        return None
    elif folder.is_dir():
        numbered = _numbered_frames(root, folder, findings)
        if not numbered:
            return None
        return _of_images(root, numbered)
    elif folder.exists():
        findings.error(f"{FRAMES_NAME} is a file; it has to be a folder of images")
        return None
    elif (root / FRAMES_NAME).is_symlink():
        findings.error(f"{FRAMES_NAME} {what_is_wrong(root / FRAMES_NAME)}; the package needs it")
        return None
    elif os.path.lexists(root / VIDEO_NAME):
        video = required_file(root, VIDEO_NAME, findings)
    else:
        findings.error(
            f"no frames: neither {FRAMES_NAME}/frame_0000.png nor {VIDEO_NAME} is there"
            + frames_hint(root)
        )
        return None
    return None if video is None else Pictures(root, (), video)


def named_pictures(path: Path, findings: Findings) -> Pictures | None:
    """Return the frames of ``path``, a folder of images or a video whose path was given on its own;
    None where it has none, or something is wrong with them, which is put into ``findings`` as an
    error."""
    try:
        resolved = path.resolve()
        is_folder = resolved.is_dir()
    except (OSError, RuntimeError, ValueError) as error:
        findings.error(f"{path} cannot be followed; {reason_of(error)}")
        return None
    if not is_folder:
        video = named_file(path, findings)
        return None if video is None else Pictures(video.parent, (), video)
    numbered = _numbered_frames(resolved, resolved, findings)
    return _of_images(resolved.parent, numbered) if numbered else None


def _of_images(root: Path, numbered: list[tuple[int, Path]]) -> Pictures:
    return Pictures(root, tuple(path for _, path in numbered), None, numbered[0][0])


def _numbered_frames(root: Path, folder: Path, findings: Findings) -> list[tuple[int, Path]]:
    """The images of ``folder`` by the numbers in their names; links stay inside ``root``."""
    shown_as = folder.name
    by_number: dict[int, str] = {}
    try:
        with os.scandir(folder) as entries:  # says what is a link without a system call for each
            found = list(entries)
            links = {entry.name: entry.is_symlink() for entry in found}
            special = {entry.name for entry in found if not entry.is_file()}
    except OSError as error:
        findings.error(f"{shown_as}/ cannot be read; {reason_of(error)}")
        return []
    unknown = []
    twice = FrameFindings()
    for name in sorted(links):
        match = _FRAME.fullmatch(name)
        if match is None:
            if Path(name).suffix.lower() in _IMAGE_SUFFIXES:
                unknown.append(name)
            continue
        number = int(match[1])
        if number in by_number:
            names = f"{by_number[number]} and {name}"
            twice.add(number, f"frame {number}", f"is there twice, as {names}; one has to go")
            continue
        by_number[number] = name
    twice.report(findings)
    if unknown:
        findings.warning(
            f"{shown_as}/{unknown[0]}"
            + (f" and {len(unknown) - 1} more" if len(unknown) > 1 else "")
            + " is not used; frames are named frame_0000.png or .jpg"
        )
    if not by_number:
        hint = frames_hint(root, besides=shown_as)
        findings.error(f"no frames: {shown_as}/ holds no frame_0000.png or .jpg{hint}")
        return []
    numbers = sorted(by_number)
    for expected, number in enumerate(numbers, start=numbers[0]):
        if number != expected:
            findings.error(
                f"frame {expected} is missing: {shown_as}/{by_number[expected - 1]} is followed"
                f" by {by_number[number]}; numbers run without gaps"
            )
            return []
    frames = []
    wrong = FrameFindings()
    for number in numbers:
        label = f"{shown_as}/{by_number[number]}"
        # Only links are resolved: it costs a system call for each folder above, for each frame.
        lies = folder / by_number[number]
        path: Path | None = lies
        if links[by_number[number]]:
            link = Findings()
            path = contained(root, lies.relative_to(root).as_posix(), label, link)
            for problem in link.problems:
                wrong.add(number, label, problem.message.removeprefix(label).strip())
        if path is None:
            continue
        if by_number[number] in special:
            wrong.add(number, label, "is not a file")
            continue
        frames.append((number, path))
    wrong.report(findings)
    return [] if twice or wrong else frames
