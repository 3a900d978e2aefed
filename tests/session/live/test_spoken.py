import numpy as np
import pytest

from lipwire.session.live.hearing import Heard, SpeechPiece
from lipwire.session.live.spoken import Made, Speech


def heard(weights: list[float], samples: int, *, level: float = 0.5, ahead_s: float = 0.0) -> Heard:
    windows = np.zeros((len(weights), 32, 16, 16), np.float32)
    return Heard(windows, weights, np.full(samples, level, np.float32), ahead_s)


def test_frames_are_counted_and_those_that_speak_wait_for_mouths() -> None:
    speech = Speech(1)
    speech.take_in(heard([0, 0.5, 1], 100))
    speech.take_in(heard([1, 0], 0))
    assert speech.heard == 5
    assert [number for number, _ in speech.waiting] == [1, 2, 3]
    assert all(window.shape == (1, 32, 16, 16) for _, window in speech.waiting)
    assert [speech.weight(number) for number in range(5)] == [0, 0.5, 1, 1, 0]


def test_sound_is_taken_across_the_pieces_it_came_in() -> None:
    speech = Speech(1)
    for level in (0.25, 0.5, 0.75):
        speech.take_in(heard([1], 3, level=level))
    assert speech.has_sound(9)
    assert not speech.has_sound(10)
    assert speech.take(0, 4)[0].tolist() == [0.25] * 3 + [0.5]
    assert speech.take(1, 4)[0].tolist() == [0.5] * 2 + [0.75] * 2
    speech.total = 3
    assert speech.has_sound(4)
    assert speech.take(2, 4)[0].tolist() == [0.75, 0, 0, 0]
    assert speech.spoken_samples == 9


def test_what_was_shown_is_forgotten() -> None:
    speech = Speech(1)
    speech.take_in(heard([0.25, 0.5, 1], 30))
    made = speech.made[1] = Made()
    assert speech.take(0, 10)[1] is None
    assert speech.take(1, 10)[1] is made
    assert not speech.made
    assert speech.heard == 3
    assert speech.weight(2) == 1


@pytest.mark.parametrize(("levels", "quiet"), [((0.0, 0.01), True), ((0.001, 0.02), False)])
def test_quiet_sound_is_told(levels: tuple[float, ...], quiet: bool) -> None:
    speech = Speech(1)
    for level in levels:
        speech.take_in(heard([1], 5, level=level))
    assert speech.is_quiet(5)
    assert speech.is_quiet(10) == quiet
    assert not speech.is_quiet(11)


def test_the_greatest_look_ahead_and_the_last_audio_are_kept() -> None:
    speech = Speech(1)
    speech.came(SpeechPiece(np.zeros(160, np.float32), 16_000), 3.0)
    speech.came(SpeechPiece(np.zeros((80, 2), np.int16), 8_000), 4.0)
    assert speech.come_s == pytest.approx(0.02)
    assert speech.waited_s == 4
    for ahead_s in (0.01, 0.03, 0.02):
        speech.take_in(heard([], 0, ahead_s=ahead_s))
    assert speech.ahead_s == 0.03
