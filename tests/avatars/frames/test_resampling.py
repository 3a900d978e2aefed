from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest

from lipwire.avatars.frames.resampling import on_grid
from lipwire.domain import AvatarInvalid

MS = Fraction(1, 1000)


@dataclass(frozen=True)
class Frame:
    number: int
    pts: int | None


def shown(
    times: list[int] | list[None], time_base: Fraction = MS, rate: Fraction | int = 25
) -> list[int]:
    frames = [Frame(number, pts) for number, pts in enumerate(times)]
    return [frame.number for frame in on_grid(frames, time_base, Fraction(rate), "a.mp4")]


def nearest(times_ms: list[int]) -> list[int]:
    """The rule in other words: of all frames the nearest one, for each point of the grid."""
    after_ms = np.array(times_ms) - times_ms[0]
    end_ms = Fraction(int(after_ms[-1])) * len(times_ms) / (len(times_ms) - 1)
    points = range(int(end_ms / 40 + Fraction(1, 2)))
    return [int(np.abs(after_ms - 40 * point).argmin()) for point in points]


@pytest.mark.parametrize("start", [0, 7, 133_200, -40])
@pytest.mark.parametrize(
    "time_base", [Fraction(1, 25), Fraction(1, 90_000), Fraction(1, 12_800), MS]
)
def test_25_frames_a_second_stay_as_they_are(start: int, time_base: Fraction) -> None:
    times = [start + int(number / 25 / time_base) for number in range(251)]
    assert shown(times, time_base) == list(range(251))


def test_rounded_times_change_nothing() -> None:
    jitter = np.random.default_rng(0).integers(-9, 10, 200)
    assert shown([40 * n + int(off) for n, off in enumerate(jitter)]) == list(range(200))


@pytest.mark.parametrize("rate", [10, 15, 24, 30, 48, 50, 60, 120])
def test_other_rates_are_the_nearest_frame_in_time(rate: int) -> None:
    times = [round(1000 * number / rate) for number in range(3 * rate)]
    assert shown(times) == nearest(times)
    assert len(shown(times)) == 75


def test_twice_the_rate_is_every_second_frame() -> None:
    assert shown([20 * number for number in range(100)]) == list(range(0, 100, 2))


def test_of_two_equally_near_ones_the_earlier_is_shown() -> None:
    assert shown([0, 80, 160]) == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("seed", range(5))
def test_a_variable_rate(seed: int) -> None:
    random = np.random.default_rng(seed)
    times = [0, *np.cumsum(random.integers(5, 300, 60)).tolist()]
    assert shown(times) == nearest(times)


def test_a_hole_is_filled_with_the_frames_beside_it() -> None:
    assert shown([0, 40, 80, 480, 520, 560]) == [0, 1, *[2] * 6, *[3] * 5, 4, 5, 5, 5]


def test_without_times_the_rate_counts() -> None:
    assert shown([None] * 60, rate=50) == list(range(0, 60, 2))
    assert shown([None] * 60, rate=25) == list(range(60))


def test_times_that_stand_still_or_go_back_go_on_at_the_rate() -> None:
    assert shown([0, 40, 40, 120]) == [0, 1, 2, 3]
    assert shown([0, 40, 80, 0, 40, 80]) == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("times", [[5], [None]])
def test_one_frame_is_one_frame(times: list[int]) -> None:
    assert shown(times) == [0]


def test_a_leap_of_hours_is_refused() -> None:
    with pytest.raises(
        AvatarInvalid,
        match=r"^a\.mp4 has 3600 seconds between its frames 1 and 2; at most 60 are allowed, so",
    ):
        shown([0, 40, 3_600_040])


def test_nothing_is_nothing() -> None:
    assert shown([]) == []
