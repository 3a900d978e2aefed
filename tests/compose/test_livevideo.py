"""What live video and sound are once they are decoded."""

from fractions import Fraction

import av
import numpy as np
import pytest
from tests.support.accessunits import (
    KEY_SLICE,
    PICTURE_PARAMETERS,
    SEQUENCE_PARAMETERS,
    SLICE,
    decoded_planes,
    decoder,
    kinds_of,
    psnr_db,
    units_of,
)

from lipwire.compose.livevideo import (
    OPUS_FRAME_SAMPLES,
    OPUS_RATE_HZ,
    BatchVideoEncoder,
    LiveSoundEncoder,
    LiveVideoEncoder,
)
from lipwire.domain import FPS, Float32Array, InvalidInput, UInt8Array


def planes(frame: int, width: int, height: int) -> UInt8Array:
    """Stripes that move."""
    made = np.full((height * 3 // 2, width), 128, np.uint8)
    made[:height] = (np.arange(width) * 5 + frame * 7) % 160 + 40
    return made


def test_every_picture_can_be_decoded_as_soon_as_it_is_there() -> None:
    encoder, decodes = LiveVideoEncoder(320, 240, 800_000), decoder()
    decodes.flags |= av.codec.context.Flags.low_delay
    for frame in range(60):
        picture = encoder.encode(planes(frame, 320, 240), frame, key=frame == 0)
        assert picture.frame == frame
        shown = decodes.decode(av.Packet(picture.data))
        assert len(shown) == 1, f"frame {frame}"
        luma = shown[0].to_ndarray(format="yuv420p")[:240].astype(np.int16)
        wrong = np.abs(luma - planes(frame, 320, 240)[:240])
        assert wrong.mean() < 12


def test_key_frames_come_when_asked_for_and_bring_their_parameters() -> None:
    encoder = LiveVideoEncoder(64, 48, 300_000)
    pictures = [
        encoder.encode(planes(frame, 64, 48), frame, key=frame in (0, 7)) for frame in range(12)
    ]
    assert [picture.frame for picture in pictures if picture.key] == [0, 7]
    for picture in pictures:
        found = kinds_of(picture.data)
        if picture.key:
            assert found == [SEQUENCE_PARAMETERS, PICTURE_PARAMETERS, KEY_SLICE]
        else:
            assert found == [SLICE]
    late = decoder()
    assert late.decode(av.Packet(pictures[7].data)) or late.decode(av.Packet(pictures[8].data))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "level"), [((64, 48), 31), ((1280, 720), 31), ((1920, 1080), 40), ((3840, 2160), 51)]
)
def test_it_is_constrained_baseline_of_the_level_that_the_size_needs(
    size: tuple[int, int], level: int
) -> None:
    picture = LiveVideoEncoder(*size, 1_000_000).encode(planes(0, *size), 0, key=True)
    parameters = next(
        unit for unit in units_of(picture.data) if unit[0] & 31 == SEQUENCE_PARAMETERS
    )
    profile, constraints, told = parameters[1:4]
    assert profile == 66
    assert constraints & 0x40  # constraint_set1_flag: what the main profile decodes, too
    assert told == level


def test_pictures_keep_to_the_bit_rate() -> None:
    encoder, noise = LiveVideoEncoder(320, 240, 400_000), np.random.default_rng(1)
    sizes = []
    for frame in range(50):
        made = noise.integers(60, 200, (360, 320), np.uint8)
        sizes.append(8 * len(encoder.encode(made, frame, key=frame == 0).data))
    assert sum(sizes[FPS:]) <= 400_000 * 1.15


def test_odd_sizes_are_made_even_and_bit_rates_have_bounds() -> None:
    encoder = LiveVideoEncoder(63, 47, 300_000)
    assert (encoder.width, encoder.height) == (64, 48)
    for bits in (149_999, 20_000_001):
        with pytest.raises(InvalidInput, match=str(bits)):
            LiveVideoEncoder(64, 48, bits)
    with pytest.raises(InvalidInput, match="16384 x 16384"):
        LiveVideoEncoder(16384, 16384, 1_000_000)


def test_a_batch_is_decoded_by_itself_and_frame_by_frame() -> None:
    made = [planes(frame, 320, 240) for frame in range(9)]
    for first in (0, 5):
        encoder = BatchVideoEncoder(320, 240, 20)
        units = [encoder.encode(each) for each in made[first:]]
        assert kinds_of(units[0]) == [SEQUENCE_PARAMETERS, PICTURE_PARAMETERS, KEY_SLICE]
        assert all(kinds_of(unit) == [SLICE] for unit in units[1:])
        shown = decoded_planes(units)
        assert min(map(psnr_db, shown, made[first:])) > 35


def test_a_batch_has_the_quality_that_is_asked_for() -> None:
    made = [planes(frame, 320, 240) for frame in range(3)]
    sizes, qualities = [], []
    for crf in (1, 23, 51):
        encoder = BatchVideoEncoder(320, 240, crf)
        units = [encoder.encode(each) for each in made]
        sizes.append(sum(map(len, units)))
        qualities.append(min(map(psnr_db, decoded_planes(units), made)))
    assert sizes == sorted(sizes, reverse=True)
    assert qualities == sorted(qualities, reverse=True)
    assert qualities[0] > 50
    for crf in (0, 52):
        with pytest.raises(InvalidInput, match=f"crf is {crf}; allowed are 1 to 51"):
            BatchVideoEncoder(64, 48, crf)


def test_a_batch_keeps_to_the_level_it_names() -> None:
    # 14 Mbit/s, and a second of them at once, at level 3.1.
    encoder, noise = BatchVideoEncoder(1280, 720, 1), np.random.default_rng(1)
    sizes = [
        8 * len(encoder.encode(noise.integers(0, 256, (1080, 1280), np.uint8))) for _ in range(8)
    ]
    assert sum(sizes) < 14_000_000 * 1.1 * (1 + 8 / FPS)


@pytest.mark.slow
def test_opus_decodes_to_the_same_sound() -> None:
    encoder = LiveSoundEncoder()
    decodes = av.CodecContext.create("libopus", "r")
    assert isinstance(decodes, av.AudioCodecContext)
    decodes.sample_rate, decodes.layout = OPUS_RATE_HZ, "mono"
    time = np.arange(OPUS_RATE_HZ, dtype=np.float32) / OPUS_RATE_HZ
    sweep: Float32Array = 0.4 * np.sin(2 * np.pi * (200 + 800 * time) * time).astype(np.float32)
    heard = []
    starts = []
    for first in range(0, len(sweep), 2 * OPUS_FRAME_SAMPLES):
        for piece in encoder.encode(sweep[first : first + 2 * OPUS_FRAME_SAMPLES], first):
            starts.append(piece.sample)
            packet = av.Packet(piece.data)
            packet.time_base = Fraction(1, OPUS_RATE_HZ)
            for frame in decodes.decode(packet):
                samples = frame.to_ndarray()
                scale = 32768.0 if samples.dtype == np.int16 else 1.0
                heard.append(samples.reshape(-1) / scale)
    assert starts == list(range(0, OPUS_RATE_HZ, OPUS_FRAME_SAMPLES))
    sound = np.concatenate(heard)
    delays = range(0, 1500)
    part = sweep[4800:38400]
    best = max(
        float(np.corrcoef(part, sound[4800 + delay : 38400 + delay])[0, 1]) for delay in delays
    )
    assert best > 0.98
