import numpy as np
import pytest

from lipwire.audio import CHUNK_SAMPLES, VoiceDetector


def test_each_whole_chunk_has_a_probability() -> None:
    detector = VoiceDetector()
    pcm = np.random.default_rng(0).normal(0, 0.1, 2_000).astype(np.float32)
    assert [len(detector.push(pcm[at : at + 300])) for at in range(0, 2_000, 300)] == [
        0, 1, 0, 1, 0, 1, 0,
    ]  # fmt: skip


def test_probabilities_do_not_depend_on_the_pieces() -> None:
    pcm = np.random.default_rng(0).normal(0, 0.1, 10 * CHUNK_SAMPLES).astype(np.float32)
    whole = VoiceDetector().push(pcm)
    detector = VoiceDetector()
    pieces = [
        probability
        for at in range(0, len(pcm), 77)
        for probability in detector.push(pcm[at : at + 77])
    ]
    assert pieces == whole
    assert all(0 <= probability <= 1 for probability in whole)


@pytest.mark.parametrize("level", [0.0, 1e-4])
def test_silence_is_no_speech(level: float) -> None:
    assert VoiceDetector().push(np.full(5 * CHUNK_SAMPLES, level, np.float32)) == [0.0] * 5
