"""Which mouths to render: the ones that speech makes, and the ones at its edges.

``python -m lipwire.training.studio.choose --corpus DIR --count N --out mouths.npy`` writes (N, 6)
mouth controls in an order of which any beginning is already a fair sample. A third of them are
drawn as speech draws them; the rest are spread, each as far as can be from all chosen before, so
that rare shapes (a wide open mouth, teeth on lip) are learnt as well as common ones.
"""

import argparse
from pathlib import Path

import numpy as np

from lipwire.domain import FPS, Float32Array
from lipwire.training.coarticulation import frame_times, mouth_track
from lipwire.training.speech.corpus import load_split

UTTERANCES = 600
CANDIDATES = 12_000
SPREAD_OF_THREE = 2  # two spread for each drawn


def choose_mouths(controls: Float32Array, count: int, seed: int = 0) -> Float32Array:
    """``count`` rows (count, 6) out of ``controls`` (n, 6), mixed from the drawn and the spread."""
    rng = np.random.default_rng(seed)
    pool = controls[rng.permutation(len(controls))[:CANDIDATES]].astype(np.float64)
    distance = np.linalg.norm(pool, axis=1)  # the resting mouth, all zeros, is known anyway
    chosen = []
    for number in range(count):
        if number % (SPREAD_OF_THREE + 1) == 0:
            pick = int(rng.integers(len(pool)))
        else:
            pick = int(distance.argmax())
        row = pool[pick]
        chosen.append(row)
        distance = np.minimum(distance, np.linalg.norm(pool - row, axis=1))
    return np.asarray(np.stack(chosen), dtype=np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--count", type=int, default=1500)
    parser.add_argument("--out", type=Path, required=True)
    chosen = parser.parse_args()
    tracks = [
        mouth_track(u.phones, frame_times(int(u.duration_s * FPS)))
        for u in load_split(chosen.corpus, "train", UTTERANCES)
    ]
    np.save(chosen.out, choose_mouths(np.concatenate(tracks), chosen.count))


if __name__ == "__main__":
    main()
