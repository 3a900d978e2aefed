"""Recordings as 16 kHz mono in memory."""

import numpy as np

from lipwire.audio.recordings.recording import FileRecording, Recording, redone_if_changed
from lipwire.audio.recordings.source import RecordingFile
from lipwire.domain import Float32Array


def decode_audio(
    recording: RecordingFile, *, track: int | None = None, allow_damaged: bool = False
) -> Float32Array:
    """Return what the network hears of a whole recording: (samples,) float32, mono, 16 kHz, in [-1,
    1].

    ``recording`` is a file's path, its bytes, or a file opened as binary. ``track`` is the audio
    track, counted from 1 (None: the default one). With ``allow_damaged`` what is missing or damaged
    is silence. An hour takes 0.23 GB.

    Raises InvalidInput where there is no such file or track, it is not audio, has no samples or
    more than four hours of them, its samples are not finite or absurdly loud, or it is damaged,
    unless ``allow_damaged``; StorageFailed where a pipe cannot be copied to a temporary file. Use
    ``FileRecording`` where warnings are wanted too.
    """
    with FileRecording(recording, track=track, allow_damaged=allow_damaged) as opened:
        return heard_in_full(opened)


def heard_in_full(recording: Recording) -> Float32Array:
    """Return all that the network hears of ``recording``: (samples,) float32, mono, 16 kHz, in [-1,
    1]. The recording stays open.

    It is gone through to its end. Raises InvalidInput where its sound is damaged anywhere and that
    is not allowed, where there is too much of it, and where it is closed.
    """

    def gathered() -> Float32Array:
        pcm = bytearray()  # grows in place, by an eighth at a time
        for piece in recording.heard():
            pcm += piece.tobytes()
        return np.frombuffer(pcm, np.float32)

    return redone_if_changed(recording, gathered)
