import numpy as np
import pytest

from lipwire.audio import frame_count
from lipwire.audio.pcm import check_pcm, from_int16, to_int16
from lipwire.domain import InvalidInput


@pytest.mark.parametrize(
    ("samples", "frames"), [(0, 1), (1, 1), (640, 1), (641, 2), (1280, 2), (16_000, 25)]
)
def test_frames_cover_the_audio_and_there_is_always_one(samples: int, frames: int) -> None:
    assert frame_count(samples) == frames


def test_a_negative_length_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"-1 samples; allowed: 0 or more"):
        frame_count(-1)


@pytest.mark.parametrize(
    ("pcm", "message"),
    [
        (np.zeros((4, 2), np.float32), r"shape \(4, 2\) and type float32"),
        (np.zeros(4), "type float64"),
        (np.zeros(4, np.int16), "type int16"),
        (np.array([0, np.nan, np.inf], np.float32), "2 samples that are NaN or infinite"),
        ([0.0], "given as list"),
    ],
)
def test_what_is_no_pcm_is_named(pcm: np.ndarray, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        check_pcm(pcm)


def test_floats_become_16_bits_and_back() -> None:
    pcm = np.array([-2, -1, -0.5, 0, 1 / 32768, 0.99, 1, 2], np.float32)
    samples = to_int16(pcm)
    assert samples.dtype == np.dtype("<i2")
    assert samples.tolist() == [-32768, -32768, -16384, 0, 1, 32440, 32767, 32767]
    back = from_int16(samples.tobytes())
    assert back.dtype == np.float32
    np.testing.assert_allclose(back, pcm.clip(-1, 1), atol=1 / 32768)
