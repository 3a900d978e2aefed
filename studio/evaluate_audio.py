"""How well the mouth follows speech that training never heard, in figures and pictures."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np

from lipwire.audio import SAMPLES_PER_FRAME, AudioEncoder, decode_audio, extract_windows
from lipwire.domain import FPS, Float32Array
from lipwire.evaluation.pictures import write_picture
from lipwire.training.audio_model import ENCODER, HEAD, load_head
from lipwire.training.coarticulation import closures, frame_times
from lipwire.training.stages import run_stage
from lipwire.training.visemes import CONTROLS, SILENCE, aperture
from studio.speech.plot import draw_track, stack
from studio.speech.windows import SpokenWindows, corpus_windows, read_controls

CLOSED: Final = 0.06
"""An aperture below this looks closed."""

SETTLED_S: Final = 0.12
"""Silence counts from this long after a sound until this long before the next."""

_FAR = 8  # frames either way in which a lag is looked for


@dataclass(frozen=True, slots=True)
class Figures:
    """Of a set of recordings; bars in brackets."""

    frames: int
    aperture_correlation: float  # with the truth [>= 0.85]
    lag_frames: int  # where the correlation peaks; positive: lips late [0]
    energy_lag_frames: float  # mouth behind the loudness, to a tenth of a frame
    r2: dict[str, float]  # explained variance of each control
    closures: int
    closures_closed: float  # share in which the aperture gets below CLOSED [> 0.95]
    closures_true: float  # the same for the truth
    silence_aperture: float  # mean in settled silence [< 0.03]
    jitter: float  # mean |second difference| of the aperture, over the truth's [about 1]


def measure(recordings: Sequence[SpokenWindows]) -> Figures:
    """Figures over all recordings together."""
    true = np.concatenate([r.true for r in recordings])
    made = np.concatenate([r.predicted for r in recordings])
    residual = ((made - true) ** 2).sum(axis=0)
    spread = ((true - true.mean(axis=0)) ** 2).sum(axis=0)
    r2 = 1 - residual / np.maximum(spread, 1e-9)
    seals = [(r, seal) for r in recordings for seal in closures(r.phones)]
    still = np.concatenate([aperture(r.predicted)[_settled(r)] for r in recordings])
    energies = [loudness(r.pcm, len(r.true)) for r in recordings]
    gaps = [aperture(r.predicted) for r in recordings]
    true_gaps = [aperture(r.true) for r in recordings]
    curve = lag_curve(gaps, true_gaps)
    return Figures(
        frames=len(true),
        aperture_correlation=float(np.corrcoef(aperture(made), aperture(true))[0, 1]),
        lag_frames=int(np.argmax(curve)) - _FAR,
        energy_lag_frames=peak_of(lag_curve(gaps, energies)),
        r2={name: round(float(value), 3) for name, value in zip(CONTROLS, r2, strict=True)},
        closures=len(seals),
        closures_closed=_share([_least(r.predicted, seal) < CLOSED for r, seal in seals]),
        closures_true=_share([_least(r.true, seal) < CLOSED for r, seal in seals]),
        silence_aperture=float(still.mean()) if len(still) else 0.0,
        jitter=_roughness(gaps) / max(_roughness(true_gaps), 1e-9),
    )


def loudness(pcm: Float32Array, frames: int) -> Float32Array:
    """Decibels of each video frame over a floor 45 below the loudest, (frames,) >= 0."""
    padded = np.zeros(frames * SAMPLES_PER_FRAME, np.float32)
    padded[: len(pcm)] = pcm[: len(padded)]
    power = np.mean(padded.reshape(frames, -1).astype(np.float64) ** 2, axis=1)
    level_db = 10 * np.log10(np.maximum(power, 1e-12))
    return np.maximum(level_db - level_db.max() + 45, 0).astype(np.float32)


def lag_curve(late: Sequence[Float32Array], early: Sequence[Float32Array]) -> Float32Array:
    """Correlation of pairs of curves at lags -8..8 frames; a peak above the middle: ``late`` is."""
    curve = []
    for lag in range(-_FAR, _FAR + 1):
        a = [x[max(0, lag) : len(x) + min(0, lag)] for x in late]
        b = [x[max(0, -lag) : len(x) - max(0, lag)] for x in early]
        curve.append(np.corrcoef(np.concatenate(a), np.concatenate(b))[0, 1])
    return np.array(curve, np.float32)


def peak_of(curve: Float32Array) -> float:
    """Lag of the highest point, between frames by a parabola through its neighbours."""
    k = int(np.clip(np.argmax(curve), 1, len(curve) - 2))
    left, middle, right = (float(v) for v in curve[k - 1 : k + 2])
    bend = left - 2 * middle + right
    return round(k - _FAR + (0.5 * (left - right) / bend if bend else 0.0), 2)


def _share(answers: Sequence[bool]) -> float:
    return float(np.mean(answers)) if answers else 1.0


def _least(controls: Float32Array, interval: tuple[float, float]) -> float:
    """Smallest aperture of the frames shown during an interval (or of the nearest one)."""
    times = frame_times(len(controls))
    inside = (times >= interval[0]) & (times <= interval[1])
    if not inside.any():
        inside[np.argmin(np.abs(times - (interval[0] + interval[1]) / 2))] = True
    return float(aperture(controls)[inside].min())


def _settled(recording: SpokenWindows) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Which frames show a mouth long at rest."""
    times = frame_times(len(recording.true))
    quiet = np.ones(len(times), bool)
    for phone in recording.phones:
        if phone.symbol != SILENCE:
            quiet &= (times < phone.start_s - SETTLED_S) | (times > phone.end_s + SETTLED_S)
    return quiet


def _roughness(curves: Sequence[Float32Array]) -> float:
    return float(np.mean(np.abs(np.concatenate([np.diff(c, 2) for c in curves]))))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m studio.evaluate_audio", description=__doc__)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("folder", type=Path, help="of train_audio; figures and pictures go there")
    parser.add_argument("--limit", type=int, help="held-out utterances (all)")
    parser.add_argument("--recording", type=Path, help="a person's speech, for a picture")
    options = parser.parse_args(arguments)
    return run_stage(
        lambda: _evaluate(options.corpus, options.folder, options.limit, options.recording)
    )


def _evaluate(corpus: Path, folder: Path, limit: int | None, recording: Path | None) -> None:
    encoder, head = folder / ENCODER, folder / HEAD
    heard = list(corpus_windows(corpus, "held_out", encoder, head, limit))
    groups = {"all": heard}
    for kind in ("flite", "espeak"):
        if some := [r for r in heard if r.voice.startswith(kind)]:
            groups[kind] = some
    report: dict[str, object] = {name: asdict(measure(some)) for name, some in groups.items()}
    pictures = [draw_track(r.pcm, r.phones, r.true, r.predicted) for r in heard[:6]]
    write_picture(folder / "held_out.png", stack(pictures))
    if recording is not None:
        pcm = decode_audio(recording)
        made = read_controls(load_head(head), extract_windows(pcm, AudioEncoder.open(encoder)))
        level = loudness(pcm, len(made))
        gap = aperture(made)
        quiet = np.convolve(level > 20, np.ones(7), "same") == 0
        report["recording"] = {
            "energy_lag_frames": peak_of(lag_curve([gap], [level])),
            "energy_correlation": round(float(lag_curve([gap], [level]).max()), 3),
            "quiet_frames": int(quiet.sum()),
            "quiet_aperture": float(gap[quiet].mean()) if quiet.any() else None,
            "loud_aperture": float(gap[level > 30].mean()),
        }
        second = FPS * SAMPLES_PER_FRAME
        rows = [
            draw_track(pcm[s * second : (s + 6) * second], (), None, made[s * FPS : (s + 6) * FPS])
            for s in range(0, int(np.ceil(len(pcm) / second)), 6)
        ]
        write_picture(folder / "recording.png", stack(rows))
    text = json.dumps(report, indent=1)
    (folder / "figures.json").write_text(text)
    print(text)


if __name__ == "__main__":
    raise SystemExit(main())
