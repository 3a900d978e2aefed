"""Speech from flite, a small synthesizer whose voices were made from recordings of real people.

`flite -psdur` prints each phone with the time of its end: ``pau:0.164 hh:0.255 ax:0.304``.
http://www.festvox.org/flite/
"""

import shutil
import subprocess
import tempfile
import wave
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from lipwire.domain import SAMPLE_RATE_HZ, DependencyMissing, InvalidInput
from lipwire.training.coarticulation import Phone
from lipwire.training.visemes import ARPABET
from studio.speech.utterance import Utterance

DELAYS_S: Final = {"slt": 0.008, "awb": 0.002, "rms": 0.002, "kal16": 0.003}
"""How much later than its printed time a phone sounds: where labels and energy agree best, round
stops, pauses and friction, in 25 sentences of each voice."""

VOICES: Final = tuple(DELAYS_S)
"""The 16 kHz voices of Debian's flite: one woman, a Scot, and two American men."""

TIMEOUT_S: Final = 60


@dataclass(frozen=True, slots=True)
class Pitch:
    """Of a voice: its mean, and how far it rises and falls (standard deviation)."""

    mean_hz: float
    spread_hz: float


def speak(text: str, voice: str, stretch: float = 1.0, pitch: Pitch | None = None) -> Utterance:
    """Speak ``text``; ``stretch`` > 1 is slower. The same arguments give the same samples.

    Without ``pitch`` the voice has its own; with it, its throat stays as long as it was.

    Raises `DependencyMissing` without flite, `InvalidInput` when it refuses.
    """
    program = shutil.which("flite")
    if program is None:
        raise DependencyMissing("flite is not installed (Debian package: flite)")
    if voice not in VOICES:
        raise InvalidInput(f"flite voice {voice!r} is unknown; allowed: {', '.join(VOICES)}")
    with tempfile.TemporaryDirectory(prefix="lipwire-flite-") as folder:
        target = Path(folder) / "speech.wav"
        done = subprocess.run(
            [
                program, "-voice", voice, "--setf", f"duration_stretch={stretch:.3f}",
                *_settings(pitch), "-psdur", "-t", text, "-o", str(target),
            ],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )  # fmt: skip
        if done.returncode != 0 or not target.exists():
            raise InvalidInput(f"flite could not speak {text!r}: {done.stderr.strip()[:200]}")
        with wave.open(str(target)) as sound:
            rate = sound.getframerate()
            pcm = np.frombuffer(sound.readframes(sound.getnframes()), "<i2").astype(np.int16)
    if rate != SAMPLE_RATE_HZ:
        raise InvalidInput(f"flite voice {voice!r} speaks at {rate} Hz, not {SAMPLE_RATE_HZ}")
    return Utterance(f"flite/{voice}", text, pcm, parse_timings(done.stdout, DELAYS_S[voice]))


def _settings(pitch: Pitch | None) -> list[str]:
    if pitch is None:
        return []
    return [
        "--setf", f"int_f0_target_mean={pitch.mean_hz:.1f}",
        "--setf", f"int_f0_target_stddev={pitch.spread_hz:.1f}",
    ]  # fmt: skip


def parse_timings(printed: str, delay_s: float) -> tuple[Phone, ...]:
    """Phones of what ``-psdur`` prints, ``delay_s`` later.

    Raises `InvalidInput` for a phone or number unknown.
    """
    phones: list[Phone] = []
    start_s = 0.0
    for word in printed.split():
        name, _, end = word.rpartition(":")
        if name not in ARPABET:
            raise InvalidInput(f"flite phone {name!r} is unknown")
        end_s = float(end) + delay_s
        phones.append(Phone(ARPABET[name], start_s, end_s))
        start_s = end_s
    return tuple(phones)
