"""What autoscalers ask for."""

import pytest

from lipwire.domain import InvalidInput
from lipwire.planning.autoscaling import Autoscaler, ScalingRules, hpa, keda


def scaler(**changes: float | int) -> Autoscaler:
    return Autoscaler(ScalingRules("hpa", **({"target": 1.0} | changes)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("current", "total", "wanted"),
    [
        (4, 4.0, 4),
        (4, 4.4, 4),  # within a tenth
        (4, 4.41, 5),
        (4, 8.0, 8),  # twice the target: twice as many
        (10, 90.0, 20),  # twice as many at a time
        (2, 90.0, 6),  # or four more
    ],
)
def test_servers_are_added_in_proportion(current: int, total: float, wanted: int) -> None:
    assert scaler().wanted(current, total, now=0.0) == wanted


def test_there_are_never_more_than_may_be() -> None:
    assert scaler(most=5).wanted(4, 100.0, now=0.0) == 5


def test_one_goes_when_nobody_wanted_it_for_a_window() -> None:
    scaling = scaler(stabilisation_s=600.0, down_every_s=300.0)
    assert scaling.wanted(10, 10.0, now=0.0) == 10
    assert [scaling.wanted(10, 2.0, now=now) for now in (300.0, 600.0)] == [10, 10]
    assert scaling.wanted(10, 2.0, now=615.0) == 9
    assert scaling.wanted(9, 2.0, now=630.0) == 9
    assert scaling.wanted(9, 2.0, now=915.0) == 8


def test_the_last_stays() -> None:
    scaling = scaler(least=1, stabilisation_s=0.0, down_every_s=0.0)
    assert scaling.wanted(1, 0.0, now=1.0) == 1


def test_keda_sees_newer_numbers() -> None:
    assert keda().age_s < hpa().age_s
    assert keda(target=0.3, start_s=5).start_s == 5


@pytest.mark.parametrize(
    "changes",
    [
        {"target": 0.0},
        {"poll_s": 0.0},
        {"age_s": -1.0},
        {"stabilisation_s": -1.0},
        {"down_every_s": float("nan")},
        {"least": 3, "most": 2},
    ],
)
def test_rules_out_of_range_are_refused(changes: dict[str, float]) -> None:
    with pytest.raises(InvalidInput, match="allowed"):
        scaler(**changes)
