"""The voice that is there without any other program, and without a network."""

import socket
import sys
import threading
from typing import Any

import numpy as np
import pytest

from lipwire.domain import DependencyMissing, InvalidInput, Unavailable
from lipwire.speech import hibarivoice
from lipwire.speech.hibarivoice import HibariVoice

TEXT = "Good morning, my name is Anna. Shall we begin with the first question?"


class Made:
    """A synthesiser that keeps what it was asked for."""

    sample_rate = 24_000

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.together = self.most_together = 0
        self.sound: Any = np.full(2400, 0.5, np.float32)

    def __call__(self, text: str, speed: float = 1.0) -> Any:
        self.together += 1
        self.most_together = max(self.most_together, self.together)
        self.asked.append(f"{text} {speed:g}")
        sound = self.sound(text) if callable(self.sound) else self.sound
        self.together -= 1
        return sound


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Made:
    """In place of the package."""
    made = Made()
    monkeypatch.setattr(hibarivoice, "hibari_is_installed", lambda: True)
    monkeypatch.setattr(HibariVoice, "_hibari", lambda self: made)
    return made


def test_the_second_sentence_is_made_when_it_is_asked_for(made: Made) -> None:
    pieces = HibariVoice(speed=1.5).say("One. Two.")
    assert made.asked == []
    first = next(pieces)
    assert (first.text, first.rate_hz, len(first.pcm)) == ("One.", 24_000, 2400)
    assert made.asked == ["One. 1.5"]
    assert [piece.text for piece in pieces] == ["Two."]


def test_what_cannot_be_said_is_refused_before_anything_is_made(made: Made) -> None:
    voice = HibariVoice()
    with pytest.raises(InvalidInput, match="nothing to say"):
        voice.say("...")
    with pytest.raises(InvalidInput, match="speaks English, and the text has no Latin letters"):
        voice.say("你好。")
    assert made.asked == []


def test_a_long_number_is_read_digit_by_digit(made: Made) -> None:
    list(HibariVoice().say("Call 0123456789012345."))
    assert made.asked == ["Call 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5. 1"]


def test_a_sentence_without_sound_is_left_out(made: Made) -> None:
    made.sound = lambda text: np.zeros(0 if "好" in text else 100, np.float32) + np.float32(0.5)
    assert [piece.text for piece in HibariVoice().say("One. 你好。 Two.")] == ["One.", "Two."]


def test_samples_are_brought_into_range(made: Made) -> None:
    made.sound = np.array([0.5, 2.0, -3.0, np.nan], np.float32)
    (piece,) = HibariVoice().say("One.")
    assert piece.pcm[:3].tolist() == [0.5, 1.0, -1.0]
    assert np.isfinite(piece.pcm).all()


def test_what_goes_wrong_in_the_package_is_one_line(made: Made) -> None:
    def fail(text: str) -> None:
        raise IndexError("list index out of range")

    made.sound = fail
    with pytest.raises(Unavailable, match=r"^the voice hibari failed: IndexError$"):
        list(HibariVoice().say("One."))


def test_where_it_fails_on_a_letter_the_rest_is_said(made: Made) -> None:
    def fail(text: str) -> Any:
        if not text.isascii():
            raise TypeError("ord() expected a character")
        return np.full(2400, 0.5, np.float32)

    made.sound = fail
    assert [piece.text for piece in HibariVoice().say("Café İ.")] == ["Café İ."]
    assert made.asked == ["Café İ. 1", "Cafe I. 1"]


def test_one_thread_at_a_time_is_served(made: Made) -> None:
    voice = HibariVoice()
    both = threading.Barrier(2)

    def say() -> None:
        both.wait()
        for _ in voice.say("One. " * 50):
            pass

    threads = [threading.Thread(target=say) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(made.asked), made.most_together) == (100, 1)


def test_without_the_extra_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hibarivoice, "hibari_is_installed", lambda: False)
    with pytest.raises(DependencyMissing, match=r"pip install lipwire\[speech\]"):
        HibariVoice()


# -- the package itself ----------------------------------------------------------------------------


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What is looked up or connected to, which fails."""
    seen: list[object] = []

    def refuse(*arguments: object, **_: object) -> None:
        seen.append(arguments)
        raise OSError("no network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    return seen


@pytest.fixture(scope="module")
def real() -> HibariVoice:
    """Loaded when it is first used."""
    pytest.importorskip("hibari")
    return HibariVoice()


@pytest.mark.slow
def test_the_words_are_there(
    real: HibariVoice, no_network: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    sound = HibariVoice._sound

    def counted(self: HibariVoice, sentence: str) -> Any:
        made.append(sentence)
        return sound(self, sentence)

    monkeypatch.setattr(HibariVoice, "_sound", counted)
    pieces = real.say(TEXT)
    first = next(pieces)
    assert made == [first.text] == ["Good morning, my name is Anna."]
    both = [first, *pieces]
    assert [piece.text for piece in both] == made
    for piece in both:
        assert piece.pcm.dtype == np.float32
        assert (piece.pcm.ndim, piece.rate_hz) == (1, 24_000)
        seconds = len(piece.pcm) / piece.rate_hz
        assert 0.05 < seconds / len(piece.text) < 0.12  # people say 12 to 18 characters a second
        assert 0.02 < float(np.sqrt(np.mean(piece.pcm**2))) < 0.3
        assert 0.1 < float(np.abs(piece.pcm).max()) < 0.999
        assert float(np.abs(piece.pcm[: round(0.05 * piece.rate_hz)]).max()) < 0.05
    assert no_network == []


@pytest.mark.slow
def test_faster_speech_is_shorter(real: HibariVoice) -> None:
    (usual,) = real.say("This is a test of how fast it is.")
    fast = HibariVoice(speed=1.6)
    fast._loaded = real._loaded
    (faster,) = fast.say("This is a test of how fast it is.")
    assert 0.5 < len(faster.pcm) / len(usual.pcm) < 0.8


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [
        "1" * 400,
        "a" * 700,
        "x https://example.org/?q=1&r=[2](3) \\n <b>B&amp;C</b> C:\\temp",
        "½ ² Ⅷ ① ㈱ £5 €3.50 -17 °C 10/12/2019 3:30pm",
        "naïve Zoë Łódź ŉ ǆ",
        "hello 🙂 你好 नमस्ते שלום",
        "[[h@l'oU]] [word](/h@/) {} __ ** `code`",
        "' \" a",
        "A.B.C.D.E.F.G. " * 20,
        "17İ8 is odd",
    ],
)
def test_odd_texts_are_said_all_the_same(real: HibariVoice, text: str) -> None:
    pieces = list(real.say(text))
    assert pieces
    assert all(np.isfinite(piece.pcm).all() and len(piece.pcm) for piece in pieces)


@pytest.mark.slow
def test_nothing_but_the_voice_in_the_package_is_opened(
    no_network: list[object], monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    pytest.importorskip("hibari")
    from hibari import voices

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a voice was looked for")

    monkeypatch.setenv("HIBARI_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(voices, "download", refuse)
    monkeypatch.setattr(voices, "voice_path", refuse)
    monkeypatch.setattr(sys.modules["hibari.tts"], "voice_path", refuse)
    voice = HibariVoice()
    voice.prepare()
    assert next(voice.say("Hello.")).text == "Hello."
    assert not (tmp_path / "home").exists()
    assert no_network == []
