"""Decoded frames in pieces of a second, and the two forms that are made of them."""

from collections.abc import Generator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from lipwire.audio.recordings.channels import Columns
from lipwire.audio.recordings.findings import Findings
from lipwire.audio.recordings.frames import samples_of, silent_frame
from lipwire.audio.recordings.reading import read_frames
from lipwire.audio.recordings.source import Source
from lipwire.audio.resample import StreamResampler
from lipwire.domain import Float32Array, InvalidInput


@dataclass(frozen=True, slots=True)
class Block:
    """About a second of decoded sound, of one rate, number of channels and format: FFmpeg's
    ``frames``, and the samples of all of them, ``columns``, (samples, channels) int16, or float32
    with full scale 1.0."""

    frames: list[av.AudioFrame]
    columns: Columns  # (samples, channels) int16 as it is, everything else as float32

    @property
    def rate_hz(self) -> int:
        """Samples a second of each channel."""
        return self.frames[0].sample_rate

    @property
    def channels(self) -> int:
        """How many channels the sound has."""
        return int(self.columns.shape[1])


def read_blocks(source: Source, track: int | None, findings: Findings) -> Generator[Block]:
    """Yield a whole audio track of ``source`` in blocks of about a second, with silence where it
    has holes. A block ends earlier where rate, channels or format change.

    ``source`` is what ``open_source`` yields. ``track`` counts audio tracks from 1; None is the
    default one. Warnings are added to ``findings``. Close the iterator where it is not exhausted.
    Raises InvalidInput, while it is iterated, for a file that is not audio or has no such track,
    for samples of an unknown format, and for damage where ``findings`` does not allow it.
    """
    frames: list[av.AudioFrame] = []
    samples = 0
    with closing(read_frames(source, track, findings)) as read:
        for frame in read:
            if frames and (samples >= frame.sample_rate or _form(frame) != _form(frames[0])):
                yield _block(source, frames)
                frames, samples = [], 0
            frames.append(frame)
            samples += frame.samples
    if frames:
        yield _block(source, frames)


class HeardForm:
    """Turns blocks of sound (``Block``) into 16 kHz mono; the samples are, bit for bit, those that
    ``StreamResampler`` makes of the whole sound. Rate and channels may change from one block to the
    next. ``samples`` is how many samples were returned so far. Not for use from several threads at
    once.

    The keys of ``choices`` are numbers of channels; the value is the index, from 0, of the one
    channel to use of blocks with so many channels. Where a number is not among the keys, the
    channels are averaged.
    """

    def __init__(self, choices: Mapping[int, int]) -> None:
        self._choices = choices
        self.samples = 0  # given so far
        self._resampler: StreamResampler | None = None
        self._form = (0, 0)  # rate, channels

    def push(self, block: Block) -> Float32Array:
        """Add ``block`` and return the samples that are ready, (k,) float32 in [-1, 1].

        They are often a little less than the sound of ``block``: the rest is returned by later
        calls. Raises InvalidInput for a rate that is not supported and for samples that are not
        finite or are absurdly loud.
        """
        before = []
        form = (block.rate_hz, block.channels)
        choice = self._choices.get(block.channels)
        if self._resampler is None or form != self._form:
            before = [self._rest()]
            one = choice is not None or block.channels == 1
            self._resampler = StreamResampler(block.rate_hz, 1 if one else block.channels)
            self._form = form
        columns = block.columns if choice is None else block.columns[:, choice]
        return self._counted(_joined([*before, self._resampler.push(columns)]))

    def flush(self) -> Float32Array:
        """End the sound and return the remaining samples, (k,) float32 in [-1, 1]."""
        return self._counted(self._rest())

    def _rest(self) -> Float32Array:
        resampler, self._resampler = self._resampler, None
        return np.empty(0, np.float32) if resampler is None else resampler.flush()

    def _counted(self, pcm: Float32Array) -> Float32Array:
        self.samples += len(pcm)
        return pcm


class SoundForm:
    """Turns blocks of sound (``Block``) into sound of one rate and one or two channels, as people
    hear it. Not for use from several threads at once.

    Samples are otherwise unchanged, but clipped to [-1, 1]. More than two channels are mixed by
    FFmpeg's rules; where it has none, as for nine channels without places, they are averaged. A
    mono block is put on both channels of stereo. For mono sound ``push`` may only be given blocks
    of one channel, or of more than two for which FFmpeg has no rules; this is not checked.
    """

    def __init__(self, rate_hz: int, channels: int) -> None:
        """The sound is to have ``rate_hz`` samples a second and ``channels`` channels, 1 or 2;
        neither is checked."""
        self._rate_hz = rate_hz
        self._channels = channels
        self._resampler: av.AudioResampler | None = None
        self._form: tuple[int, str, str] | None = None
        self._averaged = False  # whether the channels at hand are

    def push(self, block: Block) -> Float32Array:
        """Add ``block`` and return the samples that are ready, (n, channels) float32 in [-1, 1],
        those of earlier blocks first. The block's frames lose their time stamps."""
        before = []
        form = _form(block.frames[0])
        if form != self._form:
            before = [self.flush()]
            self._form = form
            self._averaged = not _can_be_mixed(block)
            if not self._averaged and (block.rate_hz != self._rate_hz or block.channels > 2):
                layout = "mono" if block.channels == 1 else "stereo"
                self._resampler = av.AudioResampler("flt", layout, self._rate_hz)
            elif block.rate_hz != self._rate_hz:
                self._resampler = av.AudioResampler("flt", "mono", self._rate_hz)
        columns, frames = block.columns, block.frames
        if self._averaged:
            columns = full_scale(columns).mean(axis=1, keepdims=True)
            frames = [_mono_frame(columns, block.rate_hz)]
        if self._resampler is None:
            return _joined([*before, self._fitted(full_scale(columns))])
        for frame in frames:
            frame.pts = None  # what they say was used already
        converted = [each for frame in frames for each in self._resampler.resample(frame)]
        return _joined([*before, *map(self._columns, converted)])

    def flush(self) -> Float32Array:
        """End the sound and return the remaining samples, (n, channels) float32 in [-1, 1]."""
        resampler, self._resampler = self._resampler, None
        converted = [] if resampler is None else resampler.resample(None)
        return _joined([np.empty((0, self._channels), np.float32), *map(self._columns, converted)])

    def _columns(self, frame: av.AudioFrame) -> Float32Array:
        samples = samples_of(frame).reshape(-1, frame.layout.nb_channels)
        return self._fitted(samples.astype(np.float32, copy=False))

    def _fitted(self, columns: Float32Array) -> Float32Array:
        if columns.shape[1] < self._channels:
            columns = np.repeat(columns, self._channels, axis=1)
        return np.clip(columns, np.float32(-1), np.float32(1))


def full_scale(columns: Columns) -> Float32Array:
    """Return ``columns``, (samples, channels) int16 or float32, as float32 of that shape, in which
    full scale is 1.0."""
    if columns.dtype == np.int16:
        return columns.astype(np.float32) / np.float32(32768)
    return columns.astype(np.float32, copy=False)


def _can_be_mixed(block: Block) -> bool:
    """Whether FFmpeg can mix the channels of ``block`` to two, or need not."""
    if block.channels <= 2:
        return True
    try:
        av.AudioResampler("flt", "stereo", block.rate_hz).resample(silent_frame(block.frames[0], 1))
    except av.FFmpegError:
        return False
    return True


def _mono_frame(columns: Float32Array, rate_hz: int) -> av.AudioFrame:
    frame = av.AudioFrame.from_ndarray(columns.reshape(1, -1), "flt", "mono")
    frame.sample_rate = rate_hz
    return frame


def _form(frame: av.AudioFrame) -> tuple[int, str, str]:
    return frame.sample_rate, frame.layout.name, frame.format.name


def _block(source: Source, frames: list[av.AudioFrame]) -> Block:
    try:
        arrays = [samples_of(frame) for frame in frames]
    except InvalidInput as error:
        raise InvalidInput(f"{source.name}: {error}") from error
    planar = frames[0].format.is_planar
    whole: npt.NDArray[Any] = np.concatenate(arrays, axis=1) if len(arrays) > 1 else arrays[0]
    columns = whole.T if planar else whole.reshape(-1, frames[0].layout.nb_channels)
    return Block(frames, _scaled(columns))


def _scaled(columns: npt.NDArray[Any]) -> Columns:
    """int16 as it is, everything else as float32 with full scale 1.0."""
    if columns.dtype == np.int16:
        return columns
    if columns.dtype == np.uint8:
        return (columns.astype(np.float32) - np.float32(128)) / np.float32(128)
    if columns.dtype.kind == "i":
        return (columns / 2.0 ** (8 * columns.itemsize - 1)).astype(np.float32)
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite, and is refused
        return columns.astype(np.float32)


def _joined(pieces: list[Float32Array]) -> Float32Array:
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
