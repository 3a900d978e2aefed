"""Judge an avatar: run its held-out speech through the real engine and compare with the truth."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from lipwire.audio import SAMPLES_PER_FRAME, decode_audio, frame_count
from lipwire.avatars import find_avatar, read_package
from lipwire.avatars.frames import frame_tasks
from lipwire.compose import BorderPx, network_crop, paste_mouth
from lipwire.domain import (
    CropRect,
    Float32Array,
    InvalidInput,
    NotFound,
    StorageFailed,
    UInt8Array,
    ping_pong,
)
from lipwire.evaluation.figures import (
    correlation,
    lag_frames,
    psnr_db,
    seam_levels,
    share_closed,
    squared_errors,
)
from lipwire.evaluation.material import Index, Interior, Material, SequenceEntry, read_material
from lipwire.evaluation.opening import loudness, openings, pauses
from lipwire.evaluation.pictures import Track, opening_chart, viseme_sheet
from lipwire.evaluation.renderer import Renderer, controls_renderer
from lipwire.evaluation.report import Bar, Report
from lipwire.session import Performer, animate
from lipwire.wiring import CompileProgress, open_performer

Progress = Callable[[int, int], None]
"""Called after each frame with how many are done and how many there are in all."""

SPEECH, TRUE_CONTROLS = "speech", "true_controls"
"""What a picture was made from: the speech alone, or the controls that the truth was made with."""

MARGIN_PX = 2
"""Pixels kept around the crop rectangle, to look for a seam."""


@dataclass(frozen=True, slots=True)
class _Stage:
    """An avatar with the part of its frames that changes."""

    performer: Performer
    patches: list[UInt8Array]  # of each frame: its rectangle and MARGIN_PX around, BGR
    inner: list[CropRect]  # the rectangle inside the patch
    border_px: BorderPx
    swap: bool  # the package's colours are RGB

    def composited(self, index: int, mouth: UInt8Array) -> tuple[UInt8Array, int]:
        """The patch under frame ``index`` (back and forth) with ``mouth`` on it, and its number."""
        number = ping_pong(index, len(self.patches))
        patch = self.patches[number].copy()
        given = np.ascontiguousarray(mouth[..., ::-1]) if self.swap else mouth
        paste_mouth(patch, (0, 0), given, self.inner[number], self.border_px)
        return patch, number

    def inside(self, patch: UInt8Array, number: int) -> UInt8Array:
        box = self.inner[number]
        return patch[box.y1 : box.y2, box.x1 : box.x2]


@dataclass(frozen=True, slots=True)
class _Performance:
    """What the avatar did to one recording."""

    pictures: UInt8Array  # (T, h, w, 3) the crop rectangle of each frame
    seam: Float32Array  # (N,) levels, over all frames and border pixels


def evaluate(
    avatar: str | Path,
    out_dir: Path,
    *,
    audio: Path | None = None,
    compiling: CompileProgress | None = None,
    progress: Progress | None = None,
) -> Report:
    """Measure ``avatar`` (a name or folder) and write pictures into ``out_dir``.

    Without ``audio``, its held-out sequences are compared with their truth. With ``audio``, any
    recording, the opening is compared with the loudness of the speech.

    Raises NotFound, InvalidInput, AvatarInvalid, StorageFailed.
    """
    path = avatar if isinstance(avatar, Path) else find_avatar(avatar)
    material = None
    try:
        material = read_material(path)
    except NotFound:
        if audio is None:
            raise
    if material is not None and audio is None and not material.index.sequences:
        raise NotFound(f"{path.name} lists no held-out sequences; give a recording (--audio FILE)")
    pcm = decode_audio(audio) if audio is not None else None
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageFailed(f"cannot make the folder {out_dir}: {error.strerror}") from error
    with open_performer(path, parts=frozenset(), progress=compiling) as performer:
        stage = _set_stage(path, performer)
        if audio is not None and pcm is not None:
            return _judge_recording(stage, material, audio, pcm, out_dir, progress)
        if material is None:
            raise NotFound(
                f"{path.name} has no held-out sequences; give a recording (--audio FILE)"
            )
        return _judge_material(stage, material, path, out_dir, progress)


def _set_stage(path: Path, performer: Performer) -> _Stage:
    package = read_package(path)
    patches, inner = [], []
    tasks = frame_tasks(package.pictures)
    for task, rect in zip(tasks, package.rects, strict=False):
        frame = task()
        height, width = frame.shape[:2]
        x1, y1 = max(0, rect.x1 - MARGIN_PX), max(0, rect.y1 - MARGIN_PX)
        x2, y2 = min(width, rect.x2 + MARGIN_PX), min(height, rect.y2 + MARGIN_PX)
        patches.append(frame[y1:y2, x1:x2].copy())
        inner.append(CropRect(rect.x1 - x1, rect.y1 - y1, rect.x2 - x1, rect.y2 - y1))
    if len({(box.width, box.height) for box in inner}) != 1:
        raise InvalidInput("the crop rectangles differ in size; an evaluation needs one size")
    settings = package.settings
    return _Stage(performer, patches, inner, settings.crop_border, settings.colour_order == "rgb")


def _perform(stage: _Stage, pcm: Float32Array, told: Callable[[], None]) -> _Performance:
    pictures, seams = [], []
    for batch in animate(stage.performer, pcm):
        for offset, mouth in enumerate(batch.mouths):
            patch, number = stage.composited(batch.background + offset, mouth)
            pictures.append(stage.inside(patch, number))
            seams.append(seam_levels(patch, stage.patches[number], stage.inner[number]))
            told()
    return _Performance(np.stack(pictures), np.concatenate(seams))


def _rendered(stage: _Stage, renderer: Renderer, controls: Float32Array) -> UInt8Array:
    """What the network makes of the true controls, (T, h, w, 3)."""
    pictures = []
    for index, row in enumerate(controls):
        number = ping_pong(index, len(stage.patches))
        patch = stage.patches[number]
        crop = network_crop(patch, stage.inner[number], stage.border_px)
        given = np.ascontiguousarray(crop[..., ::-1]) if stage.swap else crop
        patch, number = stage.composited(index, renderer(given, row))
        pictures.append(stage.inside(patch, number))
    return np.stack(pictures)


@dataclass(frozen=True, slots=True)
class _Judged:
    """One held-out sequence, made and true, frame by frame; errors only where somebody speaks."""

    entry: SequenceEntry
    pcm: Float32Array
    made: Float32Array  # (T,) opening
    true: Float32Array  # (T,) opening
    seam: Float32Array
    errors: dict[str, Float32Array]  # by figure: squared error of each frame
    tiles: list[tuple[str, UInt8Array, UInt8Array]]  # viseme, truth, made

    def figures(self) -> dict[str, float]:
        return {
            "frames": len(self.made),
            "opening_correlation": correlation(self.made, self.true),
            "lag_frames": lag_frames([self.made], [self.true]),
            **{name: psnr_db(float(errors.mean())) for name, errors in self.errors.items()},
        }


def _judge_sequence(
    stage: _Stage,
    material: Material,
    entry: SequenceEntry,
    renderer: Renderer | None,
    told: Callable[[], None],
) -> _Judged:
    truth = material.truth(entry)
    shape = (stage.inner[0].height, stage.inner[0].width)
    if truth.shape[1:3] != shape:
        raise InvalidInput(
            f"evaluation/{entry.name}.mp4 is {truth.shape[2]}x{truth.shape[1]}; the crop "
            f"rectangle is {shape[1]}x{shape[0]}"
        )
    pcm = decode_audio(material.audio_path(entry))
    done = _perform(stage, pcm, told)
    count = min(len(done.pictures), len(truth))
    pictures, truth = done.pictures[:count], truth[:count]
    spoken = np.ones(count, bool)
    for first, end in entry.pauses:
        spoken[first:end] = False
    controls = material.controls(entry)
    forms = {SPEECH: pictures}
    if renderer is not None and controls is not None:
        forms[TRUE_CONTROLS] = _rendered(stage, renderer, controls[:count])
    boxes = {"mouth": material.mouth_region, "lips": material.lips_box}
    errors = {
        f"{name}_psnr_{form}_db": squared_errors(made[spoken], truth[: len(made)][spoken], box)
        for form, made in forms.items()
        for name, box in boxes.items()
    }
    tiles = [
        (
            f"{viseme.label}  ({entry.name}, frame {viseme.frame})",
            truth[viseme.frame],
            pictures[viseme.frame],
        )
        for viseme in entry.visemes
        if viseme.frame < count
    ]
    lips, interior = material.lips_box, material.index.interior
    return _Judged(
        entry,
        pcm,
        openings(pictures, lips, interior),
        openings(truth, lips, interior),
        done.seam,
        errors,
        tiles,
    )


def _judge_material(
    stage: _Stage, material: Material, path: Path, out_dir: Path, progress: Progress | None
) -> Report:
    entries = material.index.sequences
    speeches = [decode_audio(material.audio_path(entry)) for entry in entries]
    told = _teller(progress, sum(frame_count(len(pcm)) for pcm in speeches))
    renderer = controls_renderer(read_package(path).model_path)
    judged = [_judge_sequence(stage, material, entry, renderer, told) for entry in entries]

    below = material.index.interior.closed_below_px
    seam = np.concatenate([one.seam for one in judged])
    nothing = np.zeros(0, np.float32)
    still = np.concatenate(
        [nothing, *(one.made[a:b] for one in judged for a, b in one.entry.pauses)]
    )
    pooled = {
        name: psnr_db(float(np.concatenate([one.errors[name] for one in judged]).mean()))
        for name in judged[0].errors
        if all(name in one.errors for one in judged)
    }
    made, true = [one.made for one in judged], [one.true for one in judged]
    bars = [
        Bar(
            "opening follows the truth",
            correlation(np.concatenate(made), np.concatenate(true)),
            0.85,
            "at least",
        ),
        Bar("lips beside the truth", abs(lag_frames(made, true)), 1.0, "at most", "frames"),
        Bar("lips closed for p, b, m", _closures_closed(judged, below), 0.9, "at least"),
        Bar("lips closed in pauses", _share(still, below), 0.95, "at least"),
        Bar("mouth region, from speech", pooled[f"mouth_psnr_{SPEECH}_db"], 32.0, "at least", "dB"),
        Bar("seam, mean", float(seam.mean()), 1.0, "at most", "levels"),
        Bar(
            "seam, worst pixel in a hundred",
            float(np.percentile(seam, 99)),
            6.0,
            "at most",
            "levels",
        ),
    ]
    # Speech does not say exactly how far a mouth opens, and edges a pixel away cost many dB: given
    # the true controls, the network is judged as a painter.
    if (name := f"mouth_psnr_{TRUE_CONTROLS}_db") in pooled:
        bars.insert(
            5, Bar("mouth region, from the true controls", pooled[name], 32.0, "at least", "dB")
        )
    figures = {one.entry.name: one.figures() for one in judged}
    figures["all"] = {
        **pooled,
        "closures": sum(len(one.entry.closures) for one in judged),
        "pause_frames": len(still),
    }
    tracks = [_track(one) for one in judged]
    written = [_write(out_dir / "opening.png", opening_chart(tracks))]
    tiles = [tile for one in judged for tile in one.tiles]
    if tiles:
        written.append(_write(out_dir / "visemes.png", viseme_sheet(tiles)))
    frames = sum(len(one.made) for one in judged)
    return Report(stage.performer.avatar.name, frames, tuple(bars), figures, tuple(written))


def _closures_closed(judged: list[_Judged], below: float) -> float:
    """The share of all closures in which the lips meet; NaN where there are none."""
    known = [one for one in judged if one.entry.closures]
    total = sum(len(one.entry.closures) for one in known)
    met = sum(
        share_closed(one.made, one.entry.closures, below) * len(one.entry.closures) for one in known
    )
    return met / total if total else float("nan")


def _judge_recording(
    stage: _Stage,
    material: Material | None,
    audio: Path,
    pcm: Float32Array,
    out_dir: Path,
    progress: Progress | None,
) -> Report:
    done = _perform(stage, pcm, _teller(progress, frame_count(len(pcm))))
    if material is not None:
        index = material.index
    else:
        moving = _moving_box(done.pictures)
        index = Index(mouth_region=moving, lips_box=moving)
    box = CropRect(*index.lips_box)
    made = openings(done.pictures, box, index.interior)
    levels = loudness(pcm, len(made), SAMPLES_PER_FRAME)
    quiet = pauses(levels)
    still = np.concatenate([made[a:b] for a, b in quiet]) if quiet else np.zeros(0, np.float32)
    lag = lag_frames([made], [levels])
    below = index.interior.closed_below_px
    bars = [Bar("lips beside the loudness", abs(lag), 1.0, "at most", "frames")]
    if len(still):
        bars.append(Bar("lips closed in pauses", _share(still, below), 0.95, "at least"))
    bars.append(Bar("seam, mean", float(done.seam.mean()), 1.0, "at most", "levels"))
    figures = {
        audio.stem: {
            "frames": len(made),
            "lag_to_loudness_frames": lag,
            "correlation_with_loudness": correlation(made, levels),
            "pause_frames": len(still),
            "opening_mean_px": float(made.mean()),
            "opening_most_px": float(made.max()),
        }
    }
    track = Track(audio.stem, pcm, SAMPLES_PER_FRAME, made, None, tuple(quiet))
    spread = np.argsort(made)[np.linspace(0, len(made) - 1, 8).astype(int)]
    written = (
        _write(out_dir / "opening.png", opening_chart([track])),
        _write(out_dir / "mouths.png", _strip(done.pictures[np.sort(spread)])),
    )
    name = stage.performer.avatar.name
    return Report(name, len(made), tuple(bars), figures, written)


def _track(one: _Judged) -> Track:
    entry = one.entry
    title = f"{entry.name}: {entry.voice}" if entry.voice else entry.name
    return Track(
        title, one.pcm, SAMPLES_PER_FRAME, one.made, one.true, entry.pauses, entry.closures
    )


def _moving_box(pictures: UInt8Array) -> tuple[int, int, int, int]:
    """Where pictures (T, h, w, 3) of one mouth change most: x1, y1, x2, y2."""
    spread = pictures.astype(np.float32).mean(axis=3).std(axis=0)
    smooth = cv2.blur(spread, (15, 15))
    rows, columns = np.nonzero(smooth >= 0.5 * smooth.max())
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


def _strip(pictures: UInt8Array) -> UInt8Array:
    return np.concatenate([np.concatenate(list(half), axis=1) for half in np.split(pictures, 2)])


def _share(openings_px: Float32Array, below: float) -> float:
    return float(np.mean(openings_px <= below)) if len(openings_px) else float("nan")


def _teller(progress: Progress | None, total: int) -> Callable[[], None]:
    done = 0

    def told() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(min(done, total), total)

    return told


def _write(path: Path, picture: UInt8Array) -> Path:
    data = cv2.imencode(".png", picture)[1].tobytes()
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_bytes(data)
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise StorageFailed(f"cannot write {path}: {error.strerror}") from error
    return path


__all__ = ["Interior", "Progress", "evaluate"]
