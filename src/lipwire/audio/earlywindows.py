"""Windows of speech that is still being spoken, before all that they hear of it is known."""

from typing import Final

import numpy as np

from lipwire.audio.encoder import AudioEncoder
from lipwire.audio.mel import MEL_BANDS
from lipwire.audio.pcm import SAMPLES_PER_FRAME, frame_count
from lipwire.audio.rows import WINDOW_ROWS, row_columns, windows_of
from lipwire.audio.windows import LOOKAHEAD_MS, WindowStream
from lipwire.domain import FEATURE_SIZE, SAMPLE_RATE_HZ, Float32Array, InvalidInput


class EarlyWindowStream(WindowStream):
    """A ``WindowStream``, audio windows of speech that arrives in pieces, that returns the window
    of a frame ``lookahead_ms`` after the frame begins, not 452.5 ms after. Where a window depends
    on audio that has not come yet, that audio is guessed.

    The guess is that the sound goes on as it is: mel columns to come are equal to the last one that
    is known. The more audio has come when a window is returned, the less is guessed, so windows
    depend on how the audio was cut into pieces. Windows that ``flush`` returns contain no guesses.
    Not for use from several threads at once.
    """

    __slots__ = ("_given", "_lookahead_samples")

    def __init__(self, encoder: AudioEncoder, lookahead_ms: float) -> None:
        """``encoder`` is the avatar's audio encoder, which the caller keeps open. ``lookahead_ms``
        is 0 to 452.5; InvalidInput is raised for any other."""
        if not 0 <= lookahead_ms <= LOOKAHEAD_MS:
            raise InvalidInput(
                f"lookahead_ms is {lookahead_ms:g}; allowed are 0 to {LOOKAHEAD_MS:g}"
            )
        self._lookahead_samples: Final = round(lookahead_ms * SAMPLE_RATE_HZ / 1000)
        super().__init__(encoder)

    def reset(self) -> None:
        """Forget all audio; the audio of the next ``push`` begins at frame 0 again."""
        super().reset()
        self._given = 0

    def push(self, pcm: Float32Array) -> Float32Array:
        """Add audio and return the audio windows of the frames that began ``lookahead_ms`` or more
        before the end of the audio so far and were not returned yet, (k, 32, 16, 16) float32; k is
        often 0.

        ``pcm`` is (n,) float32 mono at 16 kHz in [-1, 1]. Raises InvalidInput for another shape or
        type, for NaN or infinite samples, and after ``flush``; the stream is then as it was before
        the call.
        """
        known = super().push(pcm)
        began = self._frames
        if self._samples and self._samples >= self._lookahead_samples:
            past = (self._samples - self._lookahead_samples) // SAMPLES_PER_FRAME
            began = max(began, min(past + 1, frame_count(self._samples)))
        if began <= self._given:
            return known[:0]
        first = self._frames - len(known)
        entries = self._with_guesses(began - self._frames)
        windows = [known[max(0, self._given - first) : began - first]]
        if began > self._frames:
            start = max(0, self._given - self._frames)
            windows.append(windows_of(entries[start:]))
        self._given = began
        return windows[0] if len(windows) == 1 else np.concatenate(windows)

    def flush(self) -> Float32Array:
        """End the audio and return the audio windows that were not returned yet, (k, 32, 16, 16)
        float32, without guesses; k may be 0. Afterwards only ``reset`` may be called. Raises
        InvalidInput where it was called before."""
        first = self._frames
        last = super().flush()
        given, self._given = self._given, self._frames
        return last[max(0, given - first) :]

    def _with_guesses(self, frames: int) -> Float32Array:
        """Entries of the next ``frames`` windows that are not known: known ones, and guesses."""
        missing = frames + WINDOW_ROWS - 1 - len(self._entries)
        if frames <= 0 or missing <= 0:
            return self._entries
        doubled = 1 if self._rows == 0 else 0  # the first row is there once more
        rows = self._guessed(missing - doubled)
        return np.concatenate([self._entries, rows[:doubled], rows])

    def _guessed(self, count: int) -> Float32Array:
        """(count, 512): rows from the first that is not known on."""
        first = row_columns(self._rows).start
        columns = self._columns[first - self._first_column :]
        end = row_columns(self._rows + count - 1).stop
        last = columns[-1:] if len(columns) else self._last_column()
        ahead = np.repeat(last, end - first - len(columns), axis=0)
        guess = np.concatenate([columns, ahead])
        starts = [row_columns(self._rows + index).start - first for index in range(count)]
        mels = np.stack([guess[start : start + 16].T for start in starts])
        rows = np.empty((count, FEATURE_SIZE), np.float32)
        rows[:] = self._encoder.encode(mels[:, None])
        return rows

    def _last_column(self) -> Float32Array:
        if len(self._columns):
            return self._columns[-1:]
        return np.full((1, MEL_BANDS), -4.0, np.float32)
