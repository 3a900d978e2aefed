import wave
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from lipwire.domain import InvalidInput
from lipwire.session import Track, track_of_file, track_of_pcm


def write_wav(path: Path, samples: npt.NDArray[np.int16], rate_hz: int) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes(samples.tobytes())
    return path


def noise(channels: int, samples: int = 30_000) -> npt.NDArray[np.int16]:
    random = np.random.default_rng(channels)
    return random.integers(-20_000, 20_000, (samples, channels), dtype=np.int16)


def whole(track: Track) -> npt.NDArray[np.float32]:
    return np.concatenate(list(track.pieces))


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate_hz", [8_000, 44_100, 96_000])
def test_a_file_keeps_its_rate_channels_and_samples(
    tmp_path: Path, channels: int, rate_hz: int
) -> None:
    samples = noise(channels)
    track = track_of_file(write_wav(tmp_path / "a.wav", samples, rate_hz))
    assert (track.rate_hz, track.channels) == (rate_hz, channels)
    np.testing.assert_allclose(whole(track), samples / 32768, atol=1e-6)


def test_a_file_is_decoded_as_it_is_taken(tmp_path: Path) -> None:
    track = track_of_file(write_wav(tmp_path / "a.wav", noise(2, 400_000), 48_000))
    first = next(track.pieces)
    assert 0 < len(first) < 40_000


def test_six_channels_of_a_file_become_two(tmp_path: Path) -> None:
    track = track_of_file(write_wav(tmp_path / "a.wav", noise(6), 48_000))
    assert track.channels == 2
    assert whole(track).shape == (30_000, 2)


@pytest.mark.parametrize(("channels", "heard"), [(1, 1), (2, 2), (5, 1)])
def test_pcm_is_scaled_and_has_at_most_two_channels(channels: int, heard: int) -> None:
    samples = noise(channels)
    track = track_of_pcm(samples, 22_050)
    assert (track.rate_hz, track.channels) == (22_050, heard)
    scaled = (samples / 32768).astype(np.float32)
    expected = scaled if channels <= 2 else scaled.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(whole(track), expected, atol=1e-6)


def test_a_file_that_is_no_audio_any_more_is_an_input_error(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(b"not audio at all")
    with pytest.raises(InvalidInput, match=r"a\.wav is not audio"):
        track_of_file(path)
