"""Video and sound of live sessions and of batches, encoded frame by frame: H.264 and Opus.

Every frame can be decoded as soon as it is there: no frame waits for a later one, and none refers
to one. In a live session each fits into about a frame and a half of the bit rate, so that it is
sent in its time; those of a batch have a constant quality.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, NamedTuple

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
OPUS_DELAY_S: Final = 312 / OPUS_RATE_HZ
"""So much after its time stamp a sound is in what is decoded, as libopus looks ahead (RFC 7845:
pre-skip)."""

LOWEST_BITS_A_SECOND: Final = 150_000
HIGHEST_BITS_A_SECOND: Final = 20_000_000
BEST_CRF: Final = 1
"""x264's quality 0 is lossless, which the baseline profile does not have."""
WORST_CRF: Final = 51
_BUFFERED_FRAMES: Final = 1.5
_OPUS_BITS_A_SECOND: Final = 48_000
_BT709: Final = 1
"""For primaries, transfer and matrix alike (ITU-T H.264, tables E-3 to E-5)."""
_LIMITED_RANGE: Final = 1  # AVCOL_RANGE_MPEG
_START: Final = b"\0\0\0\1"
_SEI: Final = 6


class _Level(NamedTuple):
    """A level of H.264 (ITU-T H.264, table A-1)."""

    name: str
    blocks: int
    """The largest frame, in macroblocks."""
    blocks_a_second: int
    kilobits_a_second: int


_LEVELS: Final = (
    _Level("3.1", 3_600, 108_000, 14_000),
    _Level("4.0", 8_192, 245_760, 20_000),
    _Level("5.1", 36_864, 983_040, 240_000),
    _Level("6.2", 139_264, 16_711_680, 800_000),
)


@dataclass(frozen=True, slots=True)
class EncodedPicture:
    """One encoded frame of H.264: ``data`` is an access unit in Annex B, in which start codes have
    4 bytes. ``frame`` is its number on the session's clock, from 0; ``key`` says whether it is a
    key frame, with which decoding can begin."""

    frame: int
    """On the session's clock, from 0."""
    data: bytes
    key: bool
    """Whether decoding can begin with it."""


@dataclass(frozen=True, slots=True)
class EncodedSound:
    """20 ms of encoded Opus: ``data`` is a packet, ``sample`` the number of its first sample on the
    session's clock, which counts 48,000 a second from 0."""

    sample: int
    """Its first sample on the session's clock, 48,000 a second."""
    data: bytes


class _VideoEncoder:
    """H.264 in constrained baseline, without delay. For one thread at a time."""

    def __init__(self, width: int, height: int) -> None:
        # As the planes of Avatar.planes have it.
        self.width: Final = width + width % 2
        self.height: Final = height + height % 2
        self._level: Final = _level(self.width, self.height)

    def _open(self, parameters: dict[str, str]) -> av.VideoCodecContext:
        """The encoder; ``parameters`` are x264's, beside those that all have."""
        context = av.CodecContext.create("libx264", "w")
        assert isinstance(context, av.VideoCodecContext)
        context.width, context.height, context.pix_fmt = self.width, self.height, "yuv420p"
        context.framerate = Fraction(FPS)
        context.time_base = Fraction(1, VIDEO_RATE_HZ)
        context.color_range = _LIMITED_RANGE
        context.color_primaries = context.color_trc = context.colorspace = _BT709
        context.thread_count = 1
        parameters = {
            "keyint": "infinite",
            "scenecut": "0",
            "repeat-headers": "1",
            "threads": "1",
            "level": self._level.name,
            **parameters,
        }
        context.options = {
            "preset": "superfast",
            "tune": "zerolatency",
            "profile": "baseline",
            "forced-idr": "1",
            "x264-params": ":".join(f"{name}={value}" for name, value in parameters.items()),
        }
        return context

    def _encode(
        self, context: av.VideoCodecContext, planes: UInt8Array, frame: int, *, key: bool
    ) -> EncodedPicture:
        picture = av.VideoFrame.from_ndarray(planes, format="yuv420p")
        picture.pts = frame * (VIDEO_RATE_HZ // FPS)
        picture.time_base = context.time_base
        picture.pict_type = PictureType.I if key else PictureType.NONE
        packets = context.encode(picture)
        data = b"".join(bytes(packet) for packet in packets)
        return EncodedPicture(frame, _tidy(data), any(packet.is_keyframe for packet in packets))


class LiveVideoEncoder(_VideoEncoder):
    """Encodes the frames of a live session as H.264 (constrained baseline, 25 frames a second)
    within a bit rate, each at once. For one thread at a time; there is nothing to close."""

    def __init__(self, width: int, height: int, bits_a_second: int) -> None:
        """Frames have ``width`` x ``height`` pixels, each side rounded up to an even number.
        ``bits_a_second`` is the bit rate that is not exceeded, 150,000 to 20,000,000. Raises
        InvalidInput for a bit rate out of range, or frames larger than H.264 allows."""
        if not LOWEST_BITS_A_SECOND <= bits_a_second <= HIGHEST_BITS_A_SECOND:
            raise InvalidInput(
                f"a bit rate of {bits_a_second}; allowed are {LOWEST_BITS_A_SECOND:,} to"
                f" {HIGHEST_BITS_A_SECOND:,} bits a second"
            )
        super().__init__(width, height)
        self.bits_a_second: Final = bits_a_second
        kilobits = bits_a_second // 1000
        self._context = self._open(
            {
                "bitrate": str(kilobits),
                "vbv-maxrate": str(kilobits),
                "vbv-bufsize": str(max(1, round(kilobits / FPS * _BUFFERED_FRAMES))),
            }
        )

    def encode(self, planes: UInt8Array, frame: int, *, key: bool) -> EncodedPicture:
        """Return one frame, encoded; nothing is held back. ``frame`` is its number on the session's
        clock, from 0, higher than that of the call before; numbers may be left out.

        ``planes`` are its I420 planes, (even height * 3/2, even width) uint8; the shape is not
        checked. ``key`` makes the frame a key frame, with which decoding can begin; the first frame
        is always one.
        """
        return self._encode(self._context, planes, frame, key=key)


class BatchVideoEncoder(_VideoEncoder):
    """Encodes the frames of one batch, an answer that is decoded by itself, as H.264 (constrained
    baseline) of constant quality. For one thread at a time; there is nothing to close."""

    def __init__(self, width: int, height: int, crf: int) -> None:
        """Frames have ``width`` x ``height`` pixels, each side rounded up to an even number.
        ``crf`` is x264's quality, 1 to 51, less is better; the bit rate is limited to what the
        level of H.264 for this size allows. Raises InvalidInput for a ``crf`` out of range, or
        frames larger than H.264 allows."""
        if not BEST_CRF <= crf <= WORST_CRF:
            raise InvalidInput(f"crf is {crf}; allowed are {BEST_CRF} to {WORST_CRF}")
        super().__init__(width, height)
        most = str(self._level.kilobits_a_second)
        self._context = self._open({"crf": str(crf), "vbv-maxrate": most, "vbv-bufsize": most})
        self._frames = 0

    def encode(self, planes: UInt8Array) -> bytes:
        """Return the next frame as an access unit of H.264 in Annex B, with start codes of 4 bytes;
        the first is an IDR frame, with which decoding begins, with its parameter sets. Nothing is
        held back. ``planes`` are I420, (even height * 3/2, even width) uint8; the shape is not
        checked."""
        frame = self._frames
        self._frames += 1
        return self._encode(self._context, planes, frame, key=frame == 0).data


class LiveSoundEncoder:
    """Encodes the speech of a live session as Opus, mono, in packets of 20 ms. For one thread at a
    time; there is nothing to close."""

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
        """Yield ``samples`` encoded, in packets of 20 ms, one for each 960 samples.

        ``samples`` are (n,) float32 mono at 48 kHz in [-1, 1], n a multiple of 960, which is not
        checked; what is louder is clipped. The first sample is number ``sample`` on the session's
        clock, which counts 48,000 a second. Call this in the order of the sound.
        """
        scaled = to_int16(samples)
        for first in range(0, len(scaled), OPUS_FRAME_SAMPLES):
            piece = np.ascontiguousarray(scaled[None, first : first + OPUS_FRAME_SAMPLES])
            frame = av.AudioFrame.from_ndarray(piece, format="s16", layout="mono")
            frame.sample_rate = OPUS_RATE_HZ
            frame.pts = sample + first
            frame.time_base = self._context.time_base
            data = b"".join(bytes(packet) for packet in self._context.encode(frame))
            yield EncodedSound(sample + first, data)


def check_video_size(width: int, height: int) -> None:
    """Raise InvalidInput where frames of ``width`` x ``height`` pixels at 25 a second are larger
    than any level of H.264 that is used allows."""
    _level(width, height)


def _tidy(data: bytes) -> bytes:
    """An access unit without x264's notes about itself, all of whose start codes have 4 bytes."""
    # A NAL unit never holds three bytes 0, 0, 1, and never ends in 0 (ITU-T H.264, 7.4.1).
    units = (unit.rstrip(b"\0") for unit in data.split(_START[1:]))
    return b"".join(_START + unit for unit in units if unit and unit[0] & 31 != _SEI)


def _level(width: int, height: int) -> _Level:
    """The lowest level that allows these frames; 3.1 at least, which browsers ask for."""
    blocks = -(-width // 16) * -(-height // 16)
    for level in _LEVELS:
        if blocks <= level.blocks and blocks * FPS <= level.blocks_a_second:
            return level
    raise InvalidInput(f"frames of {width} x {height}; H.264 has no level for such large ones")


def usual_bits_a_second(width: int, height: int) -> int:
    """Return a bit rate, in bits a second, at which a talking person in ``width`` x ``height``
    pixels looks good: 1,500,000 at 1280 x 720, growing with the number of pixels, within 300,000 to
    8,000,000."""
    wanted = round(1_500_000 * (width * height / (1280 * 720)) ** 0.75)
    bits: int = min(max(wanted, 300_000), 8_000_000)
    return bits
