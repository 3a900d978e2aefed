"""The sound that people hear with the picture: as recorded, not as the network hears it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

from lipwire.domain import Float32Array, InvalidInput


@dataclass(frozen=True, slots=True)
class Track:
    """Sound in pieces, from the beginning of the recording. It can be gone through once."""

    rate_hz: int
    channels: int  # 1 or 2
    pieces: Iterator[Float32Array]  # (n, channels) float32; full scale is 1.0


def track_of_file(path: Path) -> Track:
    """The first audio track of ``path`` at its own rate, decoded as it is taken.

    More than two channels are mixed to two. ``path`` has been decoded once before: ``decode_audio``
    says what is wrong with a file. Raises InvalidInput when it cannot be decoded any more.
    """
    pieces = _decode(path)
    try:
        first = next(pieces)
    except (OSError, av.FFmpegError, IndexError, StopIteration) as error:
        raise InvalidInput(f"{path} is not audio that can be decoded") from error
    rate_hz, samples = first
    return Track(rate_hz, samples.shape[1], _samples_alone(samples, pieces))


def track_of_pcm(pcm: Float32Array | npt.NDArray[np.int16], rate_hz: int) -> Track:
    """(samples,) or (samples, channels), int16 or float32; more than two channels become one."""
    columns = pcm[:, None] if pcm.ndim == 1 else pcm
    audible = columns.astype(np.float32)
    if columns.dtype == np.int16:
        audible /= np.float32(32768)
    if audible.shape[1] > 2:
        audible = audible.mean(axis=1, keepdims=True)
    return Track(rate_hz, audible.shape[1], iter([audible]))


def _samples_alone(
    first: Float32Array, rest: Iterator[tuple[int, Float32Array]]
) -> Iterator[Float32Array]:
    yield first
    for _, samples in rest:
        yield samples


def _decode(path: Path) -> Iterator[tuple[int, Float32Array]]:
    """(rate, (n, channels) float32), every piece with the rate and channels of the first."""
    resampler: av.AudioResampler | None = None
    channels = 0
    # The file is handed over open and nothing else may be opened, as in decode_audio.
    with (
        path.open("rb") as file,
        av.open(
            file, "r", metadata_errors="ignore", options={"protocol_whitelist": "none"}
        ) as container,
    ):
        for packet in container.demux(container.streams.audio[0]):
            try:
                frames = packet.decode()
            except av.FFmpegError:
                continue  # junk at an end, which decode_audio passes over as well
            for frame in frames:
                if resampler is None:
                    channels = min(2, frame.layout.nb_channels)
                    layout = "mono" if channels == 1 else "stereo"
                    resampler = av.AudioResampler("flt", layout, frame.sample_rate)
                frame.pts = None  # gaps between a file's time stamps are not gaps in its samples
                for converted in resampler.resample(frame):
                    yield converted.sample_rate, _columns(converted, channels)
    if resampler is not None:
        for converted in resampler.resample(None):
            yield converted.sample_rate, _columns(converted, channels)


def _columns(frame: av.AudioFrame, channels: int) -> Float32Array:
    samples = frame.to_ndarray().reshape(-1, channels).astype(np.float32)
    return np.clip(samples, -1.0, 1.0)
