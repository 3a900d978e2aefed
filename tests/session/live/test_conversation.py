"""What leaves a session, in virtual time: speech that comes at once."""

import numpy as np
import pytest
from tests.support.livesimulation import (
    FRAME_S,
    FRAME_SAMPLES,
    RATE_HZ,
    Simulation,
    check,
    speech_like,
    tags,
)

from lipwire.domain import Cancelled, InvalidInput
from lipwire.session.live import (
    Caption,
    SessionSettings,
    SpeechBegan,
    SpeechEnded,
    State,
    StateChanged,
)
from lipwire.session.live.conversation import Conversation
from lipwire.session.live.hearing import SpeechPiece


def settings(**others: object) -> SessionSettings:
    return SessionSettings(sound_rate_hz=RATE_HZ, **others)  # type: ignore[arg-type]


def changes(simulation: Simulation) -> list[tuple[State, int]]:
    return [
        (event.state, event.speech)
        for event in simulation.events
        if isinstance(event, StateChanged)
    ]


@pytest.mark.parametrize("frames", [1_000, pytest.param(6 * 90_000, marks=pytest.mark.slow)])
def test_frames_are_due_at_whole_multiples_of_40_ms_for_hours(frames: int) -> None:
    conversation = Conversation(settings())
    conversation.start(1000.0)
    for frame in range(frames):
        now = conversation.due_s
        assert abs(now - (1000 + frame / 25)) < 1e-6
        assert not conversation.can_tick(now - 1e-6)
        (sound,) = conversation.tick(now).sounds
        assert sound.at_ms == 40 * frame
        assert len(sound.samples) == FRAME_SAMPLES


def test_at_rest_each_tick_has_silence_and_the_next_frame() -> None:
    simulation = Simulation()
    simulation.run(10.0)
    check(simulation)
    assert [sound.at_ms for sound in simulation.sounds] == list(range(0, 10_001, 40))
    assert [picture.position for picture in simulation.pictures] == list(range(251))
    assert not simulation.asked
    assert not simulation.events


def test_a_session_begins_with_the_start_frame() -> None:
    simulation = Simulation(settings(start_frame=17))
    simulation.run(0.1)
    assert [picture.position for picture in simulation.pictures] == [17, 18, 19]


@pytest.mark.parametrize("at_s", [1.0, 1.013, 1.039])
def test_speech_made_beforehand_begins_as_soon_as_its_first_mouth_is_made(at_s: float) -> None:
    simulation = Simulation()
    end_s = simulation.send(speech_like(5.0), at_s, piece_s=1.0, every_s=0.0)
    assert end_s == at_s
    simulation.run(8.0)
    check(simulation)
    assert simulation.began_s(1) - at_s <= 0.03 * 1.15 + 0.005 + FRAME_S
    assert simulation.conversation.dropped.total == 0
    assert simulation.ended(1) == SpeechEnded(
        round(simulation.began_s(1) * 1000) + 5000, 1, 5000, False, 0
    )
    np.testing.assert_array_equal(simulation.said(1), simulation.sent_of(1))
    assert changes(simulation) == [(State.SPEAKING, 1), (State.IDLE, 0)]


def test_the_first_mouth_is_waited_for_where_it_takes_longer_than_expected() -> None:
    simulation = Simulation(processing=lambda now_s: 0.3 if now_s < 1.2 else 0.01)
    simulation.send(speech_like(1.0), 1.0, piece_s=1.0)
    simulation.run(4.0)
    check(simulation)
    first = simulation.frames_of(1)[0]
    picture = next(each for each in simulation.pictures if each.frame == first)
    assert picture.mouth is not None
    assert tags(picture.mouth) == (1, 0, picture.position)


def test_speech_is_spoken_without_a_mouth_that_takes_over_a_second() -> None:
    simulation = Simulation(processing=lambda now_s: 60.0)
    simulation.send(speech_like(1.0), 1.0, piece_s=1.0)
    simulation.run(4.0)
    check(simulation)
    assert simulation.began_s(1) <= 1.0 + 0.12 + 25 * FRAME_S
    np.testing.assert_array_equal(simulation.said(1), simulation.sent_of(1))


def test_speech_follows_speech_without_a_gap() -> None:
    simulation = Simulation()
    for index in range(3):
        simulation.send(speech_like(1.0, offset=7 * index), 1.0 + index / 100, piece_s=1.0)
    simulation.run(6.0)
    check(simulation)
    frames = [simulation.frames_of(number) for number in (1, 2, 3)]
    shown = [frame for each in frames for frame in each]
    assert shown == list(range(shown[0], shown[0] + 75))
    assert changes(simulation) == [(State.SPEAKING, 1), (State.IDLE, 0)]
    assert simulation.conversation.dropped.total == 0


def test_mouths_are_made_a_few_frames_ahead_only() -> None:
    simulation = Simulation(processing=lambda now_s: 0.001)
    simulation.send(speech_like(20.0), 1.0, piece_s=1.0, every_s=0.0)
    simulation.run(1.0 + 0.2)
    asked = sum(len(work.windows) for work in simulation.asked)
    shown = len(simulation.frames_of(1))
    assert asked - shown <= 12 + 1


def test_speech_is_heard_a_few_seconds_ahead_only() -> None:
    simulation = Simulation()
    simulation.send(speech_like(50.0), 1.0, piece_s=0.5, every_s=0.0)
    simulation.run(2.0)
    (speech,) = simulation.conversation._speeches
    assert speech.heard - len(simulation.frames_of(1)) <= 50 + 13
    simulation.run(60.0)
    check(simulation)
    assert len(simulation.said(1)) == 50 * RATE_HZ


def test_no_work_is_asked_for_while_nobody_speaks() -> None:
    simulation = Simulation()
    pcm = speech_like(4.0)
    pcm[RATE_HZ : 3 * RATE_HZ] = 0
    simulation.send(pcm, 1.0, piece_s=4.0)
    simulation.run(30.0)
    check(simulation)
    numbers = [
        work.first + index for work in simulation.asked for index in range(len(work.windows))
    ]
    assert numbers == [*range(25), *range(75, 100)]


@pytest.mark.parametrize("crossfade", [0, 1, 2, 6])
def test_the_mouth_passes_from_rest_to_speech_and_back(crossfade: int) -> None:
    simulation = Simulation(settings(crossfade_frames=crossfade))
    simulation.send(speech_like(1.0), 1.0, piece_s=1.0)
    simulation.run(4.0)
    check(simulation)
    frames = simulation.frames_of(1)
    weights = {picture.frame: picture.weight for picture in simulation.pictures}
    steps = [(step + 1) / (crossfade + 1) for step in range(crossfade)]
    rising = [weights[frames[0] + step] for step in range(crossfade)]
    falling = [weights[frames[-1] + 1 + step] for step in range(crossfade + 1)]
    assert rising == pytest.approx(steps)
    assert falling == pytest.approx([*reversed(steps), 0])
    assert all(weights[frame] == 1 for frame in frames[crossfade:])


def test_a_mouth_that_is_closing_does_not_open_again_when_the_speech_ends() -> None:
    pcm = speech_like(1.0)
    pcm[-FRAME_SAMPLES:] = 0
    simulation = Simulation(settings(crossfade_frames=4))
    simulation.send(pcm, 1.0, piece_s=1.0)
    simulation.run(4.0)
    check(simulation)
    last = simulation.frames_of(1)[-2]
    weights = [each.weight for each in simulation.pictures if each.frame >= last]
    assert weights[:6] == pytest.approx([1, 0.8, 0.6, 0.4, 0.2, 0])
    assert not any(weights[6:])


def test_after_the_end_of_speech_what_the_client_said_last_holds() -> None:
    simulation = Simulation()
    simulation.conversation.listen(True)
    simulation.send(speech_like(0.4), 1.0)
    simulation.send(speech_like(0.4), 3.0)
    simulation.at(3.2, lambda: simulation.conversation.listen(False))
    simulation.run(6.0)
    assert [state for state, _ in changes(simulation)] == [
        State.LISTENING,
        State.SPEAKING,
        State.LISTENING,
        State.IDLE,
        State.SPEAKING,
        State.IDLE,
    ]


def test_the_end_of_speech_is_spoken_when_the_client_says_that_it_ends() -> None:
    simulation = Simulation()
    simulation.send(speech_like(1.01), 1.0)
    simulation.run(5.0)
    check(simulation)
    np.testing.assert_array_equal(
        simulation.said(1)[: len(simulation.sent_of(1))], speech_like(1.01)
    )
    assert simulation.ended(1).spoken_ms == 1010


def test_speech_ends_by_itself_when_no_audio_comes() -> None:
    simulation = Simulation()
    end_s = simulation.send(speech_like(1.0), 1.0, end=False)
    simulation.run(5.0)
    check(simulation)
    assert len(simulation.said(1)) == RATE_HZ
    ended_s = simulation.ended(1).at_ms / 1000
    assert end_s + 0.5 <= ended_s <= end_s + 0.5 + 0.6


def test_speech_does_not_end_while_its_sender_waits_for_room() -> None:
    simulation = Simulation(settings(max_buffered_speech_s=10.0, end_of_speech_timeout_s=0.1))
    conversation = simulation.conversation
    pcm = speech_like(30.0)
    pieces = [pcm[at : at + 2 * RATE_HZ] for at in range(0, len(pcm), 2 * RATE_HZ)]

    def fill() -> None:
        while pieces and conversation.has_room:
            simulation.push(pieces.pop(0))
            assert conversation.buffered_s <= 12
        if pieces:
            simulation.at(simulation.now - 1000 + 0.02, fill)

    simulation.at(1.0, fill)
    simulation.run(40.0)
    check(simulation)
    assert len(simulation.said(1)) == 30 * RATE_HZ
    assert conversation.silent


def test_audio_that_comes_ten_times_too_slowly_is_said_in_order_and_once() -> None:
    simulation = Simulation()
    simulation.send(speech_like(3.0), 1.0, piece_s=0.02, every_s=0.2)
    simulation.run(40.0)
    check(simulation)
    np.testing.assert_array_equal(simulation.said(1), simulation.sent_of(1))
    frames = simulation.frames_of(1)
    assert frames[-1] - frames[0] > 10 * 25  # with pauses
    assert list(simulation.sent) == [1]


@pytest.mark.slow
@pytest.mark.parametrize("samples", [1, 7, 333, 12_345])
def test_audio_may_come_in_pieces_of_any_size(samples: int) -> None:
    simulation = Simulation()
    simulation.send(speech_like(0.5), 1.0, piece_s=samples / RATE_HZ)
    simulation.run(4.0)
    check(simulation)
    assert simulation.ended(1).spoken_ms == 500


def test_audio_is_numbered_without_gaps() -> None:
    conversation = Conversation(settings())
    piece = SpeechPiece(speech_like(0.1), RATE_HZ)
    conversation.start(0.0)
    conversation.push(piece, 0.0, 7)
    for wrong in (7, 9, 6, -1):
        with pytest.raises(InvalidInput, match=f"audio number {wrong}; expected is 8"):
            conversation.push(piece, 0.0, wrong)
    conversation.push(piece, 0.0, 8)
    conversation.push(piece, 0.0)
    conversation.push(piece, 0.0, 9)
    assert conversation.buffered_s == pytest.approx(0.4)


def test_a_closed_session_takes_nothing() -> None:
    conversation = Conversation(settings())
    conversation.start(0.0)
    conversation.push(SpeechPiece(speech_like(0.1), RATE_HZ), 0.0)
    conversation.close()
    conversation.close()
    assert conversation.last_events() == (
        SpeechEnded(0, 1, 0, True, 100),
        StateChanged(0, State.CLOSED, 0),
    )
    for told in (
        conversation.end_of_speech,
        conversation.interrupt,
        lambda: conversation.listen(True),
        lambda: conversation.push(SpeechPiece(speech_like(0.1), RATE_HZ), 0.0),
    ):
        with pytest.raises(Cancelled, match="has ended"):
            told()
    assert not conversation.can_tick(1.0)


def test_frames_that_are_not_paced_leave_when_they_are_made() -> None:
    simulation = Simulation(settings(paced=False))
    conversation = simulation.conversation
    conversation.push(SpeechPiece(speech_like(2.0), RATE_HZ), simulation.now)
    conversation.end_of_speech()
    simulation.sent[1] = [speech_like(2.0)]
    for _ in range(200):
        simulation._look()
        simulation.now += 0.01
        for work in list(simulation._works):
            simulation._made(work)
        while conversation.can_tick(simulation.now):
            simulation.tick()
    assert len(simulation.said(1)) == 2 * RATE_HZ
    assert conversation.dropped.total == 0
    assert [event for event in simulation.events if isinstance(event, SpeechBegan)]
    assert simulation.ended(1).spoken_ms == 2000
    assert conversation.state is State.IDLE
    assert conversation.at_rest


def test_a_caption_is_told_with_the_frame_of_its_first_sample() -> None:
    simulation = Simulation()

    def push() -> None:
        for number, samples in enumerate((640, 639, 1, 6400)):
            pcm = np.full(samples, 0.5, np.float32)
            simulation.conversation.push(
                SpeechPiece(pcm, RATE_HZ, f"part {number}"), simulation.now
            )
        simulation.conversation.end_of_speech()

    simulation.at(0.2, push)
    simulation.run(3.0)
    captions = [event for event in simulation.events if isinstance(event, Caption)]
    (began,) = (event for event in simulation.events if isinstance(event, SpeechBegan))
    assert [(caption.at_ms - began.at_ms, caption.text) for caption in captions] == [
        (0, "part 0"),
        (40, "part 1"),
        (40, "part 2"),
        (80, "part 3"),
    ]
    assert {caption.speech for caption in captions} == {1}


def test_what_is_interrupted_has_no_captions_any_more() -> None:
    simulation = Simulation()

    def push(text: str) -> None:
        pcm = np.full(RATE_HZ, 0.5, np.float32)
        simulation.conversation.push(SpeechPiece(pcm, RATE_HZ, text), simulation.now)

    simulation.at(0.2, lambda: push("one"))
    simulation.at(0.2, lambda: push("two"))
    simulation.at(1.0, simulation.interrupt)
    simulation.run(4.0)
    assert [event.text for event in simulation.events if isinstance(event, Caption)] == ["one"]
