from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.examples import examples

from lipwire.audio import StreamResampler
from lipwire.domain import Float32Array, InvalidInput

RATES = [8000, 11_025, 22_050, 24_000, 32_000, 44_100, 48_000, 96_000]


def resampled(resampler: StreamResampler, pcm: npt.NDArray[np.generic], step: int) -> Float32Array:
    pieces = [resampler.push(pcm[i : i + step]) for i in range(0, len(pcm), step)]  # type: ignore[arg-type]
    return np.concatenate([*pieces, resampler.flush()])


def tone(rate_hz: int, seconds: float = 1.0) -> Float32Array:
    time_s = np.arange(int(rate_hz * seconds)) / rate_hz
    return (0.5 * np.sin(2 * np.pi * 440 * time_s)).astype(np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("rate_hz", RATES)
@pytest.mark.parametrize("step", [441, 7, 5000])
def test_pieces_give_the_bits_of_soxr_on_the_whole(
    make_speech: Callable[..., Float32Array], rate_hz: int, step: int
) -> None:
    pcm = make_speech(0.7, rate_hz)
    np.testing.assert_array_equal(
        resampled(StreamResampler(rate_hz), pcm, step),
        soxr.resample(pcm, rate_hz, 16_000, quality="HQ"),
        strict=True,
    )


@settings(max_examples=examples(30), deadline=None)
@given(cuts=st.lists(st.integers(0, 20_000), max_size=12), channels=st.sampled_from([1, 2, 6, 8]))
def test_any_cuts_give_the_same_bits(cuts: list[int], channels: int) -> None:
    pcm = np.random.default_rng(1).uniform(-0.5, 0.5, (20_000, channels)).astype(np.float32)
    whole = resampled(StreamResampler(44_100, channels), pcm, len(pcm))
    resampler = StreamResampler(44_100, channels)
    pieces = [resampler.push(piece) for piece in np.split(pcm, sorted(cuts))]
    np.testing.assert_array_equal(np.concatenate([*pieces, resampler.flush()]), whole)


@pytest.mark.parametrize("rate_hz", RATES)
def test_a_tone_keeps_its_pitch_and_place(rate_hz: int) -> None:
    out = resampled(StreamResampler(rate_hz), tone(rate_hz), 1000)
    assert len(out) == 16_000
    np.testing.assert_allclose(out[500:-500], tone(16_000)[500:-500], atol=2e-3)


def test_audio_of_the_right_rate_passes_unchanged() -> None:
    pcm = tone(16_000)
    np.testing.assert_array_equal(resampled(StreamResampler(16_000), pcm, 333), pcm, strict=True)


def test_channels_are_averaged() -> None:
    pcm = np.stack([tone(16_000), np.zeros(16_000, np.float32)], axis=1)
    out = resampled(StreamResampler(16_000, 2), pcm, 100)
    np.testing.assert_array_equal(out, tone(16_000) / 2)


def test_integers_mean_what_floats_mean() -> None:
    pcm = np.array([0, 1, -1, 32767, -32768], np.int16)
    out = resampled(StreamResampler(16_000), pcm, 2)
    np.testing.assert_array_equal(out, pcm.astype(np.float32) / 32768, strict=True)


def test_overshoot_is_clipped() -> None:
    square = np.sign(tone(48_000)).astype(np.float32)
    out = resampled(StreamResampler(48_000), square, 480)
    assert np.abs(out).max() == 1.0


def test_output_runs_behind_by_no_more_than_stated() -> None:
    for rate_hz, stated_ms in [
        (16_000, 0),
        (24_000, 37),
        (48_000, 37),
        (44_100, 40.5),
        (8000, 116),
    ]:
        resampler = StreamResampler(rate_hz)
        step, given, got = rate_hz // 100, 0.0, 0
        for _ in range(200):
            got += len(resampler.push(np.zeros(step, np.float32)))
            given += step
            assert given / rate_hz * 1000 - got / 16 <= stated_ms


def test_nothing_pushed_is_nothing() -> None:
    assert len(StreamResampler(44_100).flush()) == 0
    assert len(StreamResampler(16_000).flush()) == 0


def test_a_stream_ends_once_and_begins_again_after_reset() -> None:
    resampler = StreamResampler(48_000)
    first = resampled(resampler, tone(48_000), 4800)
    with pytest.raises(InvalidInput, match="after the end"):
        resampler.push(tone(48_000))
    with pytest.raises(InvalidInput, match="flushed already"):
        resampler.flush()
    resampler.reset()
    np.testing.assert_array_equal(resampled(resampler, tone(48_000), 4800), first)


@pytest.mark.parametrize(
    ("pcm", "message"),
    [
        (np.zeros((4, 2), np.float32), r"shape \(4, 2\); allowed: \(samples,\)"),
        (np.zeros(4), "type float64; allowed: int16 or float32"),
        (np.array([0, np.nan], np.float32), "size nan; allowed: finite"),
        (np.array([0, -np.inf], np.float32), "size inf; allowed: finite"),
        (np.array([0, -20_000], np.float32), "size 20000; allowed: finite numbers, full scale"),
    ],
)
def test_other_pcm_is_refused(pcm: Float32Array, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        StreamResampler(48_000).push(pcm)


def test_mono_into_a_stereo_stream_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"shape \(8,\); allowed: \(samples, 2\)"):
        StreamResampler(48_000, 2).push(np.zeros(8, np.float32))


def test_absurd_rates_and_channels_are_refused() -> None:
    with pytest.raises(InvalidInput, match="0 Hz; allowed: 1000 to 768000"):
        StreamResampler(0)
    with pytest.raises(InvalidInput, match="65 channels; allowed: 1 to 64"):
        StreamResampler(48_000, 65)
