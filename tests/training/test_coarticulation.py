"""The motion of the mouth made from phones."""

import numpy as np
import pytest

from lipwire.domain import FPS, InvalidInput
from lipwire.training.coarticulation import (
    Phone,
    closures,
    contact_interval,
    frame_times,
    mouth_track,
)
from lipwire.training.visemes import BITE, OPEN, PRESS, ROUND, SILENCE, TONGUE, WIDE, aperture


def track_of(text: str, length_s: float = 0.09, start_s: float = 0.3) -> tuple[list[Phone], float]:
    """Phones of one letter each (space: silence) after ``start_s`` of silence, and their end."""
    phones = [
        Phone(
            SILENCE if letter == " " else letter,
            start_s + k * length_s,
            start_s + (k + 1) * length_s,
        )
        for k, letter in enumerate(text)
    ]
    return phones, phones[-1].end_s


def test_silence_is_a_mouth_at_rest() -> None:
    assert not mouth_track([], frame_times(10)).any()
    assert not mouth_track([Phone(SILENCE, 0, 1)], frame_times(25)).any()


def test_the_mouth_rests_long_before_and_after_speech() -> None:
    phones, end_s = track_of("ɑimu")
    track = mouth_track(phones, [0.0, end_s + 0.3])
    assert track.max() < 0.01


@pytest.mark.slow
@pytest.mark.parametrize("letter", ["p", "b", "m"])
@pytest.mark.parametrize("length_s", [0.02, 0.05, 0.1, 0.2])
@pytest.mark.parametrize("shift_s", [0.0, 0.013, 0.027, 0.039])
def test_a_closure_seals_the_lips_and_a_frame_always_shows_it(
    letter: str, length_s: float, shift_s: float
) -> None:
    at = 0.5 + shift_s
    phones = [
        Phone("ɑ", 0.2, at),
        Phone(letter, at, at + length_s),
        Phone("ɑ", at + length_s, 0.9),
    ]
    (interval,) = closures(phones)
    assert mouth_track(phones, [sum(interval) / 2])[0, PRESS] >= 0.95
    frames = mouth_track(phones, frame_times(25))
    assert frames[:, PRESS].max() >= 0.95
    assert aperture(frames)[8:20].min() < 0.02
    assert aperture(frames).max() > 0.7  # and the vowels around it stay open


def test_a_stop_parts_the_lips_before_it_ends_and_a_nasal_does_not() -> None:
    assert contact_interval("b", 1.0, 1.2)[1] == pytest.approx(1.13)
    assert contact_interval("m", 1.0, 1.2) == (1.0, 1.2)


def test_f_bites() -> None:
    phones, _ = track_of("ɑfɑ")
    track = mouth_track(phones, [(phones[1].start_s + phones[1].end_s) / 2])
    assert track[0, BITE] >= 0.9
    assert track[0, PRESS] == 0


def test_vowels_take_their_shapes() -> None:
    def held(letter: str) -> np.ndarray:
        return mouth_track([Phone(letter, 0, 1)], [0.5])[0]

    assert held("ɑ")[OPEN] > 0.7 > 0.4 > held("ə")[OPEN] > held("u")[OPEN] > 0.1
    assert held("i")[WIDE] > 0.8 > 0 == held("i")[ROUND]
    assert held("u")[ROUND] > 0.9 > 0 == held("u")[WIDE]
    assert held("l")[TONGUE] > 0.9


def test_lips_round_before_a_round_vowel_sounds() -> None:
    phones = [Phone("k", 0.3, 0.4), Phone("u", 0.4, 0.6)]
    assert mouth_track(phones, [0.36])[0, ROUND] > 0.4


def test_motion_is_smooth_between_contacts() -> None:
    """At four samples a frame, jaw and lips change little from one sample to the next."""
    phones, end_s = track_of("ɑisuɹɛntoʊlæk" * 3, length_s=0.07)
    track = mouth_track(phones, np.arange(0, end_s + 0.3, 1 / (4 * FPS)))
    for control in (OPEN, WIDE, ROUND):
        assert np.abs(np.diff(track[:, control])).max() < 0.16
        assert np.abs(np.diff(track[:, control], 2)).max() < 0.05


def test_overlong_and_backward_phones() -> None:
    with pytest.raises(InvalidInput, match=r"ends at 0\.100 s, before its start at 0\.200 s"):
        mouth_track([Phone("a", 0.2, 0.1)], [0.0])


def test_frames_show_their_middles() -> None:
    assert frame_times(3) == pytest.approx([0.02, 0.06, 0.10])
