import numpy as np
import pytest

from lipwire.session.live.crossfade import Crossfade

A, B = np.zeros(1, np.uint8), np.ones(1, np.uint8)


def test_a_mouth_opens_and_closes_in_steps() -> None:
    crossfade = Crossfade(2)
    opens = [crossfade.toward(1.0, A)[1] for _ in range(4)]
    assert opens == pytest.approx([1 / 3, 2 / 3, 1, 1])
    closes = [crossfade.toward(0.0) for _ in range(4)]
    assert [weight for _, weight in closes] == pytest.approx([2 / 3, 1 / 3, 0, 0])
    assert [mouth for mouth, _ in closes] == [A, A, None, None]
    assert crossfade.closed


def test_the_last_mouth_is_kept_for_frames_without_one() -> None:
    crossfade = Crossfade(0)
    assert crossfade.toward(1.0, A) == (A, 1)
    assert crossfade.toward(1.0, B) == (B, 1)
    assert crossfade.toward(1.0) == (B, 1)


def test_without_any_mouth_nothing_is_shown() -> None:
    crossfade = Crossfade(2)
    assert crossfade.toward(1.0) == (None, 0)
    mouth, weight = crossfade.toward(1.0, A)
    assert mouth is A
    assert weight == pytest.approx(2 / 3)


def test_a_mouth_that_was_closed_is_not_shown_again() -> None:
    crossfade = Crossfade(0)
    crossfade.toward(1.0, A)
    crossfade.toward(0.0)
    assert crossfade.toward(1.0) == (None, 0)


def test_it_can_begin_anew() -> None:
    crossfade = Crossfade(2)
    crossfade.toward(1.0, A)
    crossfade.reset()
    assert crossfade.closed
    assert crossfade.toward(0.0) == (None, 0)
