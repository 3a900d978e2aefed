"""Texts that sessions say, in virtual time."""

import threading
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from tests.support.liveparts import AtOnce, FakeAvatar, LiveTime, sounds, watch
from tests.support.waiting import WAIT_S, until

from lipwire.config import CompositingConfig
from lipwire.config.compositing import SpeechSettings
from lipwire.domain import InvalidInput, Overloaded, Unavailable
from lipwire.session.live import Caption, Item, SessionSettings, SpeechEnded
from lipwire.speech import SpokenPiece
from lipwire.speech.sentences import sentences
from lipwire.wiring import speaking as module
from lipwire.wiring.speaking import MOST_TEXTS, Speaking, open_speaking

RATE_HZ = 16_000


class FakeVoice:
    """Says each sentence for half a second, louder by 0.1 for each one that it has said."""

    name = "fake"

    def __init__(self) -> None:
        self.made: list[str] = []
        self.prepared = 0
        self.released = threading.Event()
        self.released.set()
        self.error: Exception | None = None
        self.seconds = 0.5

    def prepare(self) -> None:
        self.prepared += 1
        if self.error is not None:
            raise self.error

    def say(self, text: str) -> Generator[SpokenPiece, None, None]:
        return self._spoken(sentences(text))

    def _spoken(self, said: list[str]) -> Generator[SpokenPiece, None, None]:
        for sentence in said:
            self.made.append(sentence)
            assert self.released.wait(60)
            if self.error is not None:
                raise self.error
            level = min(0.9, 0.1 * len(self.made))
            pcm = np.full(round(self.seconds * RATE_HZ), level, np.float32)
            yield SpokenPiece(pcm, RATE_HZ, sentence)


@pytest.fixture
def voice() -> FakeVoice:
    return FakeVoice()


@pytest.fixture
def time() -> LiveTime:
    return LiveTime()


def captions(items: list[Item]) -> list[str]:
    return [item.text for item in items if isinstance(item, Caption)]


def ends(items: list[Item]) -> list[tuple[int, int, bool]]:
    return [
        (item.speech, item.spoken_ms, item.interrupted)
        for item in items
        if isinstance(item, SpeechEnded)
    ]


def test_texts_are_said_in_order_with_their_captions(voice: FakeVoice, time: LiveTime) -> None:
    with Speaking(voice, AtOnce()) as speak:
        session = time.session(FakeAvatar())
        session.outbox.clear()
        speak(session, "One. Two.")
        speak(session, "Three.")
        items = watch(time, session, 3.0)
    assert captions(items) == ["One.", "Two.", "Three."]
    assert ends(items) == [(1, 1000, False), (2, 500, False)]
    heard = np.concatenate([sound.samples for sound in sounds(items) if sound.speech])
    np.testing.assert_allclose(heard[:8000], 0.1, atol=1e-3)
    np.testing.assert_allclose(heard[8000:16000], 0.2, atol=1e-3)


def test_a_caption_is_told_with_the_frame_in_which_its_sentence_begins(
    voice: FakeVoice, time: LiveTime
) -> None:
    voice.seconds = 0.5
    with Speaking(voice, AtOnce()) as speak:
        session = time.session(FakeAvatar())
        session.outbox.clear()
        speak(session, "One. Two. Three.")
        items = watch(time, session, 3.0)
    said = [item for item in items if isinstance(item, Caption)]
    first = next(sound for sound in sounds(items) if sound.speech)
    # Sentences begin after 0, 500 and 1000 ms: in the frames of 0, 480 and 1000 ms.
    assert [caption.at_ms - first.at_ms for caption in said] == [0, 480, 1000]
    assert {caption.speech for caption in said} == {1}


def test_an_interrupt_drops_what_is_said_and_what_waits(voice: FakeVoice, time: LiveTime) -> None:
    with Speaking(voice, ThreadPoolExecutor(1)) as speak:
        session = time.session(FakeAvatar())
        session.outbox.clear()
        voice.released.clear()
        speak(session, "One. Two.")
        speak(session, "Three.")
        until(lambda: voice.made == ["One."])
        session.interrupt()
        speak(session, "Four.")  # is new
        voice.released.set()
        until(lambda: not speak._waiting)
        items = watch(time, session, 2.0)
    assert voice.made == ["One.", "Four."]
    assert captions(items) == ["Four."]
    assert ends(items) == [(1, 500, False)]


def test_what_was_pushed_after_an_interrupt_is_not_ended_by_the_text_before(
    voice: FakeVoice, time: LiveTime
) -> None:
    with Speaking(voice, ThreadPoolExecutor(1)) as speak:
        session = time.session(FakeAvatar())
        session.outbox.clear()
        voice.released.clear()
        speak(session, "One.")
        until(lambda: voice.made == ["One."])
        session.interrupt()
        session.push(np.full(4000, 0.5, np.float32), RATE_HZ)
        voice.released.set()
        until(lambda: not speak._waiting)
        session.push(np.full(4000, 0.5, np.float32), RATE_HZ)
        session.end_of_speech()
        items = watch(time, session, 2.0)
    assert ends(items) == [(1, 500, False)]


def test_so_many_texts_may_wait(voice: FakeVoice, time: LiveTime) -> None:
    with Speaking(voice, ThreadPoolExecutor(2)) as speak:
        session = time.session(FakeAvatar())
        voice.released.clear()
        speak(session, "Zero.")
        until(lambda: voice.made)
        for number in range(MOST_TEXTS):
            speak(session, f"Number {number}.")
        with pytest.raises(Overloaded, match="8 texts wait to be said; allowed are 8") as refused:
            speak(session, "Too many.")
        assert refused.value.retry_after_s
        other = time.session(FakeAvatar())
        speak(other, "Of another session.")
        session.interrupt()
        speak(session, "After that.")  # those before it do not count any more
        voice.released.set()
        until(lambda: not speak._waiting)
    assert sorted(voice.made) == ["After that.", "Of another session.", "Zero."]


def test_what_cannot_be_said_is_refused_at_once(voice: FakeVoice, time: LiveTime) -> None:
    with Speaking(voice, AtOnce()) as speak:
        session = time.session(FakeAvatar())
        with pytest.raises(InvalidInput, match="nothing to say"):
            speak(session, "...")
        with pytest.raises(InvalidInput, match="allowed are up to 10,000"):
            speak(session, "x" * 10_001)
    assert voice.made == []


@pytest.mark.parametrize("error", [Unavailable("away"), ValueError("a fault")])
def test_a_voice_that_fails_ends_that_text_alone(
    voice: FakeVoice, time: LiveTime, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    with Speaking(voice, AtOnce()) as speak:
        session = time.session(FakeAvatar())
        session.outbox.clear()
        voice.error = error
        speak(session, "One.")
        assert "a text was not said to its end" in caplog.text
        voice.error = None
        speak(session, "Two.")
        items = watch(time, session, 2.0)
    assert captions(items) == ["Two."]
    assert not session.closed


def test_a_session_that_has_ended_says_nothing(voice: FakeVoice, time: LiveTime) -> None:
    with Speaking(voice, ThreadPoolExecutor(1)) as speak:
        session = time.session(FakeAvatar())
        voice.released.clear()
        speak(session, "One. Two.")
        speak(session, "Three.")
        until(lambda: voice.made)
        session.close()
        voice.released.set()
        until(lambda: not speak._waiting)
    assert voice.made == ["One."]


def test_closing_does_not_wait_for_a_session_without_room(voice: FakeVoice, time: LiveTime) -> None:
    settings = SessionSettings(sound_rate_hz=RATE_HZ, gate=False, max_buffered_speech_s=1)
    session = time.session(FakeAvatar(), settings)
    with Speaking(voice, ThreadPoolExecutor(1)) as speak:
        speak(session, "One. Two. Three. Four. Five.")
        until(lambda: len(voice.made) == 3)  # two fill it
    assert len(voice.made) == 3
    with pytest.raises(Unavailable, match="shutting down"):
        speak(session, "Six.")


def test_the_voice_is_loaded_once_before_it_is_needed(
    voice: FakeVoice, caplog: pytest.LogCaptureFixture
) -> None:
    with Speaking(voice, AtOnce()) as speak:
        voice.error = Unavailable("away")
        speak.wait_prepared(0)  # for nothing
        speak.prepare()
        speak.prepare()
        speak.wait_prepared(WAIT_S)
        assert voice.prepared == 1
        assert "the voice fake cannot be used: away" in caplog.text


def test_a_server_has_the_voice_that_it_is_configured_with(
    voice: FakeVoice, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: dict[str, object] = {}
    asked: list[SpeechSettings] = []

    def opened(settings: SpeechSettings) -> FakeVoice | None:
        asked.append(settings)
        return None if settings.voice == "none" else voice

    monkeypatch.setattr(module, "open_voice", opened)
    config = CompositingConfig(speech=SpeechSettings(voice="none"))
    with open_speaking(config, tell=told.__setitem__) as speak:
        assert (speak, told) == (None, {})
    with open_speaking(CompositingConfig(), tell=told.__setitem__) as speak:
        assert isinstance(speak, Speaking)
        assert told == {"Voice": {"Texts are said by": "fake"}}
    assert asked == [config.speech, SpeechSettings()]
