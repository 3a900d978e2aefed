"""Renders of long speech in float32 and as `lipwire render` chooses, in turns.

    python benchmarks/render_precision.py [SECONDS [ROUNDS]]

The demo avatar says the sentence that comes with Lipwire again and again, for SECONDS (60). Printed
are medians of ROUNDS (3) and of the ratios of neighbours, in time and in processor time. The first
render of each kind counts for nothing: it makes the specialised network, or loads it.
"""

import statistics
import sys
import tempfile
from pathlib import Path
from typing import get_args

import numpy as np

from lipwire.api import Precision, RenderResult, open_avatar
from lipwire.audio import sample_speech
from lipwire.config import describe_machine
from lipwire.domain import SAMPLE_RATE_HZ, Float32Array


def render(speech: Float32Array, precision: Precision, out: Path) -> RenderResult:
    """Render ``speech``, (n,) float32 at 16 kHz, to the file ``out``."""
    with open_avatar("demo", outputs=("i420",), precision=precision) as avatar:
        return avatar.render(speech, out)


def main(seconds: float, rounds: int) -> None:
    """Measure ``rounds`` renders of each kind, of ``seconds`` of speech, and print what they
    took."""
    speech = np.resize(sample_speech(), int(seconds * SAMPLE_RATE_HZ))
    kinds: tuple[Precision, ...] = get_args(Precision)
    found: dict[Precision, list[RenderResult]] = {kind: [] for kind in kinds}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(rounds + 1):
            for kind in kinds if turn % 2 else reversed(kinds):
                result = render(speech, kind, Path(folder, "out.mp4"))
                if turn:
                    found[kind].append(result)
    for kind, results in found.items():
        elapsed_s = statistics.median(result.elapsed_s for result in results)
        cpu_s = statistics.median(result.cpu_s for result in results)
        fps = results[0].frames / elapsed_s
        print(
            f"{kind} ({results[0].precision}): {elapsed_s:.1f} s, {fps:.1f} fps, {cpu_s:.1f} s of"
            " processor time"
        )
    pairs = list(zip(found["auto"], found["float32"], strict=True))
    for what in ("elapsed_s", "cpu_s"):
        ratios = [getattr(exact, what) / getattr(auto, what) for auto, exact in pairs]
        print(f"{what}: {statistics.median(ratios):.2f} times as fast")
    machine = describe_machine()
    print(f"{machine.processor}, {machine.cores} cores, {machine.system}, Python {machine.python}")


if __name__ == "__main__":
    given = sys.argv[1:]
    main(float(given[0]) if given else 60.0, int(given[1]) if len(given) > 1 else 3)
