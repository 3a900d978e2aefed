"""One session, in virtual time."""

import gc
import weakref

import numpy as np
import pytest
from tests.support.liveparts import (
    FakeAvatar,
    LiveTime,
    buzz,
    frames,
    sounds,
    taken,
    watch,
)

from lipwire.domain import (
    AvatarInvalid,
    Call,
    Cancelled,
    DeadlineExceeded,
    InvalidInput,
    Unavailable,
)
from lipwire.session.live import (
    FramesDropped,
    GoingAway,
    Item,
    SessionSettings,
    SpeechBegan,
    SpeechEnded,
    State,
    StateChanged,
)


def test_frames_and_sound_leave_from_the_start(time: LiveTime) -> None:
    session = time.session(FakeAvatar())
    items = watch(time, session, 1.0)
    assert [sound.frame for sound in sounds(items)] == list(range(len(sounds(items))))
    assert len(sounds(items)) in (25, 26)
    assert [frame.data for frame in frames(items)] == [
        bytes([1, 101, position]) for position in range(len(frames(items)))
    ]
    assert session.counts.frames == len(frames(items)) == len(sounds(items))
    assert session.counts.dropped == session.counts.mouths == session.counts.spoken_ms == 0


def test_speech_is_shown_and_heard(time: LiveTime) -> None:
    avatar = FakeAvatar()
    session = time.session(avatar)
    items = watch(time, session, 1.0)
    session.push(buzz(1.0), 16_000)
    assert not session.silent
    items += watch(time, session, 0.2)
    assert session.state is State.SPEAKING
    session.end_of_speech()
    items += watch(time, session, 2.0)
    said = np.concatenate([sound.samples for sound in sounds(items) if sound.speech])
    np.testing.assert_array_equal(said, buzz(1.0))
    spoken = [frame for frame in frames(items) if frame.speech]
    assert len(spoken) == 25
    assert [frame.data[1] for frame in spoken] == [68, 34, *[1] * 23]
    assert [type(item) for item in items if isinstance(item, SpeechBegan | SpeechEnded)] == [
        SpeechBegan,
        SpeechEnded,
    ]
    assert session.counts.spoken_ms == 1000
    assert session.counts.mouths == 25
    assert sum(count for _, count in avatar.asked) == 25
    assert session.silent


@pytest.mark.parametrize("offset_ms", [0, 7, 21, 33])
def test_a_microphone_is_shown_as_soon_as_it_can_be(time: LiveTime, offset_ms: int) -> None:
    session = time.session(FakeAvatar())
    time.run(0.4 + offset_ms / 1000)
    begun_s = time.clock()
    shown_s: list[float] = []
    for _ in range(300):
        session.push(buzz(0.005), 16_000)
        time.run(0.005)
        shown_s += [time.clock() for frame in frames(taken(session)) if frame.speech]
    first_s, second_s = shown_s[:2]
    # All that the first frame needs is heard after 452.5 ms; making it is expected to take 40.
    assert 0.45 + 0.03 < first_s - begun_s <= 0.4525 + 0.04 + 0.01
    assert 0.03 < second_s - first_s < 0.05
    session.close()


def test_a_session_expects_of_mouths_what_they_took_before(time: LiveTime) -> None:
    first = time.session(FakeAvatar())
    first.push(buzz(1.0), 16_000)
    first.end_of_speech()
    watch(time, first, 2.0)
    first.close()
    took_s = time.times.expected_s(first.avatar.name)
    assert took_s is not None
    assert took_s < 0.03
    second = time.session(FakeAvatar())
    assert second._conversation._planning._alone_s == took_s


def test_long_audio_is_taken_in_parts_and_copied(time: LiveTime) -> None:
    session = time.session(FakeAvatar())
    pcm = np.concatenate([buzz(0.25, level=level / 20) for level in range(1, 13)])
    sent = pcm.copy()
    session.push(pcm, 16_000, sequence=3)
    pcm[:] = 0
    with pytest.raises(InvalidInput, match="expected is 4"):
        session.push(buzz(0.1), 16_000, sequence=3)
    session.end_of_speech()
    items = watch(time, session, 4.0)
    said = np.concatenate([sound.samples for sound in sounds(items) if sound.speech])
    np.testing.assert_array_equal(said, sent)


def test_what_is_no_audio_harms_nothing(time: LiveTime) -> None:
    session = time.session(FakeAvatar())
    with pytest.raises(InvalidInput):
        session.push(np.zeros((2, 2, 2), np.float32), 16_000)
    session.push(buzz(0), 16_000, sequence=1)
    session.push(buzz(0.4), 16_000, sequence=2)
    session.end_of_speech()
    assert [item.speech for item in watch(time, session, 2.0) if isinstance(item, SpeechEnded)] == [
        1
    ]


def test_a_sender_waits_where_much_speech_waits(time: LiveTime) -> None:
    session = time.session(
        FakeAvatar(), SessionSettings(sound_rate_hz=16_000, gate=False, max_buffered_speech_s=2)
    )
    with pytest.raises(DeadlineExceeded, match=r"2\.0 s of speech wait.*allowed are 2"):
        session.push(buzz(10), 16_000, timeout_s=0.0)
    items = watch(time, session, 4.0)
    session.push(buzz(1), 16_000, timeout_s=0.0)
    items += watch(time, session, 2.5)
    assert [sound.speech > 0 for sound in sounds(items)].count(True) == 75


def test_an_interruption_ends_speech_with_the_next_frame(time: LiveTime) -> None:
    session = time.session(FakeAvatar())
    session.push(buzz(5), 16_000)
    watch(time, session, 1.0)
    session.interrupt()
    assert session.state is State.INTERRUPTED
    session.push(buzz(1, level=0.25), 16_000)
    session.end_of_speech()
    items = watch(time, session, 3.0)
    assert all(sound.speech != 1 for sound in sounds(items))
    assert all(frame.speech != 1 for frame in frames(items))
    said = np.concatenate([sound.samples for sound in sounds(items) if sound.speech == 2])
    np.testing.assert_array_equal(said, buzz(1, level=0.25))
    (ended,) = (each for each in items if isinstance(each, SpeechEnded) and each.interrupted)
    assert ended.spoken_ms + ended.left_ms == 5000


def test_listening_is_told(time: LiveTime) -> None:
    session = time.session(FakeAvatar())
    session.listen(True)
    session.listen(True)
    session.listen(False)
    items = watch(time, session, 0.2)
    assert [item.state for item in items if isinstance(item, StateChanged)] == [
        State.LISTENING,
        State.IDLE,
    ]


def test_mouths_that_cannot_be_had_end_nothing(time: LiveTime) -> None:
    def refuse(call: Call) -> None:
        raise Unavailable("gone")

    session = time.session(FakeAvatar(on_mouths=refuse))
    session.push(buzz(1), 16_000)
    items = watch(time, session, 3.0)
    assert not session.closed
    assert len([sound for sound in sounds(items) if sound.speech]) == 25
    assert {frame.data[1] for frame in frames(items)} == {101}


@pytest.mark.parametrize("error", [AvatarInvalid("broken"), ValueError("a fault")])
@pytest.mark.parametrize("where", ["mouths", "compose", "rest"])
def test_other_errors_end_the_session(time: LiveTime, error: Exception, where: str) -> None:
    def fail(_: object) -> None:
        if armed:
            raise error

    armed = False
    avatar = FakeAvatar(complete=False)
    setattr(avatar, f"on_{where}", fail)
    session = time.session(avatar)
    armed = True
    if where == "mouths":
        session.push(buzz(0.4), 16_000)
    time.run(1.0)
    assert session.closed
    assert session.ended_because == "error"
    assert isinstance(
        session.error, AvatarInvalid if isinstance(error, AvatarInvalid) else Unavailable
    )
    assert avatar.closed == 1
    assert len(time.pacer) == 0


def test_a_client_that_stops_reading_loses_pictures_before_they_are_composed(
    time: LiveTime,
) -> None:
    session, other = time.session(FakeAvatar(1)), time.session(FakeAvatar(2))
    read: list[Item] = []
    for _ in range(250):
        time.run(0.04)
        read += taken(other)
    assert len(frames(read)) in (250, 251)
    assert session.counts.frames < 60
    items = taken(session)
    assert len(frames(items)) <= 5
    assert [sound.frame for sound in sounds(items)] == list(
        range(sounds(read)[-1].frame - 49, sounds(read)[-1].frame + 1)
    )
    items = watch(time, session, 2.0)
    assert len(frames(items)) in (50, 51)
    assert frames(items)[0].frame >= 250
    (dropped,) = (item for item in items if isinstance(item, FramesDropped))
    assert dropped.reason == "unread"


def test_closing_ends_everything_once(time: LiveTime) -> None:
    avatar = FakeAvatar()
    session = time.session(avatar)
    session.push(buzz(1), 16_000)
    watch(time, session, 0.4)
    session.close("because")
    session.close("again")
    items = session.outbox.take(0.0) or []
    assert isinstance(items[-2], SpeechEnded)
    assert isinstance(items[-1], StateChanged)
    assert items[-1].state is State.CLOSED
    assert session.outbox.take() is None
    assert (session.ended_because, session.error, session.state) == ("because", None, State.CLOSED)
    assert avatar.closed == 1
    with pytest.raises(Cancelled, match="ended"):
        session.push(buzz(1), 16_000)
    time.run(1.0)
    assert len(time.pacer) == 0
    assert time.pacer.next_due_s() is None


def test_a_session_closed_before_its_start_does_not_start(time: LiveTime) -> None:
    avatar = FakeAvatar(complete=False)
    session = time.session(avatar, start=False)
    session.close()
    session.start()
    assert avatar.closed == 1
    assert not avatar.rest_asked
    assert len(time.pacer) == 0


def test_the_first_frame_waits_for_the_first_mouth_at_rest(time: LiveTime) -> None:
    def slow(position: int) -> None:
        time.clock.now += 0.5 if position == 0 else 0.0

    avatar = FakeAvatar(complete=False, on_rest=slow)
    session = time.session(avatar, start=False)
    session.start()
    begun = time.clock.now
    time.run(0.0)
    items = taken(session)
    assert len(sounds(items)) == len(frames(items)) == 1
    assert time.clock.now == begun


def test_the_client_is_told_that_the_server_goes_away(time: LiveTime) -> None:
    session = time.session(FakeAvatar())
    watch(time, session, 1.0)
    session.going_away("restart", 30.0)
    (told,) = (item for item in taken(session) if isinstance(item, GoingAway))
    assert (told.reason, told.left_s) == ("restart", 30)
    assert told.at_ms >= 1000


def test_a_closed_session_is_forgotten(time: LiveTime) -> None:
    session = time.session(FakeAvatar())
    session.push(buzz(1), 16_000)
    time.run(1.0)
    session.close()
    time.run(0.1)
    known = weakref.ref(session)
    del session
    gc.collect()
    assert known() is None


def test_nothing_of_one_session_reaches_another(time: LiveTime) -> None:
    sessions = [time.session(FakeAvatar(mark)) for mark in (1, 2)]
    items: list[list[Item]] = [[], []]
    for step in range(20):
        for session, level in zip(sessions, (0.25, 0.5), strict=True):
            session.push(buzz(0.04, level=level), 16_000)
        if step == 10:
            sessions[0].interrupt()
        time.run(0.04)
        for session, found in zip(sessions, items, strict=True):
            found += taken(session)
    for session, found in zip(sessions, items, strict=True):
        found += watch(time, session, 2.0)
    for mark, level, found in zip((1, 2), (0.25, 0.5), items, strict=True):
        assert {frame.data[0] for frame in frames(found)} == {mark}
        heard = {value for sound in sounds(found) for value in np.unique(sound.samples).tolist()}
        assert heard <= {0.0, level}
    said = [sum(sound.speech > 0 for sound in sounds(found)) for found in items]
    assert said[1] == 20


def test_a_session_that_is_not_paced_sends_speech_as_it_is_made(
    time: LiveTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    avatar, second = FakeAvatar(), FakeAvatar(2)
    settings = SessionSettings(sound_rate_hz=16_000, gate=False, paced=False)
    session = time.session(avatar, settings)
    assert not taken(session)
    items: list[Item] = []
    monkeypatch.setattr(session.outbox, "put", lambda *others: items.extend(others))
    session.push(buzz(2), 16_000)
    session.end_of_speech()
    assert len(sounds(items)) == len(frames(items)) == 50
    assert [frame.frame for frame in frames(items)] == list(range(50))
    session.push(buzz(1), 16_000)
    time.run(1.0)  # the speech ends by itself
    assert len(frames(items)) == 75
    session.change_avatar(second.live())
    time.run(0.2)
    assert avatar.closed == 1
    session.push(buzz(1), 16_000)
    session.interrupt()
    assert session.state is State.IDLE


def test_an_end_of_speech_from_before_an_interrupt_ends_nothing(time: LiveTime) -> None:
    session = time.session(FakeAvatar())
    session.push(buzz(0.2), 16_000)
    before = session.interrupts
    session.interrupt()
    session.push(buzz(0.2), 16_000)
    session.end_of_speech(after_interrupts=before)
    session.push(buzz(0.2), 16_000)
    session.push(buzz(0.2), 16_000, after_interrupts=before)  # dropped
    session.end_of_speech(after_interrupts=session.interrupts)
    ended: list[SpeechEnded] = []
    for _ in range(50):
        time.run(0.04)
        ended += [item for item in taken(session) if isinstance(item, SpeechEnded)]
    assert [(event.spoken_ms, event.interrupted) for event in ended[-1:]] == [(400, False)]
