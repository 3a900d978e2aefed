"""The sentence that comes with Lipwire."""

from importlib.resources import as_file, files

from lipwire.audio.recordings.decode import decode_audio
from lipwire.domain import Float32Array


def sample_speech() -> Float32Array:
    """Return a sentence that comes with Lipwire, spoken by a synthetic voice: (n,) float32 mono at
    16 kHz in [-1, 1]. It is decoded at each call."""
    with as_file(files("lipwire") / "assets" / "speech" / "sample.flac") as path:
        return decode_audio(path)
