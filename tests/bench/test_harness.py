import gc
import time

import pytest

from lipwire.bench import compare


def test_sides_take_turns_and_change_who_begins() -> None:
    calls: list[str] = []
    compare(
        "turns",
        lambda: calls.append("a"),
        lambda: calls.append("b"),
        label_a="a",
        label_b="b",
        rounds=4,
        warmup=1,
    )
    assert "".join(calls) == "ab" + "abbaabba"


class Clock:
    """Time that passes only when somebody works."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s

    def work(self, seconds: float) -> None:
        self.now_s += seconds


def test_the_ratio_says_how_much_faster_a_is() -> None:
    clock = Clock()
    result = compare(
        "work",
        lambda: clock.work(0.002),
        lambda: clock.work(0.02),
        label_a="short",
        label_b="long",
        rounds=5,
        warmup=0,
        notes="virtual",
        clock_s=clock,
    )
    assert result.ratio == pytest.approx(10)
    assert result.median_a_ms == pytest.approx(2)
    assert result.median_b_ms == pytest.approx(20)
    assert (result.name, result.label_a, result.label_b) == ("work", "short", "long")
    assert (result.rounds, result.notes) == (5, "virtual")


def test_a_few_disturbed_rounds_do_not_move_the_ratio() -> None:
    clock = Clock()
    rounds = iter(range(100))
    result = compare(
        "hiccups",
        lambda: clock.work(0.2 if next(rounds) in (1, 4) else 0.004),
        lambda: clock.work(0.008),
        label_a="a",
        label_b="b",
        rounds=9,
        warmup=0,
        clock_s=clock,
    )
    assert result.ratio == pytest.approx(2)
    assert result.p99_a_ms == pytest.approx(200)


def test_the_real_clock_is_the_usual_one() -> None:
    # Only the real clock can show that it is the real one.
    result = compare(
        "sleep", lambda: time.sleep(0.002), lambda: None,
        label_a="a", label_b="b", rounds=1, warmup=0,
    )  # fmt: skip
    assert result.median_a_ms >= 2


def test_no_garbage_is_collected_inside_a_round() -> None:
    states: list[bool] = []
    compare(
        "gc",
        lambda: states.append(gc.isenabled()),
        lambda: None,
        label_a="a",
        label_b="b",
        rounds=2,
        warmup=0,
    )
    assert states == [False, False]
    assert gc.isenabled()


def test_an_error_is_passed_on_and_garbage_is_collected_again() -> None:
    def fail() -> None:
        raise OSError

    with pytest.raises(OSError):  # noqa: PT011 - any
        compare("fail", fail, lambda: None, label_a="a", label_b="b", rounds=1, warmup=0)
    assert gc.isenabled()


@pytest.mark.parametrize(("rounds", "warmup"), [(0, 1), (1, -1)])
def test_numbers_out_of_range_are_refused(rounds: int, warmup: int) -> None:
    with pytest.raises(ValueError, match=r"is (0|-1), at least"):
        compare(
            "x",
            lambda: None,
            lambda: None,
            label_a="a",
            label_b="b",
            rounds=rounds,
            warmup=warmup,
        )
