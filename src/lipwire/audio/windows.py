"""Audio windows of a whole recording, and of audio that is still arriving."""

from typing import Final

import numpy as np

from lipwire.audio.encoder import AudioEncoder
from lipwire.audio.mel import MEL_BANDS, MelStream, mel_spectrogram
from lipwire.audio.pcm import check_pcm, frame_count
from lipwire.audio.rows import (
    MIN_SAMPLES,
    ROW_COLUMNS,
    ROWS_BEFORE,
    WINDOW_ROWS,
    row_columns,
    row_count,
    rows_from_mel,
    windows_from_rows,
    windows_of,
)
from lipwire.domain import FEATURE_SIZE, Float32Array, InvalidInput

LOOKAHEAD_MS: Final = 452.5
"""A frame's window is determined at most this long after the frame begins: row i + 6 begins 19.2
columns after frame i and is 16 columns long, and the last column's segment reaches 400 samples past
its centre. That is 412.5 ms after the frame ends; what follows can change it no more."""

_ROWS_AT_ONCE: Final = 64


def extract_rows(pcm: Float32Array, encoder: AudioEncoder) -> Float32Array:
    """Return the rows (512 numbers each) that ``encoder`` makes of a whole recording, about one for
    each frame of video: (rows, 512) float32.

    ``pcm`` is (samples,) float32 mono at 16 kHz; a recording of less than 187.5 ms is completed
    with silence. Raises InvalidInput for another shape or type and for NaN or infinite samples.
    """
    mel = mel_spectrogram(_at_least_one_row(check_pcm(pcm)))
    count = row_count(len(mel))
    rows = np.empty((count, FEATURE_SIZE), np.float32)
    for start in range(0, count, _ROWS_AT_ONCE):
        stop = min(start + _ROWS_AT_ONCE, count)
        rows[start:stop] = encoder.encode(rows_from_mel(mel, start, stop)[:, None])
    return rows


def extract_windows(pcm: Float32Array, encoder: AudioEncoder) -> Float32Array:
    """Return the audio windows of a whole recording, what the network takes of the sound around
    each frame of video: (``frame_count(samples)``, 32, 16, 16) float32, read-only.

    ``pcm`` is (samples,) float32 mono at 16 kHz; ``encoder`` is the avatar's. Raises InvalidInput
    for another shape or type and for NaN or infinite samples.
    """
    return windows_from_rows(extract_rows(pcm, encoder), frame_count(len(pcm)))


def _at_least_one_row(pcm: Float32Array) -> Float32Array:
    missing = MIN_SAMPLES - len(pcm)
    return np.concatenate([pcm, np.zeros(missing, np.float32)]) if missing > 0 else pcm


class WindowStream:
    """Audio windows, what the network takes of the sound around each frame of video, of speech that
    arrives in pieces; all together they are those of ``extract_windows``, bit for bit.

    The pieces may be of any size, one sample or everything. Frame i's window is returned by the
    push that brings the last sample it depends on: at the latest when 640 * i + 7240 samples are
    in, 452.5 ms (LOOKAHEAD_MS) after the frame begins. ``flush`` ends the audio and returns the
    remaining windows. Between calls less than 60 KB are held, however long the stream is.

    The encoder may be shared by many streams; one stream is not for several threads at once.

        stream = WindowStream(encoder)
        for piece in pieces:
            show(stream.push(piece))
        show(stream.flush())
    """

    __slots__ = (
        "_columns",
        "_encoder",
        "_entries",
        "_first_column",
        "_flushed",
        "_frames",
        "_mel",
        "_rows",
        "_samples",
    )

    _columns: Float32Array  # (k, 80): the mel columns that rows to come may need
    _first_column: int  # index of the first of them
    _entries: Float32Array  # (<= 15, 512): what the next window shares with the last one
    _rows: int  # rows made so far
    _frames: int  # windows given so far
    _samples: int  # audio pushed so far
    _flushed: bool

    def __init__(self, encoder: AudioEncoder) -> None:
        self._encoder = encoder
        self._mel = MelStream()
        self.reset()

    def reset(self) -> None:
        """Forget all audio, as after an interruption; the audio of the next ``push`` begins at
        frame 0 again."""
        self._mel.reset()
        self._columns = np.empty((0, MEL_BANDS), np.float32)
        self._first_column = 0
        self._entries = np.zeros((ROWS_BEFORE, FEATURE_SIZE), np.float32)
        self._rows = 0
        self._frames = 0
        self._samples = 0
        self._flushed = False

    def push(self, pcm: Float32Array) -> Float32Array:
        """Add audio and return the audio windows that are complete now, (k, 32, 16, 16) float32,
        read-only, those of the frames after the last one returned; k is often 0.

        ``pcm`` is (n,) float32 mono at 16 kHz in [-1, 1]. Raises InvalidInput for another shape or
        type, for NaN or infinite samples, and after ``flush``; the stream is then as it was before
        the call.
        """
        if self._flushed:
            raise InvalidInput("audio pushed after the end of the stream; reset() begins a new one")
        columns = self._mel.push(pcm)
        self._samples += len(pcm)
        if not len(columns):
            return windows_of(self._entries[:0])
        self._columns = np.concatenate([self._columns, columns])
        return self._advance(None)

    def flush(self) -> Float32Array:
        """End the audio and return the audio windows of the last frames, (k, 32, 16, 16) float32,
        read-only; k is at least 1. Afterwards only ``reset`` may be called.

        The stream has then returned ``frame_count(samples)`` windows; without any audio that is one
        window of silence. Raises InvalidInput where ``flush`` was called before.
        """
        if self._flushed:
            raise InvalidInput("the stream was flushed already; reset() begins a new one")
        self._flushed = True
        silence = np.zeros(max(0, MIN_SAMPLES - self._samples), np.float32)
        self._columns = np.concatenate([self._columns, self._mel.push(silence), self._mel.flush()])
        return self._advance(self._first_column + len(self._columns))

    def _advance(self, end: int | None) -> Float32Array:
        """Encode the rows that are determined and give the windows that they complete.

        ``end`` is the number of columns of the whole recording, None while it goes on.
        """
        entries = [self._entries]
        if len(rows := self._encode(end)):
            if self._rows == 0:
                entries.append(rows[:1])
            entries.append(rows)
            self._rows += len(rows)
        if end is not None:
            entries.append(entries[-1][-1:])
        joined = np.concatenate(entries)
        if end is not None:
            joined = self._exactly(joined, frame_count(self._samples) - self._frames)
        windows = windows_of(joined)
        self._frames += len(windows)
        self._entries = joined[len(windows) :].copy()
        return windows

    def _encode(self, end: int | None) -> Float32Array:
        """(k, 512): the rows from ``_rows`` on whose columns are there; drops columns done with."""
        there = self._first_column + len(self._columns)
        stop = self._rows
        if end is not None:
            stop = row_count(end)
        else:
            while row_columns(stop).stop <= there:
                stop += 1
        rows = np.empty((stop - self._rows, FEATURE_SIZE), np.float32)
        for start in range(self._rows, stop, _ROWS_AT_ONCE):
            part = range(start, min(start + _ROWS_AT_ONCE, stop))
            mels = np.stack([self._row_mel(row_columns(index, end)) for index in part])
            rows[start - self._rows : part.stop - self._rows] = self._encoder.encode(mels[:, None])
        # The last row of the recording may reach back to 16 columns before its end.
        keep = max(self._first_column, min(row_columns(stop).start, there - ROW_COLUMNS))
        self._columns = self._columns[keep - self._first_column :].copy()
        self._first_column = keep
        return rows

    def _row_mel(self, columns: slice) -> Float32Array:
        """(80, 16): these columns of the recording."""
        first = self._first_column
        return self._columns[columns.start - first : columns.stop - first].T

    @staticmethod
    def _exactly(entries: Float32Array, frames: int) -> Float32Array:
        """``entries`` cut or continued with zeros to what ``frames`` windows take."""
        wanted = frames + WINDOW_ROWS - 1
        missing = np.zeros((max(0, wanted - len(entries)), FEATURE_SIZE), np.float32)
        return np.concatenate([entries[:wanted], missing])
