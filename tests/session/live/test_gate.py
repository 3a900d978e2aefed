from collections.abc import Callable
from importlib.resources import as_file, files

import numpy as np
import pytest

from lipwire.audio import decode_audio
from lipwire.domain import Float32Array
from lipwire.session.live.gate import SpeechGate

RATE_HZ = 16_000
FRAME = 640
LOOKAHEAD = 7240
NOISE_S = 4


def weights(pcm: Float32Array, *, crossfade: int = 2, lookahead: int = LOOKAHEAD) -> Float32Array:
    """The weight of each frame, each taken as soon as its look-ahead is known."""
    gate = SpeechGate(crossfade_frames=crossfade, lookahead_samples=lookahead)
    found: list[float] = []
    for first in range(0, len(pcm), 320):
        gate.push(pcm[first : first + 320])
        known = max(0, (min(first + 320, len(pcm)) - lookahead) // FRAME + 1)
        found += gate.weights(known - len(found))
    found += gate.weights(-(-len(pcm) // FRAME) - len(found))
    return np.array(found, np.float32)


def levels_db(pcm: Float32Array) -> Float32Array:
    """The level of each whole frame, below full scale."""
    frames = pcm[: len(pcm) // FRAME * FRAME].reshape(-1, FRAME)
    found: Float32Array = 20 * np.log10(np.sqrt((frames**2).mean(axis=1)) + 1e-6)
    return found


@pytest.fixture(scope="module")
def speech() -> Float32Array:
    with as_file(files("lipwire") / "assets" / "speech" / "sample.flac") as path:
        return decode_audio(path)


def hum(hz: float) -> Float32Array:
    times_s = np.arange(NOISE_S * RATE_HZ) / RATE_HZ
    found: Float32Array = sum(
        0.1 / k * np.sin(2 * np.pi * hz * k * times_s) for k in range(1, 10)
    ).astype(np.float32)  # type: ignore[union-attr]
    return found


def noise(db: float) -> Float32Array:
    return np.random.default_rng(0).normal(0, 10 ** (db / 20), NOISE_S * RATE_HZ).astype(np.float32)


def tone() -> Float32Array:
    times_s = np.arange(NOISE_S * RATE_HZ) / RATE_HZ
    return (0.25 * np.sin(2 * np.pi * 440 * times_s)).astype(np.float32)


@pytest.mark.slow
@pytest.mark.parametrize(
    "sound",
    [
        lambda: np.zeros(NOISE_S * RATE_HZ, np.float32),
        lambda: hum(50),
        lambda: hum(120),
        lambda: noise(-30),
        lambda: noise(-20),
        tone,
    ],
    ids=["silence", "50 Hz", "120 Hz", "-30 dB", "-20 dB", "440 Hz"],
)
def test_the_mouth_rests_where_nobody_speaks(sound: Callable[[], Float32Array]) -> None:
    found = weights(np.clip(sound(), np.float32(-1), np.float32(1)))
    assert len(found) == 25 * NOISE_S
    assert not found[8:].any()


@pytest.mark.slow
def test_speech_is_shown_in_full(speech: Float32Array) -> None:
    found = weights(speech)
    loud = np.flatnonzero(levels_db(speech) > -35)
    assert len(loud) > 200
    assert (found[loud] == 1).mean() > 0.97


@pytest.mark.slow
def test_speech_in_noise_is_shown_in_full(speech: Float32Array) -> None:
    hiss = np.random.default_rng(1).normal(0, 0.01, len(speech)).astype(np.float32)
    loud = np.flatnonzero(levels_db(speech) > -30)
    assert (weights(speech + hiss)[loud] == 1).mean() > 0.97


@pytest.mark.slow
def test_the_mouth_opens_before_the_voice_and_closes_behind_it(speech: Float32Array) -> None:
    silence = np.zeros(2 * RATE_HZ, np.float32)
    pcm = np.concatenate([silence, speech, silence])
    found = np.flatnonzero(weights(pcm))
    loud = np.flatnonzero(levels_db(pcm) > -35)
    assert 2 <= loud[0] - found[0] <= 10
    assert 2 <= found[-1] - loud[-1] <= 25


@pytest.mark.slow
@pytest.mark.parametrize("crossfade", [2, 0, 6])
def test_weights_change_by_one_step_a_frame(speech: Float32Array, crossfade: int) -> None:
    found = weights(speech, crossfade=crossfade)
    assert np.abs(np.diff(found, prepend=0)).max() <= 1 / (crossfade + 1) + 1e-6
    assert found.min() == 0
    assert found.max() == 1


@pytest.mark.slow
def test_weights_do_not_depend_on_the_pieces(speech: Float32Array) -> None:
    gate = SpeechGate(crossfade_frames=2, lookahead_samples=LOOKAHEAD)
    gate.push(speech)
    frames = -(-len(speech) // FRAME)
    np.testing.assert_array_equal(np.array(gate.weights(frames), np.float32), weights(speech))
