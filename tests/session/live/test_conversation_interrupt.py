"""Interruptions, in virtual time: at any moment, of any speech."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as tried
from hypothesis import strategies as st
from tests.support.examples import examples
from tests.support.livesimulation import RATE_HZ, Simulation, check, speech_like

from lipwire.session.live import SpeechEnded, State, StateChanged


def ends(simulation: Simulation) -> list[SpeechEnded]:
    return [event for event in simulation.events if isinstance(event, SpeechEnded)]


def check_interrupted(simulation: Simulation, at_s: float, speeches: set[int]) -> None:
    """Nothing of ``speeches`` is shown or heard after ``at_s``, and how much was is told."""
    for sound in simulation.sounds:
        if sound.at_ms > at_s * 1000:
            assert sound.speech not in speeches
    for picture in simulation.pictures:
        if picture.at_ms > at_s * 1000:
            assert picture.speech not in speeches
    for number in speeches:
        ended = simulation.ended(number)
        sent = round(len(simulation.sent_of(number)) * 1000 / RATE_HZ)
        assert ended.spoken_ms == min(sent, len(simulation.said(number)) * 1000 // RATE_HZ)
        assert ended.left_ms == (sent - ended.spoken_ms if ended.interrupted else 0)


@pytest.mark.parametrize("frames", range(0, 48, 7))
def test_the_frame_after_an_interruption_is_silent_and_the_mouth_closes(frames: int) -> None:
    simulation = Simulation()
    simulation.send(speech_like(2.0), 1.0, piece_s=2.0)
    at_s = 1.09 + frames * 0.04
    simulation.at(at_s, simulation.interrupt)
    simulation.run(6.0)
    check(simulation)
    check_interrupted(simulation, at_s, {1})
    assert simulation.ended(1).interrupted
    after = [picture for picture in simulation.pictures if picture.at_ms > at_s * 1000]
    assert after[0].weight < 0.7
    assert not any(picture.weight for picture in after[2:])
    states = [event.state for event in simulation.events if isinstance(event, StateChanged)]
    if simulation.said(1).size:
        assert states == [State.SPEAKING, State.INTERRUPTED, State.IDLE]


def test_a_session_that_listens_listens_after_an_interruption() -> None:
    simulation = Simulation()
    simulation.send(speech_like(2.0), 1.0, piece_s=2.0)
    simulation.at(1.5, lambda: simulation.conversation.listen(True))
    simulation.at(1.5, simulation.interrupt)
    simulation.run(3.0)
    states = [event.state for event in simulation.events if isinstance(event, StateChanged)]
    assert states == [State.SPEAKING, State.INTERRUPTED, State.LISTENING]


@pytest.mark.parametrize("processing_s", [0.01, 0.2])
def test_speech_right_after_an_interruption_is_spoken_whole(processing_s: float) -> None:
    simulation = Simulation(processing=lambda now_s: processing_s)
    simulation.send(speech_like(5.0), 1.0, piece_s=1.0, every_s=0)
    simulation.at(2.0, simulation.interrupt)
    simulation.send(speech_like(1.5, offset=333), 2.0, piece_s=1.0, every_s=0)
    simulation.run(7.0)
    check(simulation)
    check_interrupted(simulation, 2.0, {1})
    np.testing.assert_array_equal(simulation.said(2)[: RATE_HZ * 3 // 2], simulation.sent_of(2))
    assert simulation.began_s(2) <= 2.0 + 0.04 + max(0.2, 3 * processing_s)
    assert not simulation.ended(2).interrupted


def test_all_speech_that_waits_is_dropped() -> None:
    simulation = Simulation()
    for index in range(3):
        simulation.send(speech_like(1.0), 1.0 + index / 100, piece_s=1.0)
    simulation.at(1.7, simulation.interrupt)
    simulation.run(6.0)
    check(simulation)
    check_interrupted(simulation, 1.7, {1, 2, 3})
    assert [event.spoken_ms > 0 for event in ends(simulation)] == [True, False, False]
    assert simulation.conversation.at_rest


def test_an_interruption_of_nothing_tells_nothing() -> None:
    simulation = Simulation()
    simulation.at(1.0, simulation.interrupt)
    simulation.run(2.0)
    check(simulation)
    assert not simulation.events
    assert simulation.conversation.state is State.IDLE


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["audio", "audio", "end", "interrupt", "listen"]),
        st.integers(0, 60),
        st.integers(1, 30_000),
    ),
    min_size=1,
    max_size=12,
)


@pytest.mark.slow
@tried(max_examples=examples(60), deadline=None)
@given(steps=STEPS, processing=st.sampled_from([0.0, 0.01, 0.05, 0.2]), late=st.integers(0, 3))
def test_whatever_the_client_does_each_speech_is_heard_in_order_and_none_after_its_interruption(
    steps: list[tuple[str, int, int]], processing: float, late: int
) -> None:
    simulation = Simulation(
        processing=lambda now_s: processing, late=lambda frame: frame % 7 * late * 0.02
    )
    conversation = simulation.conversation
    at_s = 0.5
    interruptions: list[tuple[float, set[int]]] = []

    def interrupt() -> None:
        interruptions.append(
            (conversation.frame * 0.04, {speech.number for speech in conversation._speeches})
        )
        simulation.interrupt()

    offsets = itertools.count()
    for what, pause, samples in steps:
        at_s += pause / 50
        if what == "audio":
            pcm = speech_like(samples / RATE_HZ, offset=1000 * next(offsets))
            simulation.at(at_s, lambda pcm=pcm: simulation.push(pcm))  # type: ignore[misc]
        elif what == "end":
            simulation.at(at_s, conversation.end_of_speech)
        elif what == "interrupt":
            simulation.at(at_s, interrupt)
        else:
            simulation.at(at_s, lambda pause=pause: conversation.listen(pause % 2 == 0))  # type: ignore[misc]
    simulation.run(at_s + 60)
    check(simulation)
    cut = set().union(*(speeches for _, speeches in interruptions))
    for at_s, speeches in interruptions:
        check_interrupted(simulation, at_s - 0.001, speeches)
    for number in simulation.sent:
        if number not in cut:
            sent = simulation.sent_of(number)
            np.testing.assert_array_equal(simulation.said(number)[: len(sent)], sent)
    assert {event.speech for event in ends(simulation)} == set(simulation.sent)
    assert len(ends(simulation)) == len(simulation.sent)
    assert conversation.at_rest
