"""Everything wrong with a package, at once: each image decoded, each network looked into."""

from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Final

from lipwire.audio import AudioEncoder
from lipwire.avatars.compiling import Progress, check_frame
from lipwire.avatars.frames import FrameTask, frame_tasks, in_order, video_rate
from lipwire.avatars.package import Pictures, Structure, compare_counts, inspect_structure
from lipwire.avatars.problems import Findings, Problem
from lipwire.domain import FPS, AvatarInvalid, LipwireError
from lipwire.engine import inspect_model

_WORKERS: Final = 2
"""Validation is a background job: it leaves the other cores alone."""
_MAX_FRAME_LINES: Final = 20


def validate_package(path: Path, *, progress: Progress | None = None) -> list[Problem]:
    """All problems of the package in folder ``path``, errors and warnings in the order of the
    package's files; empty where everything is in order. Every frame is decoded.

    Raises NotFound where nothing is there; everything else is in the list.
    """
    findings = Findings()
    try:
        found = inspect_structure(path, findings)
    except AvatarInvalid as error:
        return [Problem("error", str(error))]
    if found.model_path is not None:
        _check(inspect_model, found.model_path, findings)
    if found.encoder_path is not None:
        _check(AudioEncoder.open, found.encoder_path, findings)
    if found.pictures is not None:
        _check_frames(found.pictures, found, findings, progress)
    return findings.problems


def _check_frames(
    pictures: Pictures, found: Structure, findings: Findings, progress: Progress | None
) -> None:
    total = len(pictures.frame_paths)
    size: tuple[int, int] | None = None
    count = wrong = 0
    try:
        _check_rate(pictures, findings)
        with (
            closing(frame_tasks(pictures)) as tasks,
            closing(in_order((partial(_size, task) for task in tasks), _WORKERS)) as results,
        ):
            for result in results:
                error = result if isinstance(result, AvatarInvalid) else None
                if not isinstance(result, AvatarInvalid):
                    size = size or result
                    rect = found.rects[count] if found.rects and count < len(found.rects) else None
                    try:
                        check_frame(pictures.label(count), result, rect, size)
                    except AvatarInvalid as caught:
                        error = caught
                count += 1
                if error is not None:
                    wrong += 1
                    if wrong <= _MAX_FRAME_LINES:
                        findings.error(str(error))
                if progress is not None:
                    progress(count, total, "decoding frames")
    except AvatarInvalid as error:  # the video itself
        findings.error(str(error))
        return
    if wrong > _MAX_FRAME_LINES:
        findings.error(f"{wrong - _MAX_FRAME_LINES} more frames are wrong; {wrong} of {count}")
    if pictures.video_path is not None and found.rects is not None:
        compare_counts(len(found.rects), count, findings)


def _check_rate(pictures: Pictures, findings: Findings) -> None:
    if pictures.video_path is None:
        return
    rate = video_rate(pictures.video_path)
    if rate is not None and rate != FPS:
        findings.warning(
            f"{pictures.video_path.name} has {float(rate):g} frames a second; it is shown at {FPS},"
            " so movements change their speed"
        )


def _size(task: FrameTask) -> tuple[int, int] | AvatarInvalid:
    """(width, height) of a frame, or why it has none."""
    try:
        pixels = task()
    except AvatarInvalid as error:
        return error
    return pixels.shape[1], pixels.shape[0]


def _check(look: Callable[[Path], object], path: Path, findings: Findings) -> None:
    try:
        look(path)
    except LipwireError as error:
        findings.error(str(error))
