"""Texts become sentences in many scripts, however they are written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lipwire.domain import InvalidInput
from lipwire.speech.sentences import MAX_SENTENCE, MAX_TEXT, sentences


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello there.", ["Hello there."]),
        ("no mark at all", ["no mark at all"]),
        ("One. Two! Three? Four…  Five", ["One.", "Two!", "Three?", "Four…", "Five"]),
        ('He said "Stop!" Then he left.', ['He said "Stop!"', "Then he left."]),
        ('She asked: "Why?" and left.', ['She asked: "Why?" and left.']),
        ("Really?! Yes.", ["Really?!", "Yes."]),
        ("Wait... what?", ["Wait... what?"]),
        ("Wait... What?", ["Wait...", "What?"]),
        # Full stops that end nothing.
        (
            "Dr. Smith met Mrs. Jones at 9 a.m. today.",
            ["Dr. Smith met Mrs. Jones at 9 a.m. today."],
        ),
        ("We met at 9 a.m. Then we left.", ["We met at 9 a.m.", "Then we left."]),
        (
            "Apples, pears, etc. They cost 3.50 each.",
            ["Apples, pears, etc.", "They cost 3.50 each."],
        ),
        (
            "J. K. Rowling wrote it. So did I. Then",
            ["J. K. Rowling wrote it.", "So did I.", "Then"],
        ),
        ("The U.S. Army, e.g. Anna.", ["The U.S. Army, e.g. Anna."]),
        ("See No. 5, Fig. 3 and vol. 2.", ["See No. 5, Fig. 3 and vol. 2."]),
        ("He said no. Then he left.", ["He said no.", "Then he left."]),
        ("It is 3.14 or 1.000.000. Done.", ["It is 3.14 or 1.000.000.", "Done."]),
        ("Visit www.example.org now. Bye.", ["Visit www.example.org now.", "Bye."]),
        ("1. Open the door. 2. Go in.", ["1. Open the door.", "2. Go in."]),
        ("Das ist z.B. Anna. Und Dr. Kurz.", ["Das ist z.B. Anna.", "Und Dr. Kurz."]),
        # Lines.
        ("A line\nthat goes on.", ["A line that goes on."]),
        ("A title\nThe text.", ["A title", "The text."]),
        ("First.\n\n\nSecond", ["First.", "Second"]),
        ("First\r\nSecond\u2028Third", ["First", "Second", "Third"]),
        # Other scripts.
        ("你好。今天天气很好！你呢？", ["你好。", "今天天气很好！", "你呢？"]),
        ("「はい。」と言った。次", ["「はい。」", "と言った。", "次"]),
        ("नमस्ते। आप कैसे हैं?", ["नमस्ते।", "आप कैसे हैं?"]),
        ("كيف حالك؟ أنا بخير.", ["كيف حالك؟", "أنا بخير."]),
        ("¿Qué tal? ¡Bien!", ["¿Qué tal?", "¡Bien!"]),
        ("Привет. Как дела?", ["Привет.", "Как дела?"]),
        # What has no sound.
        ("Hel\x00lo\x07 the\u200bre\ufeff", ["Hello there"]),
        ("... Hello. --- *** World.", ["Hello.", "--- *** World."]),
        ("Hello. ... !!! World.", ["Hello.", "World."]),
        ("e\u0301tude", ["\u00e9tude"]),
    ],
)
def test_a_text_as_sentences(text: str, expected: list[str]) -> None:
    assert sentences(text) == expected


def test_a_long_sentence_is_cut_at_a_comma() -> None:
    long = "a few words, " * 40 + "and the end."
    parts = sentences(long)
    assert all(part.endswith(",") for part in parts[:-1])
    assert all(MAX_SENTENCE // 3 <= len(part) <= MAX_SENTENCE for part in parts[:-1])
    assert " ".join(parts) == long


@pytest.mark.parametrize("unit", ["word ", "汉", "x", "नि"])
def test_a_long_sentence_without_marks_is_cut_all_the_same(unit: str) -> None:
    long = (unit * 1000).strip()
    parts = sentences(long)
    assert all(len(part) <= MAX_SENTENCE for part in parts)
    assert "".join(parts).replace(" ", "") == long.replace(" ", "")
    assert all(part[0] == unit[0] for part in parts)  # no word, no letter with its mark is torn


@pytest.mark.parametrize("text", ["", " \n\t", "...", "?!", "—", "\x00\x01", "\u200b", "🙂"])
def test_a_text_without_words_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="nothing to say: the text has neither letters"):
        sentences(text)


def test_a_text_may_have_so_many_characters() -> None:
    assert "".join(sentences("x" * MAX_TEXT)) == "x" * MAX_TEXT
    with pytest.raises(InvalidInput, match=r"has 10,001 characters; allowed are up to 10,000"):
        sentences("x" * (MAX_TEXT + 1))


@given(st.text(st.characters() | st.sampled_from(".!?。 \n,Aa1"), max_size=1500))
def test_no_letter_is_lost_or_said_twice(text: str) -> None:
    try:
        said = sentences(text)
    except InvalidInput:
        return
    assert all(0 < len(part) <= MAX_SENTENCE and part == part.strip() for part in said)
    assert not any(ord(character) < 32 for part in said for character in part)
    letters = [character for character in "abcdefghij" if character in text]
    for letter in letters:
        assert "".join(said).count(letter) <= text.count(letter) + text.count("\u0130")
