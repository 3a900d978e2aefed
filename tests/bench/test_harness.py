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


def test_the_ratio_says_how_much_faster_a_is() -> None:
    result = compare(
        "sleep",
        lambda: time.sleep(0.002),
        lambda: time.sleep(0.02),
        label_a="short",
        label_b="long",
        rounds=5,
        warmup=0,
        notes="asleep",
    )
    assert 3 < result.ratio < 12
    assert 2 <= result.median_a_ms < 8
    assert result.median_b_ms >= 20
    assert result.p99_b_ms >= result.median_b_ms
    assert (result.name, result.label_a, result.label_b) == ("sleep", "short", "long")
    assert (result.rounds, result.notes) == (5, "asleep")


def test_a_few_disturbed_rounds_do_not_move_the_ratio() -> None:
    rounds = iter(range(100))

    def disturbed() -> None:
        time.sleep(0.2 if next(rounds) in (1, 4) else 0.004)

    result = compare(
        "hiccups", disturbed, lambda: time.sleep(0.008),
        label_a="a", label_b="b", rounds=9, warmup=0,
    )  # fmt: skip
    assert 1.2 < result.ratio < 2.4
    assert result.p99_a_ms > 150


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
