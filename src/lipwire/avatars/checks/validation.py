"""Everything wrong with a package, at once: each image decoded, each network looked into, and the
avatar's own tried."""

from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from lipwire.audio import AudioEncoder
from lipwire.avatars.checks.hints import encoder_hint
from lipwire.avatars.checks.networktrial import try_network
from lipwire.avatars.checks.problems import Findings, FrameFindings, Problem
from lipwire.avatars.checks.rectanglechecks import doubts, misplaced
from lipwire.avatars.compiled.compiling import other_size
from lipwire.avatars.frames.framefiles import Pictures
from lipwire.avatars.frames.frameloading import FrameTask, frame_tasks, in_order
from lipwire.avatars.frames.masks import Masks
from lipwire.avatars.frames.origins import Origins
from lipwire.avatars.frames.picturenotes import compiled_notes, picture_notes
from lipwire.avatars.locating import MISSING, what_is_wrong
from lipwire.avatars.package import (
    Structure,
    check_closed_eyes,
    compare_counts,
    inspect_structure,
)
from lipwire.avatars.packagesettings import AvatarSettings
from lipwire.avatars.sandbox.sandbox import Sandbox
from lipwire.domain import AvatarInvalid, CompileProgress, LipwireError
from lipwire.domain.avatarfiles import ENCODER_NAME
from lipwire.engine import NetworkTrial

T = TypeVar("T")

_WORKERS: Final = 2
"""Validation is a background job: it leaves the other cores alone."""


def validate_package(
    path: Path, *, progress: CompileProgress | None = None, sandbox: Sandbox | None = None
) -> list[Problem]:
    """Check the avatar whose files are in the folder ``path`` and return all problems, errors and
    warnings, in the order in which they were found; empty where everything is in order.

    Every frame is decoded, and the network runs on the first for silence and for speech, so that
    this may take minutes. ``progress(done, total, what)`` is called in this thread meanwhile:
    ``done`` of ``total`` frames are finished in the task ``what``, and ``total`` is 0 where it is
    not known. With a ``sandbox`` a process of its own does the work, within its limits. Raises
    NotFound where nothing is there, and with a sandbox Unavailable where its process cannot be
    started or is killed; everything else is in the list.
    """
    if sandbox is not None:
        return sandbox.validate(path, progress or _silent)
    findings = Findings()
    try:
        found = inspect_structure(path, findings)
    except AvatarInvalid as error:
        return [Problem("error", str(error))]
    if found.encoder_path is None:
        _check_encoder_is_named(found, findings)
    trial = _looked_into(NetworkTrial, found.model_path, findings)
    encoder = _looked_into(AudioEncoder.open, found.encoder_path, findings)
    report = progress or _silent
    if found.pictures is not None:
        sound = _check_frames(found.pictures, found, findings, report)
        if sound and found.rects and trial is not None:
            settings = found.settings or AvatarSettings()
            waiting = partial(report, 0, 0, "trying the network")
            try_network(trial, encoder, found.pictures, found.rects[0], settings, findings, waiting)
    return findings.problems


def _check_encoder_is_named(found: Structure, findings: Findings) -> None:
    """A warning where there is none; where it is named and not there, that was an error already."""
    named = found.settings is not None and found.settings.audio_encoder is not None
    lack = what_is_wrong(found.root / ENCODER_NAME)
    if not named and lack is not None:
        instead = encoder_hint(found.root) if lack == MISSING else ""
        findings.warning(
            f"no audio encoder: {ENCODER_NAME} {lack}; rendering needs --audio-encoder"
            f" FILE.onnx, the one that the network was trained with{instead}"
        )


def _check_frames(
    pictures: Pictures, found: Structure, findings: Findings, progress: CompileProgress
) -> bool:
    """Whether the first frame is sound, and its rectangle is in it."""
    total = len(pictures.frame_paths)
    size: tuple[int, int] | None = None
    count = 0
    origins = Origins()
    wrong = FrameFindings()
    try:
        for note in picture_notes(pictures):
            findings.warning(note)
        with (
            closing(frame_tasks(pictures, origins)) as tasks,
            closing(in_order((partial(_size, task) for task in tasks), _WORKERS)) as results,
        ):
            for result in results:
                number, label = pictures.first_number + count, pictures.label(count)
                if isinstance(result, AvatarInvalid):
                    wrong.add(number, label, str(result).removeprefix(label).strip())
                else:
                    size = size or result
                    if result != size:
                        wrong.add(number, label, other_size(result, size))
                count += 1
                progress(count, total, "decoding frames")
        for note in compiled_notes(pictures, origins):
            findings.warning(note)
    except AvatarInvalid as error:  # the video itself
        findings.error(str(error))
        return False
    placed = size is not None and _check_rectangles(pictures, found, size, findings)
    wrong.report(findings)
    if found.masks is not None and size is not None:
        _check_masks(found.masks, pictures, size, findings)
    if pictures.video_path is not None:
        if found.rects is not None:
            compare_counts(len(found.rects), count, findings)
        check_closed_eyes(found.settings or AvatarSettings(), count, findings)
    return placed and pictures.first_number not in wrong


def _check_masks(
    masks: Masks, pictures: Pictures, size: tuple[int, int], findings: Findings
) -> None:
    """Put an error into ``findings`` for each mask that cannot be read or has another size."""
    wrong = FrameFindings()
    for number in sorted(masks.paths):
        label = masks.label(number)
        try:
            masks.read(number, size)
        except AvatarInvalid as error:
            wrong.add(pictures.first_number + number, label, str(error).removeprefix(label).strip())
    wrong.report(findings)


def _check_rectangles(
    pictures: Pictures, found: Structure, size: tuple[int, int], findings: Findings
) -> bool:
    """Whether all rectangles that there are can be where they are."""
    rects = pictures.used(found.rects or ())
    error = misplaced(rects, *size, pictures.first_number)
    if error is not None:
        findings.error(error)
        return False
    for doubt in doubts(rects, *size, pictures.first_number):
        findings.warning(doubt)
    return True


def _size(task: FrameTask) -> tuple[int, int] | AvatarInvalid:
    """(width, height) of a frame, or why it has none."""
    try:
        pixels = task()
    except AvatarInvalid as error:
        return error
    return pixels.shape[1], pixels.shape[0]


def _looked_into(look: Callable[[Path], T], path: Path | None, findings: Findings) -> T | None:
    if path is None:
        return None
    try:
        return look(path)
    except LipwireError as error:
        findings.error(str(error))
        return None


def _silent(done: int, total: int, what: str) -> None:
    del done, total, what
