import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.examples import examples

from lipwire.audio import LOOKAHEAD_MS, AudioEncoder, extract_windows, frame_count
from lipwire.audio.earlywindows import EarlyWindowStream
from lipwire.domain import Float32Array, InvalidInput


def noise(samples: int) -> Float32Array:
    return (0.1 * np.random.default_rng(samples).standard_normal(samples)).astype(np.float32)


def streamed(
    encoder: AudioEncoder, pcm: Float32Array, lookahead_ms: float, step: int
) -> tuple[Float32Array, list[int]]:
    """All windows, and how many were there after each push."""
    stream = EarlyWindowStream(encoder, lookahead_ms)
    parts, counts = [], []
    for start in range(0, len(pcm), step):
        parts.append(stream.push(pcm[start : start + step]))
        counts.append(sum(map(len, parts)))
    parts.append(stream.flush())
    return np.concatenate(parts), counts


@pytest.mark.parametrize("step", [160, 321, 5000, 100_000])
@pytest.mark.parametrize("samples", [1, 639, 3000, 20_000])
def test_with_all_of_the_look_ahead_nothing_is_guessed(
    encoder: AudioEncoder, samples: int, step: int
) -> None:
    pcm = noise(samples)
    windows, _ = streamed(encoder, pcm, LOOKAHEAD_MS, step)
    np.testing.assert_array_equal(windows, extract_windows(pcm, encoder))


@given(
    samples=st.integers(1, 12_000),
    step=st.integers(50, 3000),
    lookahead_ms=st.floats(0, LOOKAHEAD_MS),
)
@settings(max_examples=examples(25), deadline=None)
def test_every_frame_has_one_window_in_time(
    encoder: AudioEncoder, samples: int, step: int, lookahead_ms: float
) -> None:
    windows, counts = streamed(encoder, noise(samples), lookahead_ms, step)
    assert len(windows) == frame_count(samples)
    ahead = round(lookahead_ms * 16)
    for pushed, count in enumerate(counts, 1):
        there = min(pushed * step, samples)
        began = (there - ahead) // 640 + 1 if there >= ahead else 0
        assert count >= min(began, frame_count(there))


def test_what_is_not_known_is_guessed_from_the_last_column(encoder: AudioEncoder) -> None:
    """A steady sound goes on as it was, so the guess is right; what changes is not foreseen."""
    steady = np.zeros(16_000, np.float32)
    windows, _ = streamed(encoder, steady, 0, 320)
    until = 25 - 8  # what follows hears the end of the recording
    np.testing.assert_allclose(windows[:until], extract_windows(steady, encoder)[:until], atol=1e-5)

    spoken = np.concatenate([noise(8000), np.zeros(8000, np.float32)])
    whole = extract_windows(spoken, encoder)
    early, _ = streamed(encoder, spoken, 100, 320)
    assert not np.allclose(early[10], whole[10], atol=1e-3)
    np.testing.assert_array_equal(early[-1], whole[-1])


def test_less_is_guessed_with_more_look_ahead(encoder: AudioEncoder) -> None:
    pcm = noise(16_000)
    whole = extract_windows(pcm, encoder)
    errors = [
        float(np.abs(streamed(encoder, pcm, lookahead_ms, 320)[0] - whole).mean())
        for lookahead_ms in (0, 200, 400, LOOKAHEAD_MS)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] == 0


def test_reset_begins_anew(encoder: AudioEncoder) -> None:
    stream = EarlyWindowStream(encoder, 100)
    first = np.concatenate([stream.push(noise(5000)), stream.flush()])
    stream.reset()
    np.testing.assert_array_equal(np.concatenate([stream.push(noise(5000)), stream.flush()]), first)


@pytest.mark.parametrize("lookahead_ms", [-1, 453, float("nan")])
def test_another_look_ahead_is_refused(encoder: AudioEncoder, lookahead_ms: float) -> None:
    with pytest.raises(InvalidInput, match=r"lookahead_ms is .*; allowed are 0 to 452.5"):
        EarlyWindowStream(encoder, lookahead_ms)
