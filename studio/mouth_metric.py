"""How far two mouths lie apart in a picture, from how far apart their controls are.

    python -m studio.mouth_metric CORPUS [--pairs 400]

The demo avatar's network paints pairs of mouths: one as the corpus's truth has it, one beside it by
as much as a reading of speech errs. A sum of squares of their differences is fitted to the mean
squared error of the pictures, each pair counting by its own error. `train_audio` weighs with it.
"""

import argparse
from pathlib import Path

import numpy as np

from lipwire.avatars import Avatar, find_avatar, read_package
from lipwire.domain import FPS, SAMPLE_RATE_HZ, InvalidInput
from lipwire.evaluation.renderer import controls_renderer
from lipwire.training.coarticulation import frame_times, mouth_track
from lipwire.training.stages import run_stage
from lipwire.training.visemes import CONTROLS, aperture
from studio.speech import load_split
from studio.train_audio import PICTURE_FLOOR

SPREAD = (0.07, 0.1, 0.14, 0.15, 0.12, 0.15)
"""Standard deviation of a reading's error, by control."""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m studio.mouth_metric", description=__doc__)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--pairs", type=int, default=400)
    chosen = parser.parse_args(arguments)
    return run_stage(lambda: measure(chosen.corpus, chosen.pairs))


def measure(corpus: Path, pairs: int) -> None:
    """Print the weights. Raises `NotFound` without a corpus, `InvalidInput` for a network that does
    not name its controls."""
    path = find_avatar("demo")
    renderer = controls_renderer(read_package(path).model_path)
    if renderer is None:
        raise InvalidInput("the demo avatar's network does not name its controls")
    rng = np.random.default_rng(0)
    tracks = np.concatenate(
        [
            mouth_track(said.phones, frame_times(len(said.pcm) * FPS // SAMPLE_RATE_HZ))
            for said in load_split(corpus, "train", 150)
        ]
    )
    true = tracks[rng.choice(len(tracks), pairs, replace=False)]
    size = rng.choice((0.3, 1.0), (pairs, 1))
    made = np.clip(true + rng.normal(0, SPREAD, true.shape) * size, 0, 1).astype(np.float32)
    with Avatar.open(path) as avatar:
        crop = avatar.crop(0)
    painted = [
        np.stack([renderer(crop, row)[16:304, 16:304] for row in rows]).astype(np.float32)
        for rows in (true, made)
    ]
    error = np.square(painted[0] - painted[1]).mean(axis=(1, 2, 3))
    apart = np.column_stack([np.square(made - true), np.square(aperture(made) - aperture(true))])
    weight = 1 / (error + PICTURE_FLOOR)
    fitted, *_ = np.linalg.lstsq(apart * weight[:, None], error * weight)
    for name, value in zip((*CONTROLS, "gap"), fitted, strict=True):
        print(f"{name:7} {value:8.0f}")
    likeness = np.corrcoef(np.log(apart @ fitted + PICTURE_FLOOR), np.log(error + PICTURE_FLOOR))[
        0, 1
    ]
    print(f"correlation of the logarithms {likeness:.3f}, {pairs} pairs")


if __name__ == "__main__":
    raise SystemExit(main())
