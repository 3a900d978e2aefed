"""Recordings as 16 kHz mono in memory."""

import numpy as np

from lipwire.audio.recordings.recording import FileRecording, Recording, redone_if_changed
from lipwire.audio.recordings.source import RecordingFile
from lipwire.domain import Float32Array


def decode_audio(
    recording: RecordingFile, *, track: int | None = None, allow_damaged: bool = False
) -> Float32Array:
    """Return a whole recording as the network hears it: (samples,) float32, mono, 16 kHz, in [-1,
    1].

    ``recording`` is a file's path, its bytes, or a file opened as binary. ``track`` is the audio
    track, counted from 1 (None: the default one). With ``allow_damaged``, silence takes the place
    of what is missing or damaged. An hour takes 0.23 GB of memory.

    Raises InvalidInput where there is no such file or track, it is not audio, has no samples or
    more than four hours of them, its samples are not finite or absurdly loud, or it is damaged,
    unless ``allow_damaged``; StorageFailed where a pipe cannot be copied to a temporary file. Use
    ``FileRecording`` where warnings are wanted too.
    """
    with FileRecording(recording, track=track, allow_damaged=allow_damaged) as opened:
        return heard_in_full(opened)


def heard_in_full(recording: Recording) -> Float32Array:
    """Return the whole of ``recording`` as the network hears it: (samples,) float32, mono, 16 kHz,
    in [-1, 1]. The recording stays open.

    The recording is read to its end. Raises InvalidInput where its sound is damaged anywhere and
    damage is not allowed, where it is longer than is allowed, and where it is closed.
    """

    def gathered() -> Float32Array:
        pcm = bytearray()  # grows in place, by an eighth at a time
        for piece in recording.heard():
            pcm += piece.tobytes()
        return np.frombuffer(pcm, np.float32)

    return redone_if_changed(recording, gathered)
