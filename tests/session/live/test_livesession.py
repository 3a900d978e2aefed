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
)

from lipwire.audio import CHUNK_SAMPLES
from lipwire.domain import (
    AvatarInvalid,
    Call,
    Cancelled,
    DeadlineExceeded,
    Float32Array,
    InvalidInput,
    Overloaded,
    Unavailable,
)
from lipwire.session.live import (
    FramesDropped,
    GoingAway,
    Item,
    LiveSession,
    SessionSettings,
    SpeechBegan,
    SpeechEnded,
    State,
    StateChanged,
)


@pytest.fixture
def time() -> LiveTime:
    return LiveTime()


def watch(time: LiveTime, session: LiveSession, seconds: float) -> list[Item]:
    """What leaves the session meanwhile, with a client that takes everything at once."""
    items: list[Item] = taken(session)
    for _ in range(round(seconds * 25)):
        time.run(0.04)
        items += taken(session)
    return items


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


def test_mouths_at_rest_are_made_ahead_while_nobody_speaks(time: LiveTime) -> None:
    avatar = FakeAvatar(complete=False)
    session = time.session(avatar)
    items = watch(time, session, 1.0)
    assert avatar.rest_asked == list(range(25 + len(frames(items))))[: len(avatar.rest_asked)]
    assert len(avatar.rest_asked) >= 48
    assert {frame.data[1] for frame in frames(items)} == {101}
    avatar.complete = True
    count = len(avatar.rest_asked)
    watch(time, session, 1.0)
    assert len(avatar.rest_asked) == count


class LoudIsVoice:
    """A voice detector that takes what is loud for a voice."""

    def __init__(self) -> None:
        self._pcm = np.empty(0, np.float32)

    def push(self, pcm: Float32Array) -> list[float]:
        self._pcm = np.concatenate([self._pcm, pcm])
        count = len(self._pcm) // CHUNK_SAMPLES
        chunks = self._pcm[: count * CHUNK_SAMPLES].reshape(count, CHUNK_SAMPLES)
        self._pcm = self._pcm[count * CHUNK_SAMPLES :]
        return [float(np.abs(chunk).max() > 0.1) for chunk in chunks]


def with_a_pause() -> Float32Array:
    """Audio at 16 kHz that is buzz, a second and a half of silence, and buzz."""
    return np.concatenate([buzz(0.4), np.zeros(24_000, np.float32), buzz(0.4)])


def test_mouths_at_rest_for_a_pause_in_speech_are_made_before_it(
    time: LiveTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lipwire.session.live.gate.VoiceDetector", LoudIsVoice)
    avatar = FakeAvatar(complete=False)
    session = time.session(avatar, SessionSettings(sound_rate_hz=16_000))
    session.push(with_a_pause(), 16_000)
    session.end_of_speech()
    shown = [frame for frame in frames(watch(time, session, 3.0)) if frame.speech]
    paused = [frame for frame in shown if frame.data[1] == 101]
    assert 15 <= len(paused) <= 25
    assert 0 not in {frame.data[1] for frame in shown}
    assert 255 not in {frame.data[1] for frame in shown}
    assert {frame.position for frame in paused} <= set(avatar.rest_asked)


def test_where_frames_are_not_paced_a_pause_waits_for_its_mouths_at_rest(
    time: LiveTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lipwire.session.live.gate.VoiceDetector", LoudIsVoice)
    avatar = FakeAvatar(complete=False)
    session = time.session(avatar, SessionSettings(sound_rate_hz=16_000, paced=False))
    items: list[Item] = []
    monkeypatch.setattr(session.outbox, "put", lambda *others: items.extend(others))
    session.push(with_a_pause(), 16_000)
    session.end_of_speech()
    assert [frame.position for frame in frames(items)] == list(range(58))
    assert 255 not in {frame.data[1] for frame in frames(items)}


def test_mouths_at_rest_that_cannot_be_made_are_tried_once_a_second(time: LiveTime) -> None:
    def refuse(_: int) -> None:
        raise Overloaded("busy")

    avatar = FakeAvatar(complete=False, on_rest=refuse)
    session = time.session(avatar)
    items = watch(time, session, 5.0)
    assert 4 <= len(avatar.rest_asked) <= 7
    assert {frame.data[1] for frame in frames(items)} == {255}
    avatar.on_rest = lambda _: None
    items = watch(time, session, 3.0)
    assert frames(items)[-1].data[1] == 101


def test_another_avatar_is_shown_once_nobody_speaks(time: LiveTime) -> None:
    first, second = FakeAvatar(1), FakeAvatar(2)
    session = time.session(first)
    session.push(buzz(2), 16_000)
    session.end_of_speech()
    items = watch(time, session, 1.0)
    session.change_avatar(second.live())
    items += watch(time, session, 3.0)
    shown = frames(items)
    change = next(index for index, frame in enumerate(shown) if frame.data[0] == 2)
    assert {frame.data[0] for frame in shown[:change]} == {1}
    assert {frame.data[:2] for frame in shown[change:]} == {bytes([2, 102])}
    assert shown[change - 1].data[1] == 101  # the mouth was closed
    assert shown[change - 4].speech == 1
    assert [frame.position for frame in shown] == list(range(len(shown)))
    assert (first.closed, second.closed) == (1, 0)
    assert session.avatar.name == "avatar2"
    session.close()
    assert (first.closed, second.closed) == (1, 1)


def test_an_avatar_that_another_replaces_is_closed(time: LiveTime) -> None:
    avatars = [FakeAvatar(mark) for mark in range(4)]
    session = time.session(avatars[0])
    session.push(buzz(1), 16_000)
    session.change_avatar(avatars[1].live())
    session.change_avatar(avatars[2].live())
    assert [avatar.closed for avatar in avatars] == [0, 1, 0, 0]
    session.close()
    session.change_avatar(avatars[3].live())
    assert [avatar.closed for avatar in avatars] == [1, 1, 1, 1]


def test_an_avatar_whose_mouths_are_still_made_can_be_changed(time: LiveTime) -> None:
    first, second = FakeAvatar(1, complete=False), FakeAvatar(2, complete=False)
    session = time.session(first)
    watch(time, session, 0.2)
    session.change_avatar(second.live())
    items = watch(time, session, 0.4)
    assert frames(items)[-1].data[:2] == bytes([2, 102])
    assert first.closed == 1


def test_a_change_that_fails_closes_the_new_avatar_only(time: LiveTime) -> None:
    def fail(_: int) -> None:
        raise AvatarInvalid("broken")

    first, second = FakeAvatar(1), FakeAvatar(2, complete=False, on_rest=fail)
    session = time.session(first)
    with pytest.raises(AvatarInvalid):
        session.change_avatar(second.live())
    items = watch(time, session, 0.4)
    assert {frame.data[0] for frame in frames(items)} == {1}
    assert (first.closed, second.closed) == (0, 1)


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
