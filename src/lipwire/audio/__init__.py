"""Speech to what the network hears: decoding, mel spectrogram, audio encoder, windows.

The offline functions take a whole recording, the streams take it in pieces; both give the same
bits.
"""

from lipwire.audio.decode import MAX_AUDIO_S, decode_audio
from lipwire.audio.encoder import AudioEncoder
from lipwire.audio.mel import HOP, MEL_BANDS, MelStream, mel_filterbank, mel_spectrogram
from lipwire.audio.pcm import SAMPLES_PER_FRAME, frame_count
from lipwire.audio.resample import StreamResampler
from lipwire.audio.rows import (
    MIN_SAMPLES,
    ROW_COLUMNS,
    ROWS_BEFORE,
    WINDOW_ROWS,
    row_columns,
    row_count,
    rows_from_mel,
    windows_from_rows,
)
from lipwire.audio.windows import LOOKAHEAD_MS, WindowStream, extract_rows, extract_windows

__all__ = [
    "HOP",
    "LOOKAHEAD_MS",
    "MAX_AUDIO_S",
    "MEL_BANDS",
    "MIN_SAMPLES",
    "ROWS_BEFORE",
    "ROW_COLUMNS",
    "SAMPLES_PER_FRAME",
    "WINDOW_ROWS",
    "AudioEncoder",
    "MelStream",
    "StreamResampler",
    "WindowStream",
    "decode_audio",
    "extract_rows",
    "extract_windows",
    "frame_count",
    "mel_filterbank",
    "mel_spectrogram",
    "row_columns",
    "row_count",
    "rows_from_mel",
    "windows_from_rows",
]
