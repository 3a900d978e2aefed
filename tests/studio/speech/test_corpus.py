"""Sentences, synthesizers, and the corpus on disk."""

import random
import re
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from tests.support.quickfirst import quick_first

from lipwire.domain import DependencyMissing, InvalidInput, NotFound
from lipwire.training.coarticulation import Phone
from lipwire.training.visemes import letters
from studio.speech import Utterance, build_corpus, flite, load_split, plan
from studio.speech.__main__ import main
from studio.speech.corpus import ESPEAK_LANGUAGES, ESPEAK_VARIANTS, FLITE_VOICES
from studio.speech.espeak import Espeak, Manner, phones_of_events
from studio.speech.sentences import ENGLISH_HELD_OUT, ENGLISH_TRAIN, FOREIGN, babble, sentence


def espeak() -> Espeak:
    try:
        return Espeak.open()
    except DependencyMissing as error:
        pytest.skip(str(error))


needs_flite = pytest.mark.skipif(shutil.which("flite") is None, reason="flite is not installed")


def words_of(texts: list[str]) -> set[str]:
    return {word for text in texts for word in re.findall(r"[a-z']{4,}", text.lower())}


def test_held_out_words_are_new() -> None:
    """Content words only: function words of up to four letters cannot be avoided."""
    slots = ("name", "adj", "thing")
    known = {w for slot in slots for w in words_of(list(ENGLISH_TRAIN.words[slot]))}
    new = {w for slot in slots for w in words_of(list(ENGLISH_HELD_OUT.words[slot]))}
    assert not known & new
    assert not set(ENGLISH_TRAIN.templates) & set(ENGLISH_HELD_OUT.templates)


def test_held_out_voices_are_new() -> None:
    assert not set(FLITE_VOICES["train"]) & set(FLITE_VOICES["held_out"])
    assert not set(ESPEAK_VARIANTS["train"]) & set(ESPEAK_VARIANTS["held_out"])


@pytest.mark.parametrize("grammar", [ENGLISH_TRAIN, ENGLISH_HELD_OUT, *FOREIGN.values()])
def test_every_slot_is_filled(grammar: object) -> None:
    rng = random.Random(0)
    for _ in range(200):
        text = grammar.sentence(rng)  # type: ignore[attr-defined]
        assert not set("{}") & set(text)
        assert len(text) > 10


def test_sentences_vary_and_repeat_with_the_seed() -> None:
    first = [sentence("en-us", "train", random.Random(k)) for k in range(300)]
    assert first == [sentence("en-us", "train", random.Random(k)) for k in range(300)]
    assert len(set(first)) > 280
    assert babble(random.Random(1)) != babble(random.Random(2))


def test_a_longer_plan_begins_with_the_shorter_one() -> None:
    assert list(plan("train", 5)) == list(plan("train", 50))[:5]
    assert list(plan("train", 5)) != list(plan("train", 5, seed=1))


def test_timings_of_flite() -> None:
    phones = flite.parse_timings("pau:0.100 b:0.200 ay:0.350 pau:0.500 ", 0.01)
    assert [p.symbol for p in phones] == ["", "b", "aɪ", ""]
    assert [round(p.end_s - 0.01, 6) for p in phones] == [0.1, 0.2, 0.35, 0.5]
    assert all(a.end_s == b.start_s for a, b in pairwise(phones))
    with pytest.raises(InvalidInput, match="'zzz'"):
        flite.parse_timings("zzz:0.1", 0.0)


@pytest.mark.slow
@needs_flite
@pytest.mark.parametrize("voice", flite.VOICES)
def test_flite_speaks_with_timings(voice: str) -> None:
    slow = flite.speak("Bob saw a moon.", voice, 1.3)
    quick = flite.speak("Bob saw a moon.", voice, 0.9)
    assert slow.duration_s > 1.15 * quick.duration_s
    assert abs(slow.phones[-1].end_s - slow.duration_s) < 0.3
    assert [p.symbol for p in slow.phones if p.symbol][:3] == ["b", "ɑ", "b"]


@needs_flite
def test_flite_phones_lie_where_they_sound() -> None:
    """An /s/ has its power high up; a vowel has it low."""
    said = flite.speak("Sue saw six seals.", "slt", 1.2)
    ratios = {"s": [], "u": []}  # type: dict[str, list[float]]
    for phone in said.phones:
        if phone.symbol in ratios:
            piece = said.pcm[int(phone.start_s * 16000) : int(phone.end_s * 16000)].astype(float)
            power = np.abs(np.fft.rfft(piece)) ** 2
            hz = np.fft.rfftfreq(len(piece), 1 / 16000)
            ratios[phone.symbol].append(float(power[hz > 3000].sum() / power.sum()))
    assert np.mean(ratios["s"]) > 10 * np.mean(ratios["u"])


@needs_flite
def test_pitch_of_flite_is_what_was_asked_for_and_its_timing_stays() -> None:
    def period_hz(said: Utterance) -> float:
        """From the strongest autocorrelation of the longest vowel, 60..400 Hz."""
        vowel = max((p for p in said.phones if p.symbol == "ɑ"), key=lambda p: p.end_s - p.start_s)
        piece = said.pcm[int(vowel.start_s * 16000) : int(vowel.end_s * 16000)].astype(float)
        likeness = np.correlate(piece, piece, "full")[len(piece) - 1 :]
        return 16000 / (40 + int(np.argmax(likeness[40:267])))

    low = flite.speak("A calm father.", "slt", 1.3, flite.Pitch(100, 1))
    high = flite.speak("A calm father.", "slt", 1.3, flite.Pitch(200, 1))
    assert period_hz(low) == pytest.approx(100, rel=0.1)
    assert period_hz(high) == pytest.approx(200, rel=0.1)
    assert low.phones == high.phones


def test_flite_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(DependencyMissing, match="flite"):
        flite.speak("Hello.", "slt")


@needs_flite
def test_an_unknown_flite_voice_is_refused() -> None:
    with pytest.raises(InvalidInput, match="'nobody'"):
        flite.speak("Hello.", "nobody")


def test_a_stop_begins_with_its_closure() -> None:
    phones = phones_of_events([("a", 0.0), ("p", 0.2), ("b", 0.3), ("", 0.4)], 0.5)
    assert [p.symbol for p in phones] == ["a", "p", "b", ""]
    assert phones[1].start_s == pytest.approx(0.16)
    assert phones[0].end_s == pytest.approx(0.16)
    assert phones[2].start_s == 0.3
    assert phones[3].end_s == 0.5


def test_espeak_speaks_with_timings_and_repeats_itself() -> None:
    first = espeak().speak("Bob and Joe.", "en-us")
    again = espeak().speak("Bob and Joe.", "en-us")
    assert [p.symbol for p in first.phones] == [p.symbol for p in again.phones]
    assert (
        np.abs(
            [a.start_s - b.start_s for a, b in zip(first.phones, again.phones, strict=True)]
        ).max()
        < 0.002
    )
    assert [p.symbol for p in first.phones][:3] == ["b", "ɑː", "b"]
    assert all(0 <= p.start_s < p.end_s <= first.duration_s + 0.01 for p in first.phones)
    slow = espeak().speak("Bob and Joe.", "en-us", Manner(rate_wpm=110))
    assert slow.duration_s > 1.2 * first.duration_s


def test_an_unknown_espeak_voice_is_refused() -> None:
    with pytest.raises(InvalidInput, match="'martian'"):
        espeak().speak("Hello.", "martian")


@pytest.mark.parametrize("language", quick_first(sorted(set(ESPEAK_LANGUAGES)), 2))
def test_every_phone_of_the_corpus_has_a_pose(language: str) -> None:
    rng = random.Random(3)
    for _ in range(15):
        for phone in espeak().speak(sentence(language, "train", rng), language).phones:
            letters(phone.symbol)


def test_an_utterance_comes_back_from_disk(tmp_path: Path) -> None:
    said = Utterance("flite/slt", "Hé.", np.arange(-5, 5, dtype=np.int16), (Phone("tʃ", 0.5, 1.0),))
    said.save(tmp_path / "one.npz")
    back = Utterance.load(tmp_path / "one.npz")
    assert (back.voice, back.text, back.phones) == (said.voice, said.text, said.phones)
    assert np.array_equal(back.pcm, said.pcm)
    assert [p.name for p in tmp_path.iterdir()] == ["one.npz"]


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x03\x04 half"])
def test_a_broken_utterance_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.npz").write_bytes(content)
    with pytest.raises(InvalidInput, match=r"bad\.npz is not an utterance"):
        Utterance.load(tmp_path / "bad.npz")


@pytest.mark.slow
@needs_flite
def test_a_corpus_is_continued_not_made_again(tmp_path: Path) -> None:
    espeak()
    build_corpus(tmp_path, train=2, held_out=1, quiet=True)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.npz")}
    assert len(before) == 3
    assert main([str(tmp_path), "--train", "4", "--held-out", "1", "--quiet"]) == 0
    after = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.npz")}
    assert len(after) == 5
    assert before.items() <= after.items()
    assert [u.text for u in load_split(tmp_path, "train")] == [s.text for s in plan("train", 4)]


def test_an_empty_corpus_says_so(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="make them first"):
        load_split(tmp_path, "train")


def test_a_folder_that_cannot_be_made_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert main([str(tmp_path / "file" / "corpus"), "--quiet"]) == 1
    printed = capsys.readouterr().err
    assert printed.startswith("error: cannot make the folder")
    assert printed.count("\n") == 1
