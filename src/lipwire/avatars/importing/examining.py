"""What a source holds, found and checked before anything is written."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from lipwire.avatars.checks.hints import PARTS_OF_FRAMES
from lipwire.avatars.checks.problems import Findings, frames_shown
from lipwire.avatars.frames.images import read_image
from lipwire.avatars.importing.facerects import (
    find_rectangles,
    rectangles_of_images,
    rectangles_of_video,
)
from lipwire.avatars.importing.features import RECORDINGS
from lipwire.avatars.importing.landmarksize import check_landmarks_size, sampled
from lipwire.avatars.importing.layouts import BODY_VIDEO, FEATURES, PACKAGE_INFO, recognised
from lipwire.avatars.importing.networks import (
    Checkpoints,
    FoundNetwork,
    find_encoder,
    find_network,
)
from lipwire.avatars.importing.pictures import (
    NumberedImages,
    grey_frames,
    grey_images,
    numbered_images,
    shows_the_same,
    video_facts,
)
from lipwire.avatars.importing.report import Report
from lipwire.avatars.importing.sources import BODY_FOLDER, Source, contents_of, followed, label_of
from lipwire.avatars.locating import read_file
from lipwire.avatars.packagesettings import (
    MAX_SETTINGS_BYTES,
    SETTINGS_NAME,
    AvatarSettings,
    parse_settings,
)
from lipwire.domain import AvatarInvalid, CropRect, InvalidInput
from lipwire.domain.avatarfiles import (
    ENCODER_NAME,
    FRAMES_NAME,
    MASKS_NAME,
    MODEL_NAME,
    VIDEO_NAME,
)
from lipwire.domain.wording import shown

_FRAME_FOLDERS: Final = (FRAMES_NAME, BODY_FOLDER, "full_body", "images", "imgs", "img")
_VIDEO_SUFFIXES: Final = (".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi")
_PARSING: Final = "parsing"
"""Of pictures that say which part of a face each pixel of a frame is."""
_LOOKED_AT: Final = 500
"""First frames of a video that are decoded to look whether the landmarks are on something that
moves."""
_MAX_INFO_BYTES: Final = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Material:
    """All that a package is made of. The frames are ``images``, files in their order, or one
    ``video``: the first is empty or the second None. ``rects`` are the crop rectangles of the
    frames in order. ``encoder`` is the audio encoder, None where there is none; ``settings`` are
    kept from the source or assumed. ``features`` is the file of audio features made of the
    recording, and ``recording`` that recording; each is None where it is not there."""

    source: Source
    images: tuple[Path, ...]
    video: Path | None
    rects: tuple[CropRect, ...]
    masks: Mapping[int, Path]
    """What is in front of the mouth, by the frame's number from 0."""
    network: FoundNetwork
    encoder: FoundNetwork | None
    settings: AvatarSettings
    features: Path | None
    recording: Path | None


@dataclass(frozen=True, slots=True)
class _Frames:
    images: NumberedImages | None
    video: Path | None


def examine(source: Source, checkpoints: Checkpoints, report: Report) -> Material:
    """Find and check the parts of an avatar that ``source`` holds, and return them for
    ``write_package``; nothing is written. Images are read in part, a video is decoded.

    What is found, assumed or unusual is added to ``report``. ``checkpoints`` is asked what the
    network or the audio encoder is where it is a PyTorch checkpoint. Raises AvatarInvalid with the
    first thing that is missing or wrong, InvalidInput where ``source.landmarks_size`` is given and
    the crop rectangles are in a file and not made of landmarks of the face, and DependencyMissing
    where PyTorch is needed and not installed.
    """
    named = source.frames is not None and source.rectangles is not None
    layout = "the files that were named" if named else recognised(source.folder, source.shown)
    report.row("layout", layout, "a package")
    info = _package_info(source, report)
    settings = _settings(source, report)
    frames = _find_frames(source, settings, info)
    network = find_network(source)
    encoder = find_encoder(source)
    images, video, rects = _frames_and_rectangles(source, frames, info, report)
    _tell_network(network, checkpoints, report)
    _tell_encoder(encoder, checkpoints, report)
    _assume(settings, report)
    masks = _find_masks(source, frames.images, report)
    if (source.folder / _PARSING).is_dir():
        report.note(
            f"{_PARSING}/ is not used: it says which part of the face each pixel is, in the colours"
            f" of its maker; what is in front of the mouth is read from {MASKS_NAME}/, as black in"
            " white"
        )
    features = source.folder / FEATURES
    recording = next(
        (path for name in RECORDINGS if (path := source.folder / name).is_file()), None
    )
    return Material(
        source,
        images,
        video,
        rects,
        masks,
        network,
        encoder,
        settings or AvatarSettings(),
        followed(features, source.folder, FEATURES) if features.is_file() else None,
        None if recording is None else followed(recording, source.folder, recording.name),
    )


def _package_info(source: Source, report: Report) -> dict[str, Any]:
    """What ``package_info.json`` says; empty where it is not there or says nothing of use."""
    path = source.folder / PACKAGE_INFO
    if not path.is_file():
        return {}
    findings = Findings()
    data = read_file(
        followed(path, source.folder, PACKAGE_INFO), PACKAGE_INFO, _MAX_INFO_BYTES, findings
    )
    findings.raise_first()
    try:
        info = json.loads(data or b"")
    except (ValueError, RecursionError) as error:
        raise AvatarInvalid(f"{PACKAGE_INFO} is no JSON: {type(error).__name__}") from error
    if not isinstance(info, dict):
        raise AvatarInvalid(f"{PACKAGE_INFO} holds {shown(info)}; it has to be an object")
    kinds = [str(info[key]) for key in ("package_type", "type", "format") if key in info]
    version = info.get("package_version", info.get("version"))
    said = " ".join([*kinds[:1], *([] if version is None else [str(version)])])
    report.row("description", PACKAGE_INFO + (f": {said}"[:80] if said else ""), "read")
    return info


def _video_info(info: dict[str, Any]) -> dict[str, Any]:
    """What ``package_info.json`` says of the video of whole frames."""
    videos = info.get("videos")
    body = videos.get("full_body") if isinstance(videos, dict) else None
    return body if isinstance(body, dict) else {}


def _settings(source: Source, report: Report) -> AvatarSettings | None:
    """Those of a package that has its own; None where there are none."""
    path = source.folder / SETTINGS_NAME
    if not path.is_file():
        return None
    findings = Findings()
    path = followed(path, source.folder, SETTINGS_NAME)
    data = read_file(path, SETTINGS_NAME, MAX_SETTINGS_BYTES, findings)
    settings = None if data is None else parse_settings(data, findings)
    findings.raise_first()
    report.row("settings", SETTINGS_NAME, SETTINGS_NAME)
    return settings


def _find_frames(source: Source, settings: AvatarSettings | None, info: dict[str, Any]) -> _Frames:
    """The images, and the video, where both are there. Raises AvatarInvalid where neither is."""
    if source.frames is not None:
        if source.frames.is_dir():
            images = numbered_images(source.frames, source.frames, source.frames.name)
            if images is None:
                raise AvatarInvalid(f"{source.frames} holds no PNG or JPEG images with numbers")
            return _Frames(images, None)
        return _Frames(None, source.frames)
    found = None
    for name in _FRAME_FOLDERS:
        folder = source.folder / name
        if folder.is_dir():
            found = numbered_images(followed(folder, source.folder, name), source.folder, name)
        if found is not None:
            break
    video = _find_video(source, settings, info, recordings=found is None)
    if found is None and video is None:
        found = numbered_images(source.folder, source.folder, source.folder.name)
    if found is None and video is None:
        raise AvatarInvalid(
            f"{source.shown} has no frames: neither {BODY_FOLDER}/, {FRAMES_NAME}/ nor"
            f" {BODY_VIDEO} holds any"
        )
    return _Frames(found, video)


def _find_video(
    source: Source, settings: AvatarSettings | None, info: dict[str, Any], *, recordings: bool
) -> Path | None:
    """The video of whole frames: the one that a file names, or one of its usual names. With
    ``recordings`` also that of the recording, or the only video that is no part of frames."""
    said = _video_info(info).get("filename", _video_info(info).get("file"))
    names = [
        *([settings.source_video] if settings and settings.source_video else []),
        *([said] if isinstance(said, str) and "/" not in said and "\\" not in said else []),
        VIDEO_NAME,
        BODY_VIDEO,
    ]
    if recordings:
        names += [f"{source.folder.name}_25fps.mp4", f"{source.folder.name}.mp4"]
    for name in names:
        if (source.folder / name).is_file():
            return followed(source.folder / name, source.folder, name)
    if not recordings:
        return None
    others = [
        path
        for path in sorted(contents_of(source.folder))
        if path.suffix.lower() in _VIDEO_SUFFIXES
        and path.is_file()
        and not PARTS_OF_FRAMES.search(path.name)
    ]
    return followed(others[0], source.folder, others[0].name) if len(others) == 1 else None


def _frames_and_rectangles(
    source: Source, frames: _Frames, info: dict[str, Any], report: Report
) -> tuple[tuple[Path, ...], Path | None, tuple[CropRect, ...]]:
    """(images, video, rectangles): the images, where they and a video are there."""
    faces = find_rectangles(source)
    if source.landmarks_size is not None and not faces.landmarks:
        raise InvalidInput(
            f"--landmarks-size is for landmarks, and the rectangles of {source.shown} are in"
            f" {faces.label}"
        )
    promised = source.frame_count or _whole(_video_info(info).get("frame_count"))
    if frames.images is not None:
        images = frames.images
        paths = tuple(images.paths.values())
        label = label_of(images.folder, source.folder)
        first = read_image(paths[0], label_of(paths[0], source.folder))
        size = first.shape[1], first.shape[0]
        _check_count(label + "/", len(paths), source.frame_count, source.shown)
        _tell_images(images, label, size, report)
        if frames.video is not None:
            _tell_both(images, frames.video, report)
        rects = rectangles_of_images(faces, images, size, source, report)
        count, video = len(paths), None
        if faces.landmarks and source.landmarks_size is None:
            looked_at = sampled(count)
            pixels = grey_images([paths[index] for index in looked_at])
            check_landmarks_size([rects[index] for index in looked_at], pixels, faces.label)
    else:
        video = frames.video
        assert video is not None  # one of the two: _find_frames
        facts = video_facts(video)
        size, count, paths = facts.size, facts.count, ()
        if facts.lost:
            raise AvatarInvalid(
                f"{video.name} is damaged: {facts.lost} of its frames cannot be decoded, and which"
                " rectangles are theirs is not known"
            )
        _check_count(video.name, count, promised, PACKAGE_INFO if info else source.shown)
        if facts.faulty:
            report.note(f"{video.name} is damaged: {frames_shown(facts.faulty)} shown with faults")
        report.row("frames", f"{video.name}: {count} of {size[0]}x{size[1]}", _video_name(video))
        rects = rectangles_of_video(faces, count, size, video.name, source, report)
        if faces.landmarks and source.landmarks_size is None:
            looked_at = sampled(min(count, _LOOKED_AT))
            pixels = grey_frames(video, looked_at)
            check_landmarks_size([rects[index] for index in looked_at], pixels, faces.label)
    made_of = f"{faces.label} (110 points a frame)" if faces.landmarks else faces.label
    widths = sorted({rect.width for rect in rects})
    span = f"{widths[0]}" if len(widths) == 1 else f"{widths[0]} to {widths[-1]}"
    report.row("rectangles", f"{made_of}: {count}, {span} pixels wide", "crop_rects.json")
    if source.landmarks_size is not None:
        report.note(
            "{}: scaled from pictures of {}x{} to {}x{}".format(
                faces.label, *source.landmarks_size, *size
            )
        )
    if faces.unused is not None:
        report.note(f"{faces.unused} is not used, since {faces.label} has the rectangles")
    return paths, video, rects


def _find_masks(source: Source, images: NumberedImages | None, report: Report) -> dict[int, Path]:
    """The files in ``masks/`` that belong to a frame, by its number from 0 among the frames."""
    folder = source.folder / MASKS_NAME
    if not folder.is_dir():
        return {}
    found = numbered_images(followed(folder, source.folder, MASKS_NAME), source.folder, MASKS_NAME)
    named = {} if found is None else found.paths
    places = {number: number for number in named}
    if images is not None:
        places = {number: place for place, number in enumerate(images.paths)}
    masks = {
        places[number]: path
        for number, path in named.items()
        if number in places and path.suffix.lower() == ".png"
    }
    if len(masks) < len(named) or not named:
        report.note(
            f"{MASKS_NAME}/: {len(named) - len(masks)} of {len(named)} not used: no PNG, or"
            " of no frame"
        )
    if masks:
        report.row("masks", f"{MASKS_NAME}/: {len(masks)}", f"{MASKS_NAME}/, copied")
    return masks


def _whole(value: object) -> int | None:
    return value if type(value) is int and value > 0 else None


def _check_count(label: str, count: int, promised: int | None, by: str) -> None:
    if promised is not None and count != promised:
        raise AvatarInvalid(
            f"{label} has {count} frames and {by} says {promised}: it is cut off, or not the one"
            " that was meant"
        )


def _tell_images(images: NumberedImages, label: str, size: tuple[int, int], report: Report) -> None:
    names = [path.name for path in images.paths.values()]
    span = names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"
    report.row(
        "frames",
        f"{label}/: {len(names)} of {size[0]}x{size[1]}, {span}",
        f"{FRAMES_NAME}/, copied",
    )
    if gaps := images.gaps:
        report.note(
            f"{label}/: {frames_shown(gaps)} missing; the frames before and behind follow one"
            " another"
        )
    if images.doubled:
        report.note(
            f"{label}/: {frames_shown(images.doubled)} twice there, as the same pictures; one of"
            " each is taken, PNG before JPEG"
        )
    if images.unused:
        more = f" and {len(images.unused) - 1} more" if len(images.unused) > 1 else ""
        report.note(f"{label}/{images.unused[0]}{more} not used: named in another way")


def _tell_both(images: NumberedImages, video: Path, report: Report) -> None:
    if shows_the_same(images, video):
        report.note(f"{video.name} shows the same pictures as the images and is left out")
    else:
        report.note(f"{video.name} shows other pictures than the images and is left out")


def _video_name(video: Path) -> str:
    return VIDEO_NAME if video.suffix.lower() == ".mp4" else f"source_video{video.suffix.lower()}"


def _tell_network(found: FoundNetwork, checkpoints: Checkpoints, report: Report) -> None:
    others = f", of {found.others + 1} checkpoints" if found.others else ""
    if found.pytorch:
        what = checkpoints.describe(found.path, "network")
        report.row("network", f"{found.label}{others}: {what}", f"{MODEL_NAME}, converted")
        report.assume(
            "the network hears 'ave' features: a checkpoint that was trained on hubert features"
            " looks the same"
        )
    else:
        report.row("network", found.label, f"{MODEL_NAME}, copied")


def _tell_encoder(found: FoundNetwork | None, checkpoints: Checkpoints, report: Report) -> None:
    if found is None:
        report.row("audio encoder", "none", "left out")
        report.note(
            "no audio encoder was found: rendering needs the one that the network was trained with,"
            " by --audio-encoder here or there"
        )
    elif found.pytorch:
        what = checkpoints.describe(found.path, "audio encoder")
        report.row("audio encoder", f"{found.label}: {what}", f"{ENCODER_NAME}, converted")
    else:
        report.row("audio encoder", found.label, f"{ENCODER_NAME}, copied")


def _assume(settings: AvatarSettings | None, report: Report) -> None:
    given = frozenset() if settings is None else settings.model_fields_set
    if "crop_border" not in given:
        report.assume("the network sees the crop without 4 pixels at each side (crop_border: 4)")
    if "colour_order" not in given:
        report.assume("it was trained on blue, green, red (colour_order: bgr)")
