"""A mouth that stays shut under loud sound is noticed, and others are not."""

from pathlib import Path

import numpy as np
import pytest

from lipwire.api import open_avatar
from lipwire.domain import Float32Array


def tone(hz: float, seconds: float = 2.0, rate_hz: int = 48_000) -> Float32Array:
    times_s = np.arange(int(seconds * rate_hz)) / rate_hz
    return (0.4 * np.sin(2 * np.pi * hz * times_s)).astype(np.float32)


def word_in_silence() -> Float32Array:
    pcm = np.zeros(48_000 * 5, np.float32)
    pcm[100_000:110_000] = tone(300)[:10_000]
    return pcm


@pytest.mark.parametrize(
    ("pcm", "warned"),
    [
        (tone(12_000), True),  # people hear it, the network does not
        pytest.param(tone(300), False, marks=pytest.mark.slow),
        pytest.param(word_in_silence(), False, marks=pytest.mark.slow),
        pytest.param(np.zeros(96_000, np.float32), False, marks=pytest.mark.slow),
        pytest.param(tone(12_000) * np.float32(1e-3), False, marks=pytest.mark.slow),
        # Nobody hears a constant.
        pytest.param(np.full(96_000, 0.4, np.float32), False, marks=pytest.mark.slow),
        pytest.param(np.stack([tone(300), -tone(300)], axis=1), False, marks=pytest.mark.slow),
        (tone(12_000, 0.4), False),  # too short to tell
    ],
    ids=["high", "speech", "word", "silence", "soft", "constant", "inverted", "short"],
)
def test_loud_sound_that_the_network_takes_for_silence_is_warned_about(
    avatar_package: Path, tmp_path: Path, pcm: Float32Array, warned: bool
) -> None:
    with open_avatar(avatar_package) as avatar:
        results = (
            avatar.render(pcm, tmp_path / "out.mp4", rate_hz=48_000),
            avatar.render_frames(pcm, tmp_path / "frames", rate_hz=48_000),
        )
    for result in results:
        assert len(result.warnings) == warned
        assert not warned or "mouth stays shut throughout" in result.warnings[0]
