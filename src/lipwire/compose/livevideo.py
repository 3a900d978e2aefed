"""Video and sound of a live session, encoded frame by frame as they leave: H.264 and Opus.

Every frame can be decoded as soon as it is there: no frame waits for a later one, none refers to
one, and each fits into about a frame and a half of the bit rate, so that it is sent in its time.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import av
import numpy as np
from av.video.frame import PictureType

from lipwire.audio import to_int16
from lipwire.domain import FPS, Float32Array, InvalidInput, UInt8Array

VIDEO_RATE_HZ: Final = 90_000
"""Units of time stamps of video in RTP (RFC 6184)."""
OPUS_RATE_HZ: Final = 48_000
"""Units of time stamps of Opus in RTP, and the rate of its sound (RFC 7587)."""
OPUS_FRAME_SAMPLES: Final = 960
"""20 ms."""

LOWEST_BITS_A_SECOND: Final = 150_000
HIGHEST_BITS_A_SECOND: Final = 20_000_000
_BUFFERED_FRAMES: Final = 1.5
_OPUS_BITS_A_SECOND: Final = 48_000
# Largest frame in macroblocks, and macroblocks a second, of the levels of H.264 (table A-1).
_LEVELS: Final = (
    ("3.1", 3_600, 108_000),
    ("4.0", 8_192, 245_760),
    ("5.1", 36_864, 983_040),
    ("6.2", 139_264, 16_711_680),
)


@dataclass(frozen=True, slots=True)
class EncodedPicture:
    """One frame of H.264: an access unit in Annex B."""

    frame: int
    """On the session's clock, from 0."""
    data: bytes
    key: bool
    """Whether decoding can begin with it."""


@dataclass(frozen=True, slots=True)
class EncodedSound:
    """20 ms of Opus."""

    sample: int
    """Its first sample on the session's clock, 48,000 a second."""
    data: bytes


class LiveVideoEncoder:
    """H.264 in constrained baseline, without delay. For one thread at a time."""

    def __init__(self, width: int, height: int, bits_a_second: int) -> None:
        """Frames have ``width`` x ``height`` pixels, and take up to ``bits_a_second``, 150,000 to
        20,000,000. Raises InvalidInput for a number out of range."""
        if not LOWEST_BITS_A_SECOND <= bits_a_second <= HIGHEST_BITS_A_SECOND:
            raise InvalidInput(
                f"a bit rate of {bits_a_second}; allowed are {LOWEST_BITS_A_SECOND:,} to"
                f" {HIGHEST_BITS_A_SECOND:,} bits a second"
            )
        self.bits_a_second: Final = bits_a_second
        # As the planes of Avatar.planes have it.
        self.width: Final = width + width % 2
        self.height: Final = height + height % 2
        kilobits = bits_a_second // 1000
        parameters = {
            "keyint": "infinite",
            "scenecut": "0",
            "repeat-headers": "1",
            "vbv-maxrate": str(kilobits),
            "vbv-bufsize": str(max(1, round(kilobits / FPS * _BUFFERED_FRAMES))),
            "threads": "1",
            "level": _level(self.width, self.height),
        }
        context = av.CodecContext.create("libx264", "w")
        assert isinstance(context, av.VideoCodecContext)
        context.width, context.height, context.pix_fmt = self.width, self.height, "yuv420p"
        context.framerate = Fraction(FPS)
        context.time_base = Fraction(1, VIDEO_RATE_HZ)
        context.bit_rate = bits_a_second
        context.thread_count = 1
        context.options = {
            "preset": "superfast",
            "tune": "zerolatency",
            "profile": "baseline",
            "forced-idr": "1",
            "x264-params": ":".join(f"{name}={value}" for name, value in parameters.items()),
        }
        self._context = context

    def encode(self, planes: UInt8Array, frame: int, *, key: bool) -> EncodedPicture:
        """Return frame number ``frame`` of the session. ``planes`` are I420, (even height * 3/2,
        even width) uint8; ``key`` has decoding begin with it."""
        picture = av.VideoFrame.from_ndarray(planes, format="yuv420p")
        picture.pts = frame * (VIDEO_RATE_HZ // FPS)
        picture.time_base = self._context.time_base
        picture.pict_type = PictureType.I if key else PictureType.NONE
        packets = self._context.encode(picture)
        data = b"".join(bytes(packet) for packet in packets)
        return EncodedPicture(frame, data, any(packet.is_keyframe for packet in packets))


class LiveSoundEncoder:
    """Opus, mono, in pieces of 20 ms, for speech. For one thread at a time."""

    def __init__(self) -> None:
        context = av.CodecContext.create("libopus", "w")
        assert isinstance(context, av.AudioCodecContext)
        context.sample_rate = OPUS_RATE_HZ
        context.layout = "mono"
        context.format = "s16"
        context.time_base = Fraction(1, OPUS_RATE_HZ)
        context.bit_rate = _OPUS_BITS_A_SECOND
        # In-band correction of lost packets needs a guess of how many are lost.
        context.options = {
            "application": "audio",
            "frame_duration": "20",
            "fec": "1",
            "packet_loss": "5",
        }
        self._context = context

    def encode(self, samples: Float32Array, sample: int) -> Iterator[EncodedSound]:
        """Yield the pieces of ``samples``, (n,) float32 mono at 48 kHz in [-1, 1], n being a
        multiple of 960, that begin with sample number ``sample`` of the session."""
        scaled = to_int16(samples)
        for first in range(0, len(scaled), OPUS_FRAME_SAMPLES):
            piece = np.ascontiguousarray(scaled[None, first : first + OPUS_FRAME_SAMPLES])
            frame = av.AudioFrame.from_ndarray(piece, format="s16", layout="mono")
            frame.sample_rate = OPUS_RATE_HZ
            frame.pts = sample + first
            frame.time_base = self._context.time_base
            data = b"".join(bytes(packet) for packet in self._context.encode(frame))
            yield EncodedSound(sample + first, data)


def _level(width: int, height: int) -> str:
    """The lowest level that allows these frames; 3.1 at least, which browsers ask for."""
    blocks = -(-width // 16) * -(-height // 16)
    for name, most, most_a_second in _LEVELS:
        if blocks <= most and blocks * FPS <= most_a_second:
            return name
    raise InvalidInput(f"frames of {width} x {height}; H.264 has no level for such large ones")


def usual_bits_a_second(width: int, height: int) -> int:
    """Return a bit rate at which a talking person of that size looks good: 1.5 Mbit/s at 1280 x
    720."""
    wanted = round(1_500_000 * (width * height / (1280 * 720)) ** 0.75)
    bits: int = min(max(wanted, 300_000), 8_000_000)
    return bits
