"""``aud_ave.npy``: what the family's audio encoder made of the recording, compared with what
Lipwire makes of it.

The file has a row of 512 numbers for each 25th of a second, with the first and the last one once
more (https://github.com/ZiqiaoPeng/SyncTalk_2D, ``data_utils/ave/test_w2l_audio.py``).
"""

from pathlib import Path
from typing import Final

import numpy as np
from numpy.lib.format import open_memmap

from lipwire.audio import AudioEncoder, decode_audio, extract_rows
from lipwire.domain import FEATURE_SIZE, Float32Array, LipwireError

RECORDINGS: Final = ("aud.wav", "audio.wav", "speech.wav")
"""Names of the recording beside the features."""
_SAME: Final = 1e-3
"""Largest difference of what is called equal: other versions of the libraries round otherwise."""
_MAX_BYTES: Final = 1 << 31


def features_note(features: Path, recording: Path | None, encoder: Path | None) -> str:
    """Return a line for a person about ``features``, a file of NumPy (.npy) with a row of 512
    numbers for each 25th of a second: how many rows it has, and how much they differ from those
    that the audio encoder in the ONNX file ``encoder`` makes of ``recording``. Where ``recording``
    or ``encoder`` is None, or a file cannot be read, the rows are not compared and the line says
    why; nothing is raised."""
    name = features.name
    try:
        if features.stat().st_size > _MAX_BYTES:
            return f"{name} has more than {_MAX_BYTES} bytes and was not compared"
        stored = open_memmap(features, mode="r")  # np.load takes archives, too
    except Exception as error:  # numpy reads the header as Python does, and fails in many ways
        return f"{name} cannot be read and was not compared: {type(error).__name__}"
    if stored.ndim != 2 or stored.shape[1] != FEATURE_SIZE or stored.dtype.kind != "f":
        return (
            f"{name} is {'x'.join(map(str, stored.shape))} {stored.dtype}; 'ave' features have"
            f" {FEATURE_SIZE} numbers a row"
        )
    if recording is None or encoder is None:
        lack = "the recording" if recording is None else "the audio encoder"
        return f"{name} has {len(stored)} rows; they were not compared, as {lack} is not there"
    try:
        rows = extract_rows(decode_audio(recording), AudioEncoder.open(encoder))
    except LipwireError as error:
        return f"{name} was not compared: {error}"
    made = np.concatenate([rows[:1], rows, rows[-1:]])
    return _compared(name, np.asarray(stored, np.float32), made, recording.name)


def _compared(name: str, stored: Float32Array, made: Float32Array, recording: str) -> str:
    if len(stored) != len(made):
        return (
            f"{name} has {len(stored)} rows, and {recording} gives {len(made)}: they are not of one"
            " recording"
        )
    worst = float(np.abs(stored - made).max())
    if worst <= _SAME:
        return (
            f"{name} equals what the audio encoder makes of {recording} ({len(made)} rows, largest"
            f" difference {worst:.1g})"
        )
    return (
        f"{name} differs from what the audio encoder makes of {recording} by up to {worst:.2g}: the"
        " network was trained with another audio encoder, or another recording"
    )
