"""What a shorter look-ahead costs: mouths made with guesses, compared with those made in full.

For each look-ahead and each way to guess: the correlation of how far the mouth is open, and the
PSNR of the mouth's region, both against the mouths of the whole recording.

    python benchmarks/lookahead.py [RECORDING]
"""

import sys
from pathlib import Path

import numpy as np

from lipwire.api import open_recording
from lipwire.audio import extract_windows, heard_in_full
from lipwire.audio.earlywindows import EarlyWindowStream
from lipwire.domain import CropRect
from lipwire.evaluation.material import Interior
from lipwire.evaluation.opening import openings
from lipwire.wiring.performing import open_performer

LOOKAHEADS_MS = (0, 80, 160, 240, 320, 400)
STEP = 320
LIPS = CropRect(100, 85, 230, 150)  # of the demo avatar's mouths


class HoldRow(EarlyWindowStream):
    """The last row is repeated."""

    def _guessed(self, count):
        last = self._entries[-1:] if self._rows else np.zeros((1, 512), np.float32)
        return np.repeat(last, count, axis=0)


class Silence(EarlyWindowStream):
    """Silence follows."""

    def _last_column(self):
        return np.full((1, 80), -4.0, np.float32)

    def _guessed(self, count):
        kept = self._columns
        first = self._first_column
        try:
            self._columns = np.concatenate([kept, self._last_column()])
            return super()._guessed(count)
        finally:
            self._columns, self._first_column = kept, first


WAYS = {"hold the last column": EarlyWindowStream, "hold the last row": HoldRow, "silence": Silence}


def main() -> None:
    audio = (
        Path(sys.argv[1]) if len(sys.argv) > 1 else Path("src/lipwire/assets/speech/sample.flac")
    )
    with open_recording(audio) as recording, open_performer("demo", parts=frozenset()) as performer:
        pcm = heard_in_full(recording)
        whole = extract_windows(pcm, performer.encoder)

        def mouths(windows):
            return np.concatenate(
                [
                    performer.engine.infer(
                        performer.model, performer.avatar.crops(start, len(part)), part
                    )
                    for start in range(0, len(windows), 8)
                    for part in [np.ascontiguousarray(windows[start : start + 8])]
                ]
            )

        truth = mouths(whole)
        open_truth = openings(truth, LIPS, Interior())
        for name, way in WAYS.items():
            for lookahead in LOOKAHEADS_MS:
                stream = way(performer.encoder, lookahead)
                parts = [stream.push(pcm[i : i + STEP]) for i in range(0, len(pcm), STEP)]
                windows = np.concatenate([*parts, stream.flush()])
                assert len(windows) == len(whole)
                made = mouths(windows)
                middle = np.s_[:, LIPS.y1 : LIPS.y2, LIPS.x1 : LIPS.x2]
                error = (made[middle].astype(float) - truth[middle]) ** 2
                psnr = 10 * np.log10(255**2 / error.mean())
                correlation = np.corrcoef(openings(made, LIPS, Interior()), open_truth)[0, 1]
                print(f"{name:22} {lookahead:4} ms  {correlation:.3f}  {psnr:5.1f} dB", flush=True)


if __name__ == "__main__":
    main()
