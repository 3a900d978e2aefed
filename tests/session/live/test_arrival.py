import pytest

from lipwire.session.live.arrival import Arrival


def came(*pieces: tuple[float, float]) -> Arrival:
    """An arrival of pieces given as (seconds, when)."""
    arrival = Arrival()
    for seconds, now in pieces:
        arrival.add(seconds, now)
    return arrival


def test_one_piece_says_nothing_of_the_pace() -> None:
    arrival = came((1.0, 5.0))
    assert not arrival.is_live
    assert arrival.come_s == 1


def test_a_microphone_is_told_from_speech_made_faster() -> None:
    assert came(*((0.02, 5 + index / 50) for index in range(20))).is_live
    assert not came(*((0.2, 5 + index / 50) for index in range(20))).is_live
    assert not came((1.0, 5.0), (1.0, 5.0)).is_live


def test_the_latest_piece_says_when_audio_comes_at_the_latest() -> None:
    arrival = came((0.1, 5.0), (0.1, 5.1), (0.1, 5.27), (0.1, 5.3))
    assert arrival.jitter_s == pytest.approx(0.07)
    assert arrival.due_s(1.0) == pytest.approx(6.07)


def test_lateness_is_forgotten_after_twenty_seconds() -> None:
    arrival = Arrival()
    for index in range(400):
        late_s = 0.5 if index == 20 else 0.0
        arrival.add(0.1, 5 + index / 10 + late_s)
        if index == 190:
            assert arrival.jitter_s == pytest.approx(0.5)
    assert arrival.jitter_s == pytest.approx(0.0)


@pytest.mark.parametrize(("rate", "live"), [(0.9, True), (1.0, True), (1.0001, True), (1.1, False)])
def test_after_ten_seconds_the_pace_is_known(rate: float, live: bool) -> None:
    arrival = Arrival()
    for index in range(1000):
        arrival.add(0.02, 5 + index / 50 / rate)
        if index < 400:
            assert not arrival.is_live_for_long
    assert arrival.is_live_for_long == live
