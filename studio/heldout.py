"""Speech that training never heard, with the mouth it needs: what the demo avatar is judged on.

``python -m studio.heldout --out DIR`` writes for each sequence ``DIR/NAME/audio.wav``
(16 kHz mono), ``controls.npy`` (frames, 6) and ``phones.json`` (symbol, start and end in seconds).
The voices are the held-out ones of the corpus and the sentences are written here alone.
``--sample FILE.flac`` also speaks the sample that ``make demo`` renders.
"""

import argparse
import io
import wave
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import av

from lipwire.domain import FPS, SAMPLE_RATE_HZ
from lipwire.domain.newfiles import write_file
from lipwire.training.coarticulation import frame_times, mouth_track
from lipwire.training.stages import run_stage
from studio.speech import flite
from studio.speech.espeak import Espeak, Manner
from studio.speech.utterance import Utterance
from studio.storage import make_folder, write_json, write_npy


@dataclass(frozen=True, slots=True)
class Sequence:
    """One text and who speaks it."""

    name: str
    engine: str
    voice: str
    text: str

    def speak(self) -> Utterance:
        """The same samples each time. Raises `DependencyMissing`."""
        if self.engine == "flite":
            return flite.speak(self.text, self.voice, stretch=1.08)
        return Espeak.open().speak(self.text, self.voice, Manner(rate_wpm=155, pitch=45, range=50))


SEQUENCES: Final = (
    Sequence(
        "rms", "flite", "rms",
        "Above the puffin cove, five brave fishermen mapped a wavy blue reef. We choose to laugh.",
    ),
    Sequence(
        "f4", "espeak", "en-us+f4",
        "My family won them all, over there, by the pool of perfume.",
    ),
)  # fmt: skip
"""Rich in lips that close (p, b, m), teeth on lips (f, v), and vowels that round and spread."""

SAMPLE: Final = Sequence(
    "sample", "flite", "slt",
    "Hello! I am the demo avatar of Lipwire. Nobody filmed me: my face is made of mathematics, "
    "and my lips follow whatever you say. Give me a recording of your own, and I will speak it.",
)  # fmt: skip


def write_sequence(folder: Path, utterance: Utterance) -> int:
    """Write one sequence and return its number of frames, which cover all of the sound.

    Raises `StorageFailed`.
    """
    make_folder(folder)
    frames = -(-len(utterance.pcm) * FPS // SAMPLE_RATE_HZ)
    write_file(folder / "audio.wav", _wav(utterance))
    write_npy(folder / "controls.npy", mouth_track(utterance.phones, frame_times(frames)))
    write_json(
        folder / "phones.json",
        [[p.symbol, round(p.start_s, 4), round(p.end_s, 4)] for p in utterance.phones],
    )
    return frames


def write_flac(path: Path, utterance: Utterance) -> None:
    """The speech as FLAC, 16 kHz mono. Raises `StorageFailed`."""
    packed = io.BytesIO()
    with av.open(packed, "w", format="flac") as container:
        stream = container.add_stream("flac", rate=SAMPLE_RATE_HZ, layout="mono")
        frame = av.AudioFrame.from_ndarray(utterance.pcm[None].copy(), format="s16", layout="mono")
        frame.sample_rate = SAMPLE_RATE_HZ
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)
    make_folder(path.parent)
    write_file(path, packed.getvalue())


def _wav(utterance: Utterance) -> bytes:
    packed = io.BytesIO()
    with wave.open(packed, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(SAMPLE_RATE_HZ)
        sound.writeframes(utterance.pcm.astype("<i2").tobytes())
    return packed.getvalue()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sample", type=Path)
    chosen = parser.parse_args(arguments)

    def speak() -> None:
        for sequence in SEQUENCES:
            frames = write_sequence(chosen.out / sequence.name, sequence.speak())
            print(f"{sequence.name}: {frames} frames")
        if chosen.sample:
            write_flac(chosen.sample, SAMPLE.speak())

    return run_stage(speak)


if __name__ == "__main__":
    raise SystemExit(main())
