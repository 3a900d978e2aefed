"""What leaves a session where mouths or the clock are late, in virtual time."""

import numpy as np
import pytest
from tests.support.livesimulation import RATE_HZ, Simulation, check, speech_like, tags

from lipwire.session.live import FramesDropped, SessionSettings


def dropped(simulation: Simulation) -> list[FramesDropped]:
    return [event for event in simulation.events if isinstance(event, FramesDropped)]


def with_mouth(simulation: Simulation, begin_s: float, end_s: float) -> int:
    """Pictures of speech in that time, each with a mouth of its own."""
    return sum(
        picture.speech > 0
        and picture.mouth is not None
        and begin_s * 1000 <= picture.at_ms < end_s * 1000
        for picture in simulation.pictures
    )


@pytest.mark.parametrize("live", [False, True])
def test_a_network_three_times_too_slow_shows_every_third_mouth(live: bool) -> None:
    simulation = Simulation(processing=lambda now_s: 0.12)
    pcm = speech_like(20.0)
    simulation.send(pcm, 1.0, piece_s=0.02 if live else 20.0)
    simulation.run(25.0)
    check(simulation)
    np.testing.assert_array_equal(simulation.said(1), pcm)
    spoken = simulation.frames_of(1)
    assert len(spoken) == 500
    # That of a microphone was delayed, to have more of its mouths in time: not for ever.
    assert spoken[-1] - spoken[0] - 499 <= (4 if live else 0)
    shown = with_mouth(simulation, 5, 15)
    assert 250 / 3 * 0.85 <= shown <= 250 / 3 * 1.05


def test_dropped_frames_are_told_once_a_second() -> None:
    simulation = Simulation(processing=lambda now_s: 0.12)
    simulation.send(speech_like(10.0), 1.0, piece_s=10.0)
    simulation.run(15.0)
    told = dropped(simulation)
    assert {event.reason for event in told} == {"late"}
    seconds = [event.at_ms // 1000 for event in told]
    assert seconds == sorted(set(seconds))
    assert len(seconds) >= 9
    frames = len(simulation.frames_of(1))
    shown = sum(picture.speech > 0 for picture in simulation.pictures)
    assert (
        sum(event.count for event in told)
        == frames - shown
        == simulation.conversation.dropped.total
    )


@pytest.mark.slow
@pytest.mark.parametrize("processing_s", [0.035, 0.045, 0.06, 0.075])
@pytest.mark.parametrize("live", [False, True])
def test_two_workers_make_mouths_that_take_longer_than_a_frame(
    processing_s: float, live: bool
) -> None:
    simulation = Simulation(processing=lambda now_s: processing_s, workers=2)
    simulation.send(speech_like(20.0), 1.007, piece_s=0.02 if live else 20.0)
    simulation.run(25.0)
    check(simulation)
    assert with_mouth(simulation, 3, 20) == 425  # a microphone was delayed as was needed


@pytest.mark.parametrize("slow_s", [0.05, 0.075])
def test_a_microphone_is_delayed_where_mouths_take_longer_than_before(slow_s: float) -> None:
    simulation = Simulation(processing=lambda now_s: slow_s if now_s > 6 else 0.01, workers=2)
    pcm = speech_like(20.0)
    simulation.send(pcm, 1.007)
    simulation.run(25.0)
    check(simulation)
    np.testing.assert_array_equal(simulation.said(1), pcm)
    assert simulation.conversation.dropped.total <= 10
    assert with_mouth(simulation, 8, 20) >= 300 - 1
    spoken = simulation.frames_of(1)
    assert spoken[-1] - spoken[0] - 499 <= 3


@pytest.mark.parametrize("slow_s", [0.12, 0.3])
@pytest.mark.parametrize("live", [False, True])
def test_a_network_that_is_fast_again_shows_every_frame_within_a_second(
    slow_s: float, live: bool
) -> None:
    simulation = Simulation(processing=lambda now_s: slow_s if now_s < 6 else 0.01)
    simulation.send(speech_like(15.0), 1.0, piece_s=0.02 if live else 15.0)
    simulation.run(20.0)
    check(simulation)
    assert with_mouth(simulation, 2, 6) < 60
    assert with_mouth(simulation, 7.2, 14.2) == 175


def test_a_clock_that_is_late_makes_up_for_the_sound_and_drops_pictures() -> None:
    simulation = Simulation(late=lambda frame: 0.2 if frame == 60 else 0.0)
    simulation.send(speech_like(4.0), 1.0, piece_s=4.0)
    simulation.run(6.0)
    check(simulation)
    late = next(left for left in simulation.left if left.sounds[0].frame == 60)
    assert [sound.frame for sound in late.sounds] == [60, 61, 62, 63, 64, 65]
    assert late.picture is not None
    assert late.picture.frame == 65
    behind = [left for left in simulation.left if left.sounds[0].frame > 65]
    for left in behind:
        assert left.at_s == pytest.approx(left.sounds[0].at_ms / 1000)
        assert len(left.sounds) == 1
    assert [(event.count, event.reason) for event in dropped(simulation)] == [(5, "pacing")]


def test_a_clock_that_is_always_late_keeps_to_the_time() -> None:
    simulation = Simulation(late=lambda frame: frame * 37 % 90 / 1000)
    simulation.send(speech_like(4.0), 1.0)
    simulation.run(8.0)
    check(simulation)
    np.testing.assert_array_equal(simulation.said(1), speech_like(4.0))
    for left in simulation.left:
        assert -1e-6 <= left.at_s - left.sounds[-1].at_ms / 1000 < 0.09


def test_where_mouths_cannot_be_had_the_last_one_is_held() -> None:
    simulation = Simulation(fails=lambda work: 30 <= work.first < 40)
    simulation.send(speech_like(3.0), 1.0, piece_s=3.0)
    simulation.run(6.0)
    failed = {
        work.first + index
        for work in simulation.asked
        for index in range(len(work.windows))
        if 30 <= work.first < 40
    }
    assert failed
    pictures = [picture for picture in simulation.pictures if picture.speech]
    assert len(pictures) == 75
    last = min(failed) - 1
    for number, picture in enumerate(pictures):
        assert picture.mouth is not None
        assert tags(picture.mouth)[1] == (last if number in failed else number)
        assert picture.weight == min(1, (number + 1) / 3)
    assert not dropped(simulation)


def test_without_any_mouth_the_avatar_rests_and_speaks() -> None:
    simulation = Simulation(SessionSettings(sound_rate_hz=RATE_HZ), fails=lambda work: True)
    simulation.send(speech_like(1.0), 1.0, piece_s=1.0)
    simulation.run(4.0)
    check(simulation)
    assert len(simulation.said(1)) == RATE_HZ
    assert len(simulation.pictures) == len(simulation.sounds)
    assert not any(picture.weight for picture in simulation.pictures)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("slow_s", [0.09, 0.2, 0.4, 1.0])
def test_a_network_that_was_slow_for_a_while_shows_a_microphone_whole_again(
    slow_s: float, workers: int
) -> None:
    simulation = Simulation(
        processing=lambda now_s: slow_s if 3 < now_s < 6 else 0.01, workers=workers
    )
    simulation.send(speech_like(15.0), 1.0)
    simulation.run(20.0)
    check(simulation)
    assert with_mouth(simulation, 7.4, 14.2) == 170
