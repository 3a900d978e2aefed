"""Raw audio of a request; the oracle is the spectrogram of the whole of it."""

from pathlib import Path

import numpy as np
import pytest

from lipwire.audio import AudioEncoder, extract_windows
from lipwire.avatars import read_package
from lipwire.domain import InvalidInput
from lipwire.serving import RawAudio, windows_from_raw

SAMPLES = np.random.default_rng(3).integers(-9000, 9000, (68_801, 1)).astype(np.int16)
FRAMES = 108
"""What they are long: the last is begun."""


@pytest.fixture(scope="module")
def encoder(package_template: Path) -> AudioEncoder:
    path = read_package(package_template).encoder_path
    assert path is not None
    return AudioEncoder.open(path)


@pytest.mark.parametrize(("first", "count"), [(0, 1), (40, 12), (100, 8), (107, 1), (0, FRAMES)])
def test_windows_are_those_of_the_whole_audio_bit_for_bit(
    encoder: AudioEncoder, first: int, count: int
) -> None:
    whole = extract_windows((SAMPLES[:, 0] / 32768).astype(np.float32), encoder)
    assert len(whole) == FRAMES
    heard = windows_from_raw(RawAudio(SAMPLES, 16_000, first), count, encoder)
    np.testing.assert_array_equal(heard, whole[first : first + count])


@pytest.mark.parametrize(
    ("first", "count", "wanted"), [(108, 1, "frame 108"), (100, 9, "frames 100 to 108")]
)
def test_audio_that_ends_before_its_frames_is_refused(
    encoder: AudioEncoder, first: int, count: int, wanted: str
) -> None:
    with pytest.raises(InvalidInput, match=f"108 frames of 40 ms long; asked for are its {wanted}"):
        windows_from_raw(RawAudio(SAMPLES, 16_000, first), count, encoder)
