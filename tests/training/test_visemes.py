"""The table of phones."""

import numpy as np
import pytest

from lipwire.domain import InvalidInput
from lipwire.training.visemes import ARPABET, CONTROLS, POSES, aperture, letters


def test_every_target_is_between_0_and_1() -> None:
    for letter, pose in POSES.items():
        for name in CONTROLS:
            assert 0 <= getattr(pose, name) <= 1, (letter, name)
        assert min(pose.jaw, pose.lips) > 0, letter


def test_every_arpabet_phone_has_a_pose() -> None:
    for phone, ipa in ARPABET.items():
        assert letters(ipa), phone


@pytest.mark.parametrize(
    ("phone", "expected"),
    [
        ("", ("",)),
        ("aɪ", ("a", "ɪ")),
        ("iː", ("i",)),
        ("tʃ", ("ʃ",)),
        ("dʒ", ("ʒ",)),
        ("pf", ("p", "f")),
        ("ɔ̃", ("ɔ",)),
        ("g", ("ɡ",)),
        ("ː", ()),
    ],
)
def test_phones_come_apart_into_letters(phone: str, expected: tuple[str, ...]) -> None:
    assert letters(phone) == expected


def test_a_letter_without_a_pose_is_named() -> None:
    with pytest.raises(InvalidInput, match="'☃'"):
        letters("a☃")


def test_aperture() -> None:
    rest, open_, sealed = [0, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0], [1, 0, 0, 1, 0, 0]
    bitten, narrow = [1, 0, 0, 0, 1, 0], [1, 0, 1, 0, 0, 0]
    gaps = aperture([rest, open_, sealed, bitten, narrow])
    assert gaps == pytest.approx([0, 1, 0, 0.25, 0.7])
    assert gaps.dtype == np.float32
