"""When speech begins, by how long mouths have taken."""

import numpy as np
import pytest

from lipwire.session.live.hearing import SpeechPiece
from lipwire.session.live.planning import Planning
from lipwire.session.live.settings import SessionSettings
from lipwire.session.live.spoken import Speech

COMPOSE_S = 0.005


def planned_s(planning: Planning) -> float:
    """For how long after it was heard speech that was prepared begins."""
    speech = Speech(1)
    speech.came(SpeechPiece(np.zeros(16_000, np.float32), 16_000), 10.0)
    return planning.begins_s(speech, 10.0) - 10.0 - COMPOSE_S


@pytest.mark.parametrize(
    ("took_s", "planned"),
    [
        ((), 0.03 * 1.15),  # nothing is known
        ((0.2,), 0.2 * 1.15),  # one is no deviation from a guess
        ((0.04,) * 50, 0.04 * 1.15),
        ((0.04, 0.06) * 50, 0.05 + 0.02),  # varies by 10 ms in the mean: two of that, about
        ((0.04, 0.6) * 50, 0.35 + 0.08),  # but no more than two frames
    ],
)
def test_a_mouth_is_given_its_time_and_what_it_varies_by(
    took_s: tuple[float, ...], planned: float
) -> None:
    planning = Planning(SessionSettings())
    for seconds in took_s:
        planning.took(seconds, 1)
    assert planned_s(planning) == pytest.approx(planned, rel=0.15, abs=1e-4)


def test_what_earlier_sessions_found_counts_as_measured() -> None:
    planning = Planning(SessionSettings(), 0.1)
    assert planned_s(planning) == pytest.approx(0.115)
    planning.took(0.05, 1)
    assert planned_s(planning) > 0.09


def test_a_mouth_that_was_tried_for_is_all_that_is_known() -> None:
    planning = Planning(SessionSettings())
    for _ in range(20):
        planning.took(0.5, 1)
    assert planning.took(0.01, 1, tried=True) == pytest.approx(0.01)


def test_two_are_asked_for_where_one_takes_about_a_frame() -> None:
    planning = Planning(SessionSettings())
    assert planning.most_in_hand == 1
    planning.took(0.05, 1)
    assert planning.most_in_hand == 2
