"""Judging an avatar by any recording, without truth: the mouth's opening is compared with the
loudness."""

from pathlib import Path

import cv2
import numpy as np

from lipwire.audio import SAMPLES_PER_FRAME, frame_count
from lipwire.domain import CropRect, Float32Array, Progress, UInt8Array
from lipwire.evaluation.figures import correlation, lag_frames, share_below
from lipwire.evaluation.material import Index, Material
from lipwire.evaluation.opening import loudness, openings, pauses
from lipwire.evaluation.pictures import Track, opening_chart, write_picture
from lipwire.evaluation.report import Bar, Report
from lipwire.evaluation.stage import Stage, perform, teller


def judge_recording(
    stage: Stage,
    material: Material | None,
    audio: Path,
    pcm: Float32Array,
    out_dir: Path,
    progress: Progress | None,
) -> Report:
    """Have an avatar speak a recording, compare the mouth's opening with the loudness, and write
    two pictures, ``opening.png`` and ``mouths.png``. Returns the figures as a ``Report``.

    ``stage`` is the opened avatar; ``material`` says where the avatar's lips are; with None they
    are taken to be where the crop rectangle moves most. ``pcm`` is (samples,) float32 mono at 16
    kHz in [-1, 1], ``audio`` the path of the file that it was read from, whose name is shown.
    Pictures go into the folder ``out_dir``, which has to exist. ``progress(done, total)`` is called
    after each frame. Raises InvalidInput for another shape or type of ``pcm``, StorageFailed where
    a picture cannot be written.
    """
    done = perform(stage, pcm, teller(progress, frame_count(len(pcm))))
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
        bars.append(Bar("lips closed in pauses", share_below(still, below), 0.95, "at least"))
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
        write_picture(out_dir / "opening.png", opening_chart([track])),
        write_picture(out_dir / "mouths.png", _strip(done.pictures[np.sort(spread)])),
    )
    name = stage.performer.avatar.name
    return Report(name, len(made), tuple(bars), figures, written)


def _moving_box(pictures: UInt8Array) -> tuple[int, int, int, int]:
    """Where pictures (T, h, w, 3) of one mouth change most: x1, y1, x2, y2."""
    spread = pictures.astype(np.float32).mean(axis=3).std(axis=0)
    smooth = cv2.blur(spread, (15, 15))
    rows, columns = np.nonzero(smooth >= 0.5 * smooth.max())
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


def _strip(pictures: UInt8Array) -> UInt8Array:
    return np.concatenate([np.concatenate(list(half), axis=1) for half in np.split(pictures, 2)])
