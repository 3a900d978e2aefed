"""The avatar of one session: its mouths at rest, and another in its place."""

import numpy as np
import pytest
from tests.support.liveparts import (
    FakeAvatar,
    LiveTime,
    buzz,
    frames,
    watch,
)

from lipwire.audio import CHUNK_SAMPLES
from lipwire.domain import (
    AvatarInvalid,
    Float32Array,
    Overloaded,
)
from lipwire.session.live import (
    Item,
    SessionSettings,
)


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
