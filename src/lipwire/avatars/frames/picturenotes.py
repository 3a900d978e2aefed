"""What people should know of a package's pictures though nothing is wrong: they are turned,
resampled, or something of them is not used."""

from pathlib import Path

import cv2
import numpy as np

from lipwire.avatars.checks.problems import frames_shown
from lipwire.avatars.frames.framefiles import Pictures
from lipwire.avatars.frames.imagefacts import image_facts
from lipwire.avatars.frames.images import MAX_FILE_BYTES
from lipwire.avatars.frames.origins import Origins
from lipwire.avatars.frames.videoframes import Damage, interlaced_warning, opened_video
from lipwire.domain import FPS

_UPRIGHT_RECTANGLES = "rectangles are in the coordinates of the picture as it is shown"


def picture_notes(pictures: Pictures) -> list[str]:
    """Return what a person should know about ``pictures`` before they are decoded, one line for
    each kind of thing: they are turned, have alpha that is not used, are interlaced.

    Raises AvatarInvalid where a video cannot be read or cannot be shown right: sides over 8192
    pixels, pixels that are not square, HDR, rotations other than quarter turns.
    """
    if pictures.video_path is not None:
        return _video_notes(pictures.video_path)
    return _image_notes(pictures)


def compiled_notes(pictures: Pictures, origins: Origins) -> list[str]:
    """Return what decoding all frames of ``pictures`` has shown, one line each for a person: that a
    video is resampled to 25 frames a second, that it is damaged. Empty for images. ``origins`` has
    to be complete: what ``frame_tasks`` or compiling has filled, or ``Patches.origins`` of the
    compiled avatar."""
    if pictures.video_path is None:
        return []
    name = pictures.video_path.name
    notes = []
    if origins.resampled:
        notes.append(_resampling_note(name, origins.shown, origins.sources))
    if origins.damage.frames or origins.damage.lost:
        notes.append(_damage_note(name, origins.damage))
    return notes


def _damage_note(label: str, damage: Damage) -> str:
    parts = []
    if damage.frames:
        verb = "is" if len(damage.frames) == 1 else "are"
        parts.append(f"{frames_shown(damage.frames)} {verb} shown with faults")
    if damage.lost:
        verb = "is" if damage.lost == 1 else "are"
        parts.append(f"{damage.lost} of its frames cannot be decoded and {verb} left out")
    return f"{label} is damaged: {', '.join(parts)}"


def _resampling_note(label: str, shown: list[int], sources: int) -> str:
    return (
        f"{label} has not {FPS} frames in each second: by its time stamps {len(set(shown))} of its"
        f" {sources} frames are shown, as {len(shown)} frames at {FPS} a second; rectangles are"
        " counted by the frames of the video"
    )


def _video_notes(path: Path) -> list[str]:
    name = path.name
    notes = []
    with opened_video(path) as video:
        first = next(video.frames())
        if video.turned:
            notes.append(
                f"{name} is shown turned, as its display matrix says; {_UPRIGHT_RECTANGLES}"
            )
        if video.alpha:
            notes.append(f"{name} has alpha, which is not used")
        if first.interlaced:
            notes.append(interlaced_warning(name))
    return notes


def _image_notes(pictures: Pictures) -> list[str]:
    turned, transparent, deep = [], [], []
    for index, path in enumerate(pictures.frame_paths):
        data = _read(path)
        facts = image_facts(data)
        label = pictures.label(index)
        if facts.orientation != 1:
            turned.append(label)
        if facts.alpha and _is_transparent(data):
            transparent.append(label)
        if facts.bits == 16:
            deep.append(label)
    found = (
        (turned, f"turned as EXIF says; {_UPRIGHT_RECTANGLES}"),
        (transparent, "transparent in places; their colours are shown there and alpha is not used"),
        (deep, "of 16 bits a channel; 8 are used"),
    )
    return [f"{_some(labels)} {text}" for labels, text in found if labels]


def _some(labels: list[str]) -> str:
    if len(labels) == 1:
        return f"{labels[0]} is"
    return f"{labels[0]} and {len(labels) - 1} more are"


def _read(path: Path) -> bytes:
    """Nothing where it cannot be read: decoding the frame says so."""
    try:
        return path.read_bytes() if path.stat().st_size <= MAX_FILE_BYTES else b""
    except OSError:
        return b""


def _is_transparent(data: bytes) -> bool:
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        return False
    if pixels is None or pixels.ndim != 3 or pixels.shape[2] != 4:
        return False
    opaque = 65535 if pixels.dtype == np.uint16 else 255
    return bool(pixels[..., 3].min() < opaque)
