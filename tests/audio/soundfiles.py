"""Files of sound with holes, joints and other tracks, encoded on the spot."""

import io
import struct
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.audio.stream import AudioStream

from lipwire.audio import FileRecording
from lipwire.domain import Float32Array


def tone(seconds: float, rate_hz: int, hz: float = 440.0) -> Float32Array:
    """(samples,) float32: a steady tone of amplitude 0.4."""
    times_s = np.arange(round(seconds * rate_hz)) / rate_hz
    return (0.4 * np.sin(2 * np.pi * hz * times_s)).astype(np.float32)


def packets(stream: AudioStream, sound: Float32Array, rate_hz: int, layout: str) -> Iterator[Any]:
    """``sound`` (samples,) or (channels, samples) encoded for ``stream``."""
    converter = av.AudioResampler(stream.format, layout, rate_hz)
    channels = av.AudioLayout(layout).nb_channels
    rows = np.broadcast_to(sound, (channels, sound.shape[-1]))
    size = stream.codec_context.frame_size or 1024
    for start in range(0, rows.shape[1], size):
        block = np.ascontiguousarray(rows[:, start : start + size].T).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(block, "flt", layout)
        frame.sample_rate, frame.time_base, frame.pts = rate_hz, Fraction(1, rate_hz), start
        for converted in converter.resample(frame):
            yield from stream.encode(converted)
    yield from stream.encode(None)


def encoded(
    container: str,
    codec: str,
    sound: Float32Array,
    rate_hz: int,
    layout: str = "mono",
    *,
    keep: Callable[[float], bool] = lambda _time_s: True,
    move_s: Callable[[float], float] = lambda _time_s: 0.0,
    options: dict[str, str] | None = None,
    codec_options: dict[str, str] | None = None,
) -> bytes:
    """A file in FFmpeg's format ``container``.

    A packet of time t is left out unless ``keep(t)``, and moved by ``move_s(t)``.
    """
    file = io.BytesIO()
    with av.open(file, "w", format=container, options=options or {}) as output:
        stream = output.add_stream(codec, rate=rate_hz, layout=layout, options=codec_options)
        assert isinstance(stream, AudioStream)
        output.start_encoding()
        for packet in packets(stream, sound, rate_hz, layout):
            time_s = float(packet.pts * packet.time_base)
            if keep(time_s):
                moved = round(move_s(time_s) / packet.time_base)
                packet.pts += moved
                packet.dts += moved
                output.mux(packet)
    return file.getvalue()


def several_tracks(
    tracks: Sequence[Float32Array],
    *,
    default: int,
    languages: Sequence[str],
    rate_hz: int = 48_000,
    container: str = "matroska",
) -> bytes:
    """A file with a track for each of ``tracks``, of which number ``default`` is marked so."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        streams = []
        for index, language in enumerate(languages):
            stream = output.add_stream("flac", rate=rate_hz, layout="mono")
            assert isinstance(stream, AudioStream)
            stream.metadata["language"] = language
            stream.metadata["title"] = f"track of {language}"
            stream.disposition = (
                av.stream.Disposition.default if index == default else av.stream.Disposition(0)
            )
            streams.append(stream)
        output.start_encoding()
        for stream, sound in zip(streams, tracks, strict=True):
            output.mux(list(packets(stream, sound, rate_hz, "mono")))
    return file.getvalue()


def loud(pcm: Float32Array, start_s: float, end_s: float, rate_hz: int = 16_000) -> bool:
    """Whether the sound is loud from ``start_s`` to ``end_s``; it must be loud or silent."""
    part = pcm[round(start_s * rate_hz) : round(end_s * rate_hz)]
    rms = float(np.sqrt(np.mean(np.square(part, dtype=np.float64))))
    assert rms < 1e-3 or rms > 0.1, f"neither silent nor loud from {start_s} s on: {rms}"
    return rms > 0.1


def both_forms(content: bytes | Path, **options: bool | int) -> tuple[Float32Array, Float32Array]:
    """What is heard of a recording, and its sound; that they are in step is checked."""
    with FileRecording(content, **options) as recording:  # type: ignore[arg-type]
        pieces = list(recording.pieces())
        heard = np.concatenate([piece.heard for piece in pieces])
        sound = np.concatenate([piece.sound for piece in pieces])
        assert len(heard) == recording.samples
        assert sound.shape[1] == recording.channels
        assert len(sound) / recording.rate_hz == pytest.approx(len(heard) / 16_000, abs=1e-3)
    return heard, sound


def id3v2(content: bytes) -> bytes:
    """An ID3v2.3 tag with a picture that holds what looks like frames of MP3."""
    picture = b"APIC" + struct.pack(">IH", len(content), 0) + content
    size = len(picture)
    parts = bytes((size >> shift) & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3\x03\x00\x00" + parts + picture


def ape(items: bytes = b"\x05\x00\x00\x00\x00\x00\x00\x00Title\x00hello") -> bytes:
    """An APEv2 tag with its header."""
    size = struct.pack("<II", len(items) + 32, 1)
    header = b"APETAGEX" + struct.pack("<I", 2000) + size + struct.pack("<I", 0xA000_0000)
    footer = b"APETAGEX" + struct.pack("<I", 2000) + size + struct.pack("<I", 0x8000_0000)
    return header + bytes(8) + items + footer + bytes(8)


def mp3(seconds: float, rate_hz: int = 44_100, layout: str = "mono", hz: float = 440.0) -> bytes:
    return encoded("mp3", "libmp3lame", tone(seconds, rate_hz, hz), rate_hz, layout)
