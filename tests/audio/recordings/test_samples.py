"""Arrays and lists of samples as recordings."""

from typing import Any

import numpy as np
import pytest
from tests.audio.soundfiles import tone

from lipwire.audio import PcmRecording, StreamResampler
from lipwire.domain import Float32Array, InvalidInput


def both_forms(samples: object, rate_hz: int) -> tuple[Float32Array, Float32Array]:
    with PcmRecording(samples, rate_hz) as recording:
        pieces = list(recording.pieces())
        heard = np.concatenate([piece.heard for piece in pieces])
        assert len(heard) == recording.samples
        sound = np.concatenate([piece.sound for piece in pieces])
    assert sound.shape[1] == recording.channels
    return heard, sound


@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 44_100])
@pytest.mark.parametrize("channels", [1, 2, 5])
@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_the_network_hears_the_bits_of_the_whole(
    rate_hz: int, channels: int, dtype: type[np.generic]
) -> None:
    random = np.random.default_rng(channels)
    samples = random.integers(-20_000, 20_000, (rate_hz * 5 // 2, channels), dtype=np.int16)
    given = samples if dtype == np.int16 else (samples / 32768).astype(np.float32)
    resampler = StreamResampler(rate_hz, channels)
    expected = np.concatenate([resampler.push(given), resampler.flush()])
    heard, sound = both_forms(given, rate_hz)
    np.testing.assert_array_equal(heard, expected)
    scaled = (samples / 32768).astype(np.float32)
    wanted = scaled if channels <= 2 else scaled.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(sound, wanted, atol=1e-6)


@pytest.mark.parametrize(
    "convert",
    [
        lambda pcm: pcm.astype(np.float64),
        lambda pcm: pcm.astype(">f4"),
        lambda pcm: pcm.tolist(),
        lambda pcm: tuple(pcm.tolist()),
        lambda pcm: pcm[:, None],
        lambda pcm: np.repeat(pcm, 2)[::2],
    ],
    ids=["float64", "swapped", "list", "tuple", "column", "strided"],
)
def test_the_same_numbers_in_another_form_are_the_same_sound(convert: Any) -> None:
    pcm = tone(1.2, 16_000)
    heard, _ = both_forms(convert(pcm), 16_000)
    np.testing.assert_array_equal(heard, pcm)


def test_swapped_int16_is_taken() -> None:
    samples = (tone(1.0, 16_000) * 32767).astype(np.int16)
    heard, _ = both_forms(samples.astype(">i2"), 16_000)
    np.testing.assert_array_equal(heard, samples.astype(np.float32) / 32768)


@pytest.mark.parametrize("channels", [2, 4])
def test_channels_that_cancel_out_are_heard_by_both(channels: int) -> None:
    pcm = tone(1.5, 16_000)
    samples = np.stack([pcm, -pcm] * (channels // 2), axis=1)
    heard, sound = both_forms(samples, 16_000)
    np.testing.assert_array_equal(heard, pcm)
    np.testing.assert_array_equal(sound[:, 0], pcm)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros(9, np.int32), "audio of type int32; allowed: int16, float32 and float64"),
        (np.zeros(9, np.uint8), "audio of type uint8"),
        (np.zeros(9, bool), "audio of type bool"),
        (np.zeros(9, np.complex64), "audio of type complex64"),
        ([1, 2, 3], "audio of type int64"),
        ([[0.0], [0.0, 0.1]], "no array of numbers"),
        (["a", "b"], "audio of type <U1"),
        ({"a": 1}, "audio of type dict"),
        (None, "audio of type NoneType"),
        (5, "audio of type int64"),
        (0.5, r"shape \(\)"),
        ([], r"shape \(0,\)"),
        (np.zeros((2, 2, 2), np.float32), r"shape \(2, 2, 2\)"),
        (np.zeros((2, 48_000), np.float32), r"shape \(2, 48000\), which is 48000 channels"),
        ([0.0, float("nan")], "nan"),
        (np.full(9, 1e300), "size inf"),
        (np.full(9, 30_000.0), "size 30000"),
    ],
)
def test_what_is_no_sound_is_one_line(samples: object, message: str) -> None:
    with pytest.raises(InvalidInput, match=message) as caught:
        PcmRecording(samples, 16_000)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("rate_hz", [10, 1_000_000])
def test_an_impossible_rate_is_refused(rate_hz: int) -> None:
    with pytest.raises(InvalidInput, match=f"a sample rate of {rate_hz} Hz"):
        PcmRecording([0.0] * 100, rate_hz)


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_sound_for_people_is_clipped_where_it_is_too_loud(channels: int) -> None:
    loud = np.repeat(3 * tone(1.0, 16_000)[:, None], channels, axis=1).astype(np.float32)
    _, sound = both_forms(loud, 16_000)
    assert np.abs(sound).max() == 1
