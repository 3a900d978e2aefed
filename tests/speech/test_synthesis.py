"""What voices have in common."""

import numpy as np

from lipwire.speech.synthesis import trimmed

RATE_HZ = 1000


def test_most_of_the_silence_round_a_sentence_goes() -> None:
    pcm = np.zeros(2000, np.float32)
    pcm[700:900] = 0.5
    kept = trimmed(pcm, RATE_HZ)
    assert (len(kept), int(np.argmax(kept))) == (60 + 200 + 300, 60)
    np.testing.assert_array_equal(kept, pcm[640:1200])


def test_where_there_is_less_silence_all_of_it_stays() -> None:
    pcm = np.full(100, 0.5, np.float32)
    np.testing.assert_array_equal(trimmed(pcm, RATE_HZ), pcm)


def test_nothing_is_left_of_silence() -> None:
    assert len(trimmed(np.full(100, 0.001, np.float32), RATE_HZ)) == 0
    assert len(trimmed(np.empty(0, np.float32), RATE_HZ)) == 0


def test_a_quiet_consonant_is_no_silence() -> None:
    pcm = np.zeros(1000, np.float32)
    pcm[300:] = 0.006
    pcm[400:500] = 0.25
    assert len(trimmed(pcm, RATE_HZ)) == 700 + 60
