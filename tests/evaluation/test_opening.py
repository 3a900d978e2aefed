"""Measuring how far a mouth is open."""

import numpy as np
import pytest

from lipwire.domain import CropRect
from lipwire.evaluation import Interior
from lipwire.evaluation.opening import interior_mask, loudness, openings, pauses

SKIN, LIP, DARK, TOOTH = (150, 175, 215), (110, 120, 200), (15, 12, 30), (215, 220, 222)
BOX = CropRect(20, 20, 60, 60)


def face(gap: int, teeth: int = 0) -> np.ndarray:
    picture = np.full((80, 80, 3), SKIN, np.uint8)
    picture[30:34, 20:60] = LIP
    picture[34 : 34 + gap, 24:56] = DARK
    picture[34 : 34 + teeth, 24:56] = TOOTH
    picture[34 + gap : 40 + gap, 20:60] = LIP
    return picture


@pytest.mark.parametrize(("gap", "teeth"), [(0, 0), (6, 0), (12, 5), (12, 12)])
def test_the_opening_is_the_height_of_what_is_neither_lip_nor_skin(gap: int, teeth: int) -> None:
    pictures = np.stack([face(gap, teeth)])

    assert openings(pictures, BOX, Interior()) == pytest.approx([gap])


def test_only_the_mouth_box_is_looked_at() -> None:
    picture = face(0)
    picture[:19] = DARK
    picture[61:] = TOOTH

    assert openings(picture[None], BOX, Interior()) == pytest.approx([0])
    assert interior_mask(picture, Interior())[:19].all()


def test_loudness_is_decibels_above_a_floor() -> None:
    pcm = np.zeros(640 * 4, np.float32)
    pcm[:640], pcm[640:1280] = 0.5, 0.05

    np.testing.assert_allclose(loudness(pcm, 4, 640), [45, 25, 0, 0], atol=0.1)


def test_pauses_keep_their_distance_from_sound() -> None:
    levels = np.full(40, 30, np.float32)
    levels[10:25] = 0
    levels[35:] = 0
    levels[0:2] = 0

    assert pauses(levels) == [(13, 22)]
    noisy = levels + np.random.default_rng(0).uniform(12, 15, 40).astype(np.float32)
    assert pauses(noisy) == [(13, 22)]
    assert pauses(np.full(40, 44, np.float32)) == []
    assert pauses(np.zeros(9, np.float32)) == [(0, 9)]
