"""Which mouths to render: the ones that speech makes, and the ones at its edges.

``python -m studio.choose --corpus DIR --count N --out mouths.npy`` writes (N, 6)
mouth controls in an order of which any beginning is already a fair sample. A third of them are
drawn as speech draws them; the rest are spread, each as far as can be from all chosen before, so
that rare shapes (a wide open mouth, teeth on lip) are learnt as well as common ones.
"""

import argparse
from pathlib import Path
from typing import Final

import numpy as np

from lipwire.domain import FPS, Float32Array, InvalidInput
from lipwire.training.coarticulation import frame_times, mouth_track
from lipwire.training.stages import run_stage
from studio.speech.corpus import load_split
from studio.storage import write_npy

UTTERANCES: Final = 600
"""As many training utterances are read."""
CANDIDATES: Final = 12_000
"""Of all their frames, as many are looked at, drawn at random."""
SPREAD_PER_DRAWN: Final = 2


def choose_mouths(controls: Float32Array, count: int, seed: int = 0) -> Float32Array:
    """``count`` rows (count, 6) out of ``controls`` (n, 6), mixed from the drawn and the spread.

    The same arguments give the same rows, and a smaller ``count`` gives their beginning. Raises
    `InvalidInput` for fewer than 1 row, or more than there are candidates.
    """
    rng = np.random.default_rng(seed)
    pool = controls[rng.permutation(len(controls))[:CANDIDATES]].astype(np.float64)
    if not 1 <= count <= len(pool):
        raise InvalidInput(f"{count} mouths are asked for; 1 to {len(pool)} can be chosen")
    distance = np.linalg.norm(pool, axis=1)  # the resting mouth, all zeros, is known anyway
    chosen = []
    for number in range(count):
        if number % (SPREAD_PER_DRAWN + 1) == 0:
            pick = int(rng.integers(len(pool)))
        else:
            pick = int(distance.argmax())
        row = pool[pick]
        chosen.append(row)
        distance = np.minimum(distance, np.linalg.norm(pool - row, axis=1))
    return np.asarray(np.stack(chosen), dtype=np.float32)


def corpus_mouths(corpus: Path) -> Float32Array:
    """The mouth at every frame of the training utterances, (n, 6). Raises `NotFound`."""
    tracks = [
        mouth_track(u.phones, frame_times(int(u.duration_s * FPS)))
        for u in load_split(corpus, "train", UTTERANCES)
    ]
    return np.concatenate(tracks)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--count", type=int, default=1500)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    return run_stage(
        lambda: write_npy(options.out, choose_mouths(corpus_mouths(options.corpus), options.count))
    )


if __name__ == "__main__":
    raise SystemExit(main())
