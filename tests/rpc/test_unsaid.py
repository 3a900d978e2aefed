"""What a session was given and has not said."""

import numpy as np
import pytest

from lipwire.rpc.unsaid import Audio, EndOfSpeech, Given, Text, Unsaid
from lipwire.session.live import Caption, SpeechBegan, SpeechEnded

RATE_HZ = 1000
END = EndOfSpeech()


def audio(first: int, count: int) -> Audio:
    """``count`` ms, whose samples are numbered."""
    return Audio(np.arange(first, first + count, dtype=np.int16)[:, None], RATE_HZ)


def given(*each: Given) -> Unsaid:
    unsaid = Unsaid()
    for one in each:
        unsaid.give(one)
    return unsaid


def left(unsaid: Unsaid) -> list[object]:
    """Audio as its first sample and its length."""
    return [
        (int(one.samples[0, 0]), len(one.samples)) if isinstance(one, Audio) else one
        for one in unsaid
    ]


def ended(ms: int, left_ms: int = 0) -> SpeechEnded:
    return SpeechEnded(0, 1, ms, bool(left_ms), left_ms)


@pytest.mark.parametrize("told_ms", [100, 97, 102])
def test_a_piece_that_was_said_is_gone_with_its_end(told_ms: int) -> None:
    unsaid = given(audio(0, 60), audio(60, 40), END, audio(100, 50), END)
    unsaid.take(ended(told_ms))
    assert left(unsaid) == [(100, 50), END]
    unsaid.take(ended(50))
    assert left(unsaid) == []


def test_what_came_after_a_pause_is_the_next_piece() -> None:
    unsaid = given(audio(0, 60), audio(60, 40))
    unsaid.take(ended(60))
    assert left(unsaid) == [(60, 40)]


def test_a_piece_that_is_broken_off_goes_on_where_it_was() -> None:
    unsaid = given(audio(0, 60), audio(60, 100), END, audio(160, 10), END)
    assert unsaid.break_off(500) is None
    unsaid.take(SpeechBegan(1000, 1))
    assert unsaid.break_off(1080) == 80
    assert left(unsaid) == [(80, 80), END, (160, 10), END]
    unsaid.take(SpeechBegan(0, 2))
    unsaid.take(ended(80))
    assert left(unsaid) == [(160, 10), END]


def test_texts_go_with_their_last_sentence() -> None:
    unsaid = given(Text("One. Two  of\nthem. Three."), Text("Four."))
    unsaid.take(SpeechBegan(0, 1))
    unsaid.take(Caption(0, 1, "One."))
    unsaid.take(Caption(900, 1, "Two of them."))
    assert unsaid.break_off(1500) == 1500
    assert left(unsaid) == [Text("Two  of\nthem. Three."), Text("Four.")]
    for caption in ("Two of them.", "Three."):
        unsaid.take(Caption(0, 2, caption))
    unsaid.take(ended(1000))
    assert left(unsaid) == [Text("Four.")]
    unsaid.take(Caption(0, 3, "four"))  # as a voice may write it
    unsaid.take(ended(100))
    assert left(unsaid) == []


def test_what_was_dropped_or_refused_is_not_said_again() -> None:
    unsaid = given(Text("a", 1), Text("b", 2), audio(0, 10), Text("c", 3), END)
    unsaid.drop_text(2)
    assert left(unsaid) == [Text("a", 1), (0, 10), Text("c", 3), END]
    unsaid.drop_text(2)
    unsaid.drop_text(0)
    assert len(unsaid) == 4
    unsaid.count_texts_anew()
    assert left(unsaid) == [Text("a", 1), (0, 10), Text("c", 2), END]
    unsaid.drop_text(2)
    assert left(unsaid) == [Text("a", 1), (0, 10), END]
    unsaid.drop()
    unsaid.drop_text(1)
    assert len(unsaid) == 0


def test_no_more_is_kept_than_may_not_have_been_said() -> None:
    unsaid = Unsaid()
    for second in range(400):
        unsaid.give(audio(second, 1000))
    assert len(unsaid) == 180
    unsaid.give(END)
    unsaid.give(audio(7, 5))
    unsaid.take(SpeechBegan(0, 1))
    assert unsaid.break_off(300_000) == 300_000
    assert left(unsaid)[0] == (300, 1000)
    unsaid.take(ended(100_000))
    assert left(unsaid) == [(7, 5)]
