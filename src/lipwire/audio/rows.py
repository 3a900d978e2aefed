"""From mel columns to the network's audio windows: which columns make a row, which rows a window.

A *row* is 16 mel columns (200 ms) turned into 512 numbers by the audio encoder; there is about one
for each video frame. A *window* is 16 rows around a frame, reshaped to (32, 16, 16). The arithmetic
is that of SyncTalk_2D (https://github.com/ZiqiaoPeng/SyncTalk_2D), whose trained weights expect it
to the column:

- row i starts at mel column int(80 * i / 25), the last one as far back as it must to stay inside;
- the list of rows gets its first and its last row once more;
- frame i sees entries i - 8 to i + 7 of that longer list, with zeros outside it.

So frame i sees rows i - 9 to i + 6. Training and inference share these functions.
"""

from typing import Final

import numpy as np

from lipwire.audio.mel import COLUMNS_PER_SECOND, HOP, MEL_BANDS
from lipwire.domain import AUDIO_WINDOW_SHAPE, FEATURE_SIZE, FPS, Float32Array, InvalidInput

ROW_COLUMNS: Final = 16
"""Mel columns of one row."""

WINDOW_ROWS: Final = 16
"""Rows of one window."""

ROWS_BEFORE: Final = 8
"""Entries of the padded list in front of the frame's own; the other 8 begin with its own."""

MIN_SAMPLES: Final = (ROW_COLUMNS - 1) * HOP
"""Audio shorter than this (187.5 ms) is padded with silence, so that there is one whole row."""


def row_columns(index: int, columns: int | None = None) -> slice:
    """Return which columns of a mel spectrogram the audio encoder makes its row for frame ``index``
    of the video (0 or above) from: a slice of 16 columns. A row is 512 numbers.

    ``columns`` (16 or more) is how many columns the spectrogram has; where 16 columns from the
    frame on would reach beyond its end, the slice is that of its last 16. None means that the end
    is not known yet. Neither argument is checked.
    """
    start = COLUMNS_PER_SECOND * index // FPS
    if columns is not None:
        start = min(start, columns - ROW_COLUMNS)
    return slice(start, start + ROW_COLUMNS)


def row_count(columns: int) -> int:
    """Return how many rows the audio encoder makes of a mel spectrogram of ``columns`` columns,
    about one for each frame of video; a row is 512 numbers. Raises InvalidInput for fewer columns
    than 16."""
    if columns < ROW_COLUMNS:
        raise InvalidInput(f"a spectrogram of {columns} columns; allowed: {ROW_COLUMNS} or more")
    # In floating point, and in this order, as SyncTalk_2D has it: for some lengths (384 columns is
    # the first) that gives one row fewer than whole numbers would.
    return int((columns - ROW_COLUMNS) / 80.0 * 25.0) + 2


def rows_from_mel(mel: Float32Array, start: int = 0, stop: int | None = None) -> Float32Array:
    """Return the input of the audio encoder for rows ``start`` up to but without ``stop``, (stop -
    start, 80, 16) float32: 16 mel columns for each row. There is one row for each frame of video,
    from 0.

    ``mel`` is the whole mel spectrogram, (columns, 80) float32. ``stop`` None is
    ``row_count(columns)``, the end. With ``start`` and ``stop`` hours of audio can be encoded part
    by part, and need not be in memory at once. Raises InvalidInput for another shape, for fewer
    than 16 columns, and for rows that do not exist.
    """
    if mel.ndim != 2 or mel.shape[1] != MEL_BANDS:
        raise InvalidInput(f"a spectrogram of shape {mel.shape}; allowed: (columns, {MEL_BANDS})")
    count = row_count(len(mel))
    stop = count if stop is None else stop
    if not 0 <= start <= stop <= count:
        raise InvalidInput(f"rows {start} to {stop}; allowed: within 0 to {count}")
    rows = np.empty((stop - start, MEL_BANDS, ROW_COLUMNS), np.float32)
    for index in range(start, stop):
        rows[index - start] = mel[row_columns(index, len(mel))].T
    return rows


def windows_of(entries: Float32Array) -> Float32Array:
    """Return the audio windows over rows of the audio encoder, (n - 15, 32, 16, 16) float32. Each
    window is 16 consecutive rows, reshaped: what the network that draws the mouths takes for one
    frame. With n < 16 there are none.

    ``entries`` is (n, 512) float32: the rows, and whatever stands before the first and after the
    last. The result is a read-only view: neighbouring windows share 15 of their 16 rows, so an hour
    of them takes 184 MB instead of 2.9 GB. ``entries`` must stay unchanged while the windows are
    used.
    """
    entries = np.ascontiguousarray(entries, dtype=np.float32)
    row_bytes, item_bytes = FEATURE_SIZE * entries.itemsize, entries.itemsize
    _, height, width = AUDIO_WINDOW_SHAPE
    windows: Float32Array = np.ndarray(
        (max(0, len(entries) - WINDOW_ROWS + 1), *AUDIO_WINDOW_SHAPE),
        np.float32,
        entries,
        0,
        (row_bytes, height * width * item_bytes, width * item_bytes, item_bytes),
    )
    windows.flags.writeable = False
    return windows


def windows_from_rows(rows: Float32Array, frames: int) -> Float32Array:
    """Return the audio windows of the first ``frames`` frames, (frames, 32, 16, 16) float32: for
    each frame the 16 rows around it, from which the network draws the mouth.

    ``rows`` is (rows, 512) float32, all rows that the audio encoder makes of a recording. The
    result is read-only: neighbouring windows share memory. Raises InvalidInput for another shape,
    for no rows, and for a negative number of frames.
    """
    if rows.ndim != 2 or rows.shape[1] != FEATURE_SIZE or not len(rows):
        raise InvalidInput(
            f"rows of shape {rows.shape}; allowed: (rows, {FEATURE_SIZE}) with at least one row"
        )
    if frames < 0:
        raise InvalidInput(f"{frames} frames; allowed: 0 or more")
    entries = np.zeros((frames + WINDOW_ROWS - 1 if frames else 0, FEATURE_SIZE), np.float32)
    padded = np.concatenate([rows[:1], rows, rows[-1:]])[: max(0, len(entries) - ROWS_BEFORE)]
    entries[ROWS_BEFORE : ROWS_BEFORE + len(padded)] = padded
    return windows_of(entries)
