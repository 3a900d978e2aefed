"""Speech that training never heard, against its rendered truth."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lipwire.audio import SAMPLES_PER_FRAME, decode_audio, frame_count
from lipwire.avatars import read_package
from lipwire.domain import Float32Array, InvalidInput, Progress, UInt8Array
from lipwire.evaluation.figures import (
    correlation,
    lag_frames,
    mean_psnr_db,
    psnr_db,
    share_below,
    share_closed,
    squared_errors,
)
from lipwire.evaluation.material import Material, SequenceEntry
from lipwire.evaluation.opening import openings
from lipwire.evaluation.pictures import Track, opening_chart, viseme_sheet, write_picture
from lipwire.evaluation.renderer import Renderer, controls_renderer
from lipwire.evaluation.report import Bar, Report
from lipwire.evaluation.stage import Stage, perform, rendered, teller

BoolArray = npt.NDArray[np.bool_]

SPEECH, TRUE_CONTROLS = "speech", "true_controls"
"""What a picture was made from: the speech alone, or the controls that the truth was made with."""


@dataclass(frozen=True, slots=True)
class _Judged:
    """One held-out sequence, made and true, frame by frame."""

    entry: SequenceEntry
    pcm: Float32Array
    made: Float32Array  # (T,) opening
    true: Float32Array  # (T,) opening
    seam: Float32Array
    spoken: BoolArray  # (T,) whether somebody speaks
    errors: dict[str, Float32Array]  # by what is compared: mean squared error of each frame
    tiles: list[tuple[str, UInt8Array, UInt8Array]]  # viseme, truth, made

    def figures(self) -> dict[str, float]:
        return {
            "frames": len(self.made),
            "opening_correlation": correlation(self.made, self.true),
            "lag_frames": lag_frames([self.made], [self.true]),
            **_ratios([self]),
        }


def _ratios(judged: list[_Judged]) -> dict[str, float]:
    """Peak signal to noise ratios of all frames, of those in which somebody speaks, and of their
    pixels together, by what is compared."""
    figures = {}
    spoken = np.concatenate([one.spoken for one in judged])
    for name in judged[0].errors:
        if all(name in one.errors for one in judged):
            errors = np.concatenate([one.errors[name] for one in judged])
            figures[f"{name}_psnr_db"] = mean_psnr_db(errors)
            figures[f"{name}_psnr_spoken_db"] = mean_psnr_db(errors[spoken])
            figures[f"{name}_psnr_pooled_db"] = psnr_db(float(errors[spoken].mean()))
    return figures


def _judge_sequence(
    stage: Stage,
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
    done = perform(stage, pcm, told)
    count = min(len(done.pictures), len(truth))
    pictures, truth = done.pictures[:count], truth[:count]
    spoken = np.ones(count, bool)
    for first, end in entry.pauses:
        spoken[first:end] = False
    if not spoken.any():
        spoken[:] = True
    controls = material.controls(entry)
    forms = {SPEECH: pictures}
    if renderer is not None and controls is not None and len(controls) >= count:
        forms[TRUE_CONTROLS] = rendered(stage, renderer, controls[:count])
    boxes = {"mouth": material.mouth_region, "lips": material.lips_box}
    errors = {
        f"{name}_{form}": squared_errors(made, truth, box)
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
        spoken,
        errors,
        tiles,
    )


def judge_material(
    stage: Stage, material: Material, path: Path, out_dir: Path, progress: Progress | None
) -> Report:
    """Compare the mouths that an avatar makes with the true ones, in sequences that its network was
    not trained on (held out), and write pictures: ``opening.png``, and ``visemes.png`` where the
    material names frames that show certain mouth shapes (``visemes`` of a sequence). Returns the
    figures as a ``Report``.

    ``stage`` is the opened avatar, ``material`` has the sequences, at least one, ``path`` is the
    folder of the avatar's package. Pictures go into the folder ``out_dir``, which has to exist.
    ``progress(done, total)`` is called after each frame. Raises AvatarInvalid where the material or
    the package is broken, InvalidInput where a recording cannot be decoded or the truth has another
    size than the crop rectangle, and StorageFailed where a picture cannot be written.
    """
    entries = material.index.sequences
    speeches = [decode_audio(material.audio_path(entry)) for entry in entries]
    told = teller(progress, sum(frame_count(len(pcm)) for pcm in speeches))
    renderer = controls_renderer(read_package(path).model_path)
    judged = [_judge_sequence(stage, material, entry, renderer, told) for entry in entries]

    below = material.index.interior.closed_below_px
    seam = np.concatenate([one.seam for one in judged])
    nothing = np.zeros(0, np.float32)
    still = np.concatenate(
        [nothing, *(one.made[a:b] for one in judged for a, b in one.entry.pauses)]
    )
    ratios = _ratios(judged)
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
        Bar("lips closed in pauses", share_below(still, below), 0.95, "at least"),
        Bar("seam, mean", float(seam.mean()), 1.0, "at most", "levels"),
        Bar(
            "seam, worst pixel in a hundred",
            float(np.percentile(seam, 99)),
            6.0,
            "at most",
            "levels",
        ),
    ]
    # From speech: what people see. From the controls that the truth was made with: how well the
    # network paints, whatever was heard.
    for form in (TRUE_CONTROLS, SPEECH):
        # While somebody speaks: the rest that follows a sentence is easy to paint.
        if (ratio := ratios.get(f"mouth_{form}_psnr_spoken_db")) is not None:
            label = f"mouth region while speaking, from {form.replace('_', ' ')}"
            bars.insert(4, Bar(label, ratio, 32.0, "at least", "dB"))
    figures = {one.entry.name: one.figures() for one in judged}
    figures["all"] = {
        **ratios,
        "closures": sum(len(one.entry.closures) for one in judged),
        "pause_frames": len(still),
    }
    tracks = [_track(one) for one in judged]
    written = [write_picture(out_dir / "opening.png", opening_chart(tracks))]
    tiles = [tile for one in judged for tile in one.tiles]
    if tiles:
        written.append(write_picture(out_dir / "visemes.png", viseme_sheet(tiles)))
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


def _track(one: _Judged) -> Track:
    entry = one.entry
    title = f"{entry.name}: {entry.voice}" if entry.voice else entry.name
    return Track(
        title, one.pcm, SAMPLES_PER_FRAME, one.made, one.true, entry.pauses, entry.closures
    )
