"""Any audio or video file to 16 kHz mono."""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

import av
import numpy as np
import numpy.typing as npt
from av.audio.stream import AudioStream
from av.container import InputContainer

from lipwire.audio.resample import StreamResampler
from lipwire.domain import SAMPLE_RATE_HZ, Float32Array, InvalidInput

MAX_AUDIO_S: Final = 4 * 3600
"""Longest recording in seconds. Four hours take 0.9 GB; cut longer ones into parts."""

_MISSING_S: Final = 0.5  # what a file may lack of its own length: edit lists, encoder padding
_MISSING_SHARE: Final = 0.02
_MISSING_WAV_BYTES: Final = 4096  # some programs count their header in
_WAV_CHUNKS: Final = 64  # in front of the samples; two or three are usual
_EXACT_LENGTHS: Final = frozenset({"wav", "w64", "flac", "aiff", "au", "caf", "ogg", "mov"})
_UNKNOWN_LENGTH: Final = 0x7FFF_0000  # programs that write WAV into a pipe put this or more


def decode_audio(path: Path) -> Float32Array:
    """(samples,) float32, mono, 16 kHz, in [-1, 1]: the first audio track of ``path``.

    Any container and codec, any rate from 1 to 768 kHz, up to 64 channels, which are averaged.
    The file is decoded piece by piece, so that memory holds the result and no more. Nothing but the
    file itself is read: playlists that point elsewhere fail.

    Raises InvalidInput where the file is missing, no regular file, not audio, without samples,
    truncated or damaged inside (junk before the first and after the last good packet is skipped, as
    MP3 files carry it), longer than MAX_AUDIO_S, or holds NaN, infinite or absurdly loud samples.
    MP3 and bare AAC do not say how long they are: the end of a truncated one cannot be missed.
    """
    try:
        if not path.exists():
            raise InvalidInput(f"there is no file {path}")
        if not path.is_file():
            raise InvalidInput(f"{path} is not a file; allowed: an audio or video file")
        if path.stat().st_size == 0:
            raise InvalidInput(f"{path} is empty (0 bytes)")
        with path.open("rb") as file:
            _check_wav_length(path, file)
            pcm = _decode(path, file)
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror or error}") from error
    return pcm


def _decode(path: Path, file: BinaryIO) -> Float32Array:
    try:
        # The file is handed over open, and FFmpeg may open no other: neither an address in the name
        # nor one inside a playlist leads anywhere. Tags in old encodings are not worth failing for.
        container = av.open(
            file, "r", metadata_errors="ignore", options={"protocol_whitelist": "none"}
        )
    except (av.FFmpegError, ValueError) as error:
        raise InvalidInput(f"{path} is not audio that can be decoded") from error
    with container:
        if not container.streams.audio:
            kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
            raise InvalidInput(f"{path} holds no audio track, only {kinds}")
        stream = container.streams.audio[0]
        pcm = bytearray()  # grows in place, by an eighth at a time
        for piece in _resampled(path, container, stream):
            pcm += piece.tobytes()
            if len(pcm) > MAX_AUDIO_S * SAMPLE_RATE_HZ * 4:
                raise InvalidInput(f"{path} is longer than {MAX_AUDIO_S} s, the most allowed")
        length_s = len(pcm) / 4 / SAMPLE_RATE_HZ
        if not pcm:
            raise InvalidInput(f"{path} holds an audio track of zero length")
        declared_s = _declared_length_s(container, stream)
        if declared_s - length_s > max(_MISSING_S, _MISSING_SHARE * declared_s):
            raise InvalidInput(
                f"{path} is truncated or damaged: {length_s:.2f} s of {declared_s:.2f} s are there"
            )
    return np.frombuffer(pcm, np.float32)


def _resampled(
    path: Path, container: InputContainer, stream: AudioStream
) -> Iterator[Float32Array]:
    """16 kHz mono pieces. Rate and channels are those of the frames: the header of AAC with
    spectral band replication is off by two, and a stream may change on its way."""
    resampler: StreamResampler | None = None
    source = (0, 0)
    for frame in _frames(path, container, stream):
        seen = (frame.sample_rate, frame.layout.nb_channels)
        try:
            if resampler is None or seen != source:
                if resampler is not None:
                    yield resampler.flush()
                resampler, source = StreamResampler(*seen), seen
            yield resampler.push(_samples(frame))
        except InvalidInput as error:
            raise InvalidInput(f"{path}: {error}") from error
    if resampler is not None:
        yield resampler.flush()


def _frames(path: Path, container: InputContainer, stream: AudioStream) -> Iterator[av.AudioFrame]:
    """Decoded frames; a packet that fails between good ones is an error, one at an end is not."""
    decoded_s = 0.0
    failed: av.FFmpegError | None = None
    try:
        for packet in container.demux(stream):
            try:
                frames = packet.decode()
            except av.FFmpegError as error:
                failed = error
                continue
            for frame in frames:
                if failed is not None and decoded_s:
                    raise InvalidInput(
                        f"{path} is damaged {decoded_s:.2f} s after its beginning"
                    ) from failed
                failed = None
                decoded_s += frame.samples / max(1, frame.sample_rate)
                yield frame
    except av.FFmpegError as error:
        raise InvalidInput(f"{path} is truncated or damaged at {decoded_s:.2f} s") from error


def _samples(frame: av.AudioFrame) -> Float32Array | npt.NDArray[np.int16]:
    """(samples, channels): int16 as it is, everything else as float32 with full scale 1.0."""
    try:
        data: npt.NDArray[Any] = frame.to_ndarray()
    except ValueError as error:
        raise InvalidInput(f"samples of the unknown format {frame.format.name}") from error
    channels = frame.layout.nb_channels
    columns: npt.NDArray[Any] = data.T if frame.format.is_planar else data.reshape(-1, channels)
    if columns.dtype == np.int16:
        return columns
    if columns.dtype == np.uint8:
        return (columns.astype(np.float32) - np.float32(128)) / np.float32(128)
    if columns.dtype == np.int32:
        return (columns / 2.0**31).astype(np.float32)
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite, and is refused
        return columns.astype(np.float32)


def _declared_length_s(container: InputContainer, stream: AudioStream) -> float:
    """What the file says about its length; 0 where that is a guess or missing."""
    names = set(container.format.name.split(","))
    if names & _EXACT_LENGTHS and stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    if "matroska" in names and container.duration and len(container.streams) == 1:
        return container.duration / av.time_base
    return 0.0


def _check_wav_length(path: Path, file: BinaryIO) -> None:
    """FFmpeg takes a cut WAV file for a short one; its header knows better.

    RIFF: "RIFF", size, "WAVE", then chunks of four letters, a 32-bit size and the data, padded to
    an even length (Microsoft, Multimedia Programming Interface and Data Specifications 1.0).
    """
    end = path.stat().st_size
    header = file.read(12)
    is_wav = header[:4] == b"RIFF" and header[8:] == b"WAVE"
    for _ in range(_WAV_CHUNKS if is_wav else 0):
        if len(chunk := file.read(8)) < 8:
            break
        kind, size = struct.unpack("<4sI", chunk)
        if kind == b"data":
            there = end - file.tell()
            tolerated = max(_MISSING_WAV_BYTES, _MISSING_SHARE * size)
            if size < _UNKNOWN_LENGTH and size - there > tolerated:
                raise InvalidInput(
                    f"{path} is truncated: {there} of {size} bytes of samples are there"
                )
            break
        file.seek(size + size % 2, 1)
    file.seek(0)
