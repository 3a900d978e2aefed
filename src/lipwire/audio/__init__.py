"""From speech to what the network hears: decoding, mel spectrogram, audio encoder, windows.

The offline functions take a whole recording, the streams take it in pieces; both give the same
bits.
"""

from lipwire.audio.earlywindows import EarlyWindowStream
from lipwire.audio.encoder import AudioEncoder
from lipwire.audio.mel import HOP, MEL_BANDS, MelStream, mel_filterbank, mel_spectrogram
from lipwire.audio.pcm import SAMPLES_PER_FRAME, frame_count, from_int16, to_int16
from lipwire.audio.recordings.channels import heard_columns
from lipwire.audio.recordings.decode import decode_audio, heard_in_full
from lipwire.audio.recordings.passes import MAX_AUDIO_S
from lipwire.audio.recordings.recording import (
    FileRecording,
    Piece,
    Recording,
    redone_if_changed,
)
from lipwire.audio.recordings.samples import PcmRecording
from lipwire.audio.recordings.source import RecordingFile
from lipwire.audio.resample import MAX_CHANNELS, StreamResampler, check_rate, check_samples
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
from lipwire.audio.sample import sample_speech
from lipwire.audio.silence import silence_window
from lipwire.audio.voice import CHUNK_SAMPLES, VoiceDetector
from lipwire.audio.windows import LOOKAHEAD_MS, WindowStream, extract_rows, extract_windows

__all__ = [
    "CHUNK_SAMPLES",
    "HOP",
    "LOOKAHEAD_MS",
    "MAX_AUDIO_S",
    "MAX_CHANNELS",
    "MEL_BANDS",
    "MIN_SAMPLES",
    "ROWS_BEFORE",
    "ROW_COLUMNS",
    "SAMPLES_PER_FRAME",
    "WINDOW_ROWS",
    "AudioEncoder",
    "EarlyWindowStream",
    "FileRecording",
    "MelStream",
    "PcmRecording",
    "Piece",
    "Recording",
    "RecordingFile",
    "StreamResampler",
    "VoiceDetector",
    "WindowStream",
    "check_rate",
    "check_samples",
    "decode_audio",
    "extract_rows",
    "extract_windows",
    "frame_count",
    "from_int16",
    "heard_columns",
    "heard_in_full",
    "mel_filterbank",
    "mel_spectrogram",
    "redone_if_changed",
    "row_columns",
    "row_count",
    "rows_from_mel",
    "sample_speech",
    "silence_window",
    "to_int16",
    "windows_from_rows",
]
