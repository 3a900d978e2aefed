"""Festival's voices: their phones, their timings, their sound."""

import hashlib
import random
import wave
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from lipwire.domain import DependencyMissing, InvalidInput
from lipwire.training.visemes import letters
from studio.speech import Utterance, festival, plan
from studio.speech.festival import VOICES, parse_timings, unwrapped
from studio.speech.sentences import sentence

# One of each kind: diphones, HTS, and an encoding and a sample rate that are not English.
KINDS = ("ked_diphone", "cmu_us_slt_arctic_hts", "hy_fi_mv_diphone", "czech_dita")
SAID = {
    "en-us": "Sue saw six seals at noon.",
    "fi": "Väinö osti sinisen veneen.",
    "cs": "Žofie kupuje bílou košili.",
}


def speak(text: str, voice: str, stretch: float = 1.0, pitch: float = 1.0) -> Utterance:
    try:
        return festival.speak(text, voice, stretch, pitch)
    except DependencyMissing as error:
        pytest.skip(str(error))


def fake_festival(monkeypatch: pytest.MonkeyPatch, folder: Path, body: str) -> None:
    program = folder / "festival"
    program.write_text(f"#!/bin/sh\n{body}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def write_wave(path: Path, samples: np.ndarray, rate_hz: int = 16000) -> None:
    with wave.open(str(path), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(rate_hz)
        sound.writeframes(samples.astype("<i2").tobytes())


def high_share(said: Utterance, shift_s: float) -> float:
    """How much more of its power an /s/ has above 3 kHz than a vowel (powers of ten), were all
    phones shifted."""
    shares: dict[bool, list[float]] = {True: [], False: []}
    for phone in said.phones:
        letter = phone.symbol[:1]
        if letter and letter in "sʃiɪuæøyɔɛoa":
            start, end = (int((s + shift_s) * 16000) for s in (phone.start_s, phone.end_s))
            piece = said.pcm[max(start, 0) : end].astype(float)
            power = np.abs(np.fft.rfft(piece)) ** 2
            hz = np.fft.rfftfreq(len(piece), 1 / 16000)
            high, low = power[hz > 3000].sum(), power[hz < 3000].sum()
            shares[letter in "sʃ"].append(float(np.log10((high + 1) / (low + 1))))
    return float(np.mean(shares[True]) - np.mean(shares[False]))


@pytest.mark.parametrize("name", VOICES)
def test_every_phone_has_a_pose(name: str) -> None:
    for ipa in VOICES[name].phones.values():
        letters(ipa)


@pytest.mark.parametrize("name", VOICES)
def test_every_voice_has_sentences_that_it_can_read(name: str) -> None:
    voice = VOICES[name]
    for k in range(50):
        sentence(voice.language, "train", random.Random(k)).encode(voice.encoding)


def test_timings_follow_each_other() -> None:
    printed = "# 0.1\np 0.15\na1 0.3\nt 0.4\nt 0.5\no 0.6\n# 0.9\n"
    phones = parse_timings(printed, VOICES["lp_diphone"], 0.8)
    assert [p.symbol for p in phones] == ["", "p", "a", "t", "o", ""]
    assert [round(p.end_s, 6) for p in phones] == [0.095, 0.145, 0.295, 0.495, 0.595, 0.8]
    assert all(a.end_s == b.start_s for a, b in pairwise(phones))
    with pytest.raises(InvalidInput, match="'zzz'"):
        parse_timings("zzz 0.1\n", VOICES["lp_diphone"], 1.0)


def test_peaks_that_wrapped_are_where_they_belong() -> None:
    true = 40000 * np.sin(np.arange(4000) / 30)
    wrapped = true.astype(np.int64).astype(np.int16)
    assert np.abs(np.diff(wrapped.astype(int))).max() > 60000
    assert np.abs(unwrapped(wrapped) - true * 0.75).max() < 2
    quiet = (true / 4).astype(np.int16)
    assert np.array_equal(unwrapped(quiet), quiet)


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_festival_speaks_with_timings(name: str) -> None:
    text = SAID[VOICES[name].language]
    slow, quick = speak(text, name, 1.3), speak(text, name, 0.9)
    assert slow.duration_s > 1.2 * quick.duration_s
    assert abs(slow.phones[-1].end_s - slow.duration_s) < 0.1
    assert slow.phones[0].symbol == ""
    assert all(p.start_s < p.end_s <= slow.duration_s + 1e-3 for p in slow.phones)
    assert slow.pcm.dtype == np.int16
    assert np.array_equal(speak(text, name, 1.3).pcm, slow.pcm)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    sorted({*KINDS} - {"hy_fi_mv_diphone"}),  # its /s/ is dull
)
def test_phones_lie_where_they_sound(name: str) -> None:
    """Friction is high up and vowels are low; moved by 60 ms the phones would fit worse."""
    said = speak(SAID[VOICES[name].language], name, 1.2)
    assert high_share(said, 0.0) > 1
    assert high_share(said, 0.0) > max(high_share(said, -0.06), high_share(said, 0.06)) + 0.3


@pytest.mark.slow
def test_letters_beyond_ascii_are_read() -> None:
    said = speak("Žofie.", "czech_dita")
    assert [p.symbol for p in said.phones if p.symbol][:3] == ["ʒ", "o", "f"]


@pytest.mark.slow
def test_the_pitch_changes_and_the_timing_does_not() -> None:
    low, high = (speak(SAID["fi"], "hy_fi_mv_diphone", 1.0, pitch) for pitch in (0.8, 1.25))
    assert [p.end_s for p in low.phones[:-1]] == [p.end_s for p in high.phones[:-1]]
    assert not np.array_equal(low.pcm[:20000], high.pcm[:20000])


@pytest.mark.slow
def test_text_is_never_a_program() -> None:
    said = speak('Say ") (quit) \\ "(error) now.', "ked_diphone")
    assert [p.symbol for p in said.phones if p.symbol][-2:] == ["n", "aʊ"]


@pytest.mark.slow
def test_text_without_words_is_refused() -> None:
    speak("Hello.", "ked_diphone")
    with pytest.raises(InvalidInput):
        festival.speak(" ", "ked_diphone")


def test_a_voice_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(DependencyMissing, match="Debian package: festival"):
        festival.speak("Hello.", "ked_diphone")
    fake_festival(monkeypatch, tmp_path, "echo no such voice")
    with pytest.raises(DependencyMissing, match="festvox-kdlpc16k"):
        festival.speak("Hello.", "ked_diphone")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("echo SIOD ERROR >&2; exit 255", "could not speak .*SIOD ERROR"),
        ("exit 0", "could not speak"),
        ('cp "$WAVE" speech.wav; printf "pau 0.5\\n"', "nothing to say"),
        ("exec sleep 60", "took more than"),
    ],
)
def test_a_failure_is_one_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, body: str, reason: str
) -> None:
    write_wave(tmp_path / "some.wav", np.zeros(8000))
    monkeypatch.setenv("WAVE", str(tmp_path / "some.wav"))
    monkeypatch.setattr(festival, "TIMEOUT_S", 60 if "sleep" not in body else 0.2)
    fake_festival(monkeypatch, tmp_path, body)
    with pytest.raises(InvalidInput, match=reason):
        festival.speak("Hello.", "ked_diphone")


def test_any_sample_rate_becomes_ours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_wave(tmp_path / "some.wav", np.zeros(44100), 44100)
    fake_festival(monkeypatch, tmp_path, f'cp "{tmp_path}/some.wav" speech.wav; echo m 0.5')
    said = festival.speak("Hm.", "ked_diphone")
    assert len(said.pcm) == 16000
    assert said.phones[0].end_s == pytest.approx(0.505)


@pytest.mark.parametrize(
    ("text", "voice", "reason"),
    [("Hello.", "nobody", "'nobody' is unknown"), ("Привет.", "czech_dita", "cannot say 'П'")],
)
def test_what_cannot_be_said_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, voice: str, reason: str
) -> None:
    fake_festival(monkeypatch, tmp_path, "exit 1")
    with pytest.raises(InvalidInput, match=reason):
        festival.speak(text, voice)


def test_training_hears_every_voice_and_the_held_out_split_stays() -> None:
    said = Counter(line.voice for line in plan("train", 2000) if line.engine == "festival")
    assert set(said) == set(VOICES)
    assert sum(said.values()) == pytest.approx(600, abs=60)
    assert said["ked_diphone"] > 70
    assert min(said.values()) > 25
    held_out = [
        (line.name, line.engine, line.voice, line.text, line.stretch, line.manner)
        for line in plan("held_out", 120)
    ]
    assert not any(engine == "festival" for _, engine, *_ in held_out)
    # Figures of different days are compared on it.
    assert hashlib.sha256(repr(held_out).encode()).hexdigest().startswith("e9e6b664d93f826c")


def test_every_voice_is_in_the_makefile() -> None:
    makefile = (Path(__file__).parents[3] / "Makefile").read_text()
    assert {voice.package for voice in VOICES.values()} <= set(makefile.split())
