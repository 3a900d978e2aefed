import pytest

from lipwire.scheduling.dispatcher import RECENT_S, RecentTimes, ServiceTimes


def test_follows_what_is_measured() -> None:
    times = ServiceTimes()
    for _ in range(30):
        times.learn("a", "pixels", 0.04, now=1.0)
    assert times.frame_s("a", "pixels", now=1.0) == pytest.approx(0.04)
    for _ in range(30):
        times.learn("a", "pixels", 0.1, now=1.0)
    assert times.frame_s("a", "pixels", now=1.0) == pytest.approx(0.1, rel=0.01)


def test_a_kind_never_run_is_expected_to_be_like_its_group() -> None:
    times = ServiceTimes()
    assert times.frame_s("b", "pixels", now=1.0) == 0.0
    times.learn("a", "pixels", 0.04, now=1.0)
    assert times.frame_s("b", "pixels", now=1.0) == pytest.approx(0.04)
    assert times.frame_s("b", "floats", now=1.0) == 0.0


def test_the_latest_time_is_told_however_old() -> None:
    times = ServiceTimes()
    assert times.latest_s("a", "pixels") == 0.0
    times.learn("a", "pixels", 0.04, now=0.0)
    assert times.frame_s("a", "pixels", now=1000.0) < 0.001
    assert times.latest_s("a", "pixels") == times.latest_s("b", "pixels") == 0.04


def test_a_slow_moment_is_not_believed_for_ever() -> None:
    times = ServiceTimes()
    times.learn("a", "pixels", 60.0, now=0.0)
    assert times.frame_s("a", "pixels", now=5.0) == 60.0
    assert times.frame_s("a", "pixels", now=10.0) == pytest.approx(30.0)
    assert times.frame_s("a", "pixels", now=65.0) < 0.02
    assert times.frame_s("a", "pixels", now=1e9) < 1e-9


def test_kinds_do_not_pile_up() -> None:
    times = ServiceTimes()
    for number in range(10_000):
        times.learn(number, "pixels", 0.01, now=1.0)
    assert len(times._means) <= 4096
    assert times.frame_s("any", "pixels", now=1.0) == pytest.approx(0.01)


def test_a_median_hardly_moves_where_a_run_takes_long_by_chance() -> None:
    times = RecentTimes()
    assert times.frame_s("a", now=1.0) is None
    for _ in range(9):
        times.learn("a", 0.02, now=1.0)
    for _ in range(3):
        times.learn("a", 9.0, now=1.0)
    times.learn("b", 5.0, now=1.0)
    assert times.frame_s("a", now=1.0) == pytest.approx(0.02)


def test_a_median_is_of_the_latest_runs_of_a_minute() -> None:
    times = RecentTimes()
    for _ in range(64):
        times.learn("a", 0.5, now=0.0)
    times.learn("a", 0.02, now=RECENT_S)
    assert times.frame_s("a", now=RECENT_S) == pytest.approx(0.5)
    assert times.frame_s("a", now=RECENT_S + 1) == pytest.approx(0.02)
    assert times.frame_s("a", now=2 * RECENT_S + 1) is None
    for _ in range(64):
        times.learn("a", 0.04, now=RECENT_S)
    assert times.frame_s("a", now=RECENT_S) == pytest.approx(0.04)
