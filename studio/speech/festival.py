"""Speech from Festival, whose voices were made from recordings of many people in many languages.

A Scheme script lets it synthesise a text and print its ``Segment`` relation: each phone with the
time of its end. http://www.festvox.org/docs/manual-2.4.0/festival_toc.html
"""

import os
import shutil
import subprocess
import tempfile
import wave
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import soxr

from lipwire.domain import SAMPLE_RATE_HZ, DependencyMissing, InvalidInput
from lipwire.training.coarticulation import Phone
from lipwire.training.visemes import ARPABET
from studio.speech.festival_phones import CATALAN, CZECH, FINNISH, ITALIAN
from studio.speech.utterance import Utterance


@dataclass(frozen=True, slots=True)
class Voice:
    """What has to be known of a voice to let it speak."""

    package: str  # Debian's
    language: str  # whose sentences it speaks, as `sentences` names them
    encoding: str  # of the text that it reads
    phones: Mapping[str, str]  # its names -> IPA
    delay_s: float = 0.0  # the sound of a phone comes this much after its printed time
    parametric: bool = False  # HTS: has its own way to slow down, and keeps its pitch


VOICES: Final[dict[str, Voice]] = {
    "ked_diphone": Voice("festvox-kdlpc16k", "en-us", "ascii", ARPABET, 0.005),
    "cmu_us_slt_arctic_hts": Voice("festvox-us-slt-hts", "en-us", "ascii", ARPABET, 0.01, True),
    "lp_diphone": Voice("festvox-italp16k", "it", "iso-8859-1", ITALIAN, -0.005),
    "pc_diphone": Voice("festvox-itapc16k", "it", "iso-8859-1", ITALIAN, -0.005),
    "suo_fi_lj_diphone": Voice("festvox-suopuhe-lj", "fi", "iso-8859-1", FINNISH, 0.005),
    "hy_fi_mv_diphone": Voice("festvox-suopuhe-mv", "fi", "iso-8859-1", FINNISH, 0.005),
    "czech_dita": Voice("festvox-czech-dita", "cs", "iso-8859-2", CZECH),
    "czech_krb": Voice("festvox-czech-krb", "cs", "iso-8859-2", CZECH),
    "czech_machac": Voice("festvox-czech-machac", "cs", "iso-8859-2", CZECH, 0.005),
    "czech_ph": Voice("festvox-czech-ph", "cs", "iso-8859-2", CZECH, 0.005),
    "upc_ca_ona_hts": Voice("festvox-ca-ona-hts", "ca", "iso-8859-15", CATALAN, 0.005, True),
}
"""A boy, five men and five women; the delays are means over friction, pauses and closures, to 5 ms.

All are free (Debian's ``main``): ked, slt under Festival's own licence of the BSD kind; lp, pc and
ph GPL-2+, dita, krb and machac GPL-3+, lj and mv LGPL, ona LGPL-2.1+. What they say is data for
training; no part of them is shipped. Left out: ``festvox-ru``, whose printed times are up to 30 ms
off; kal, who is flite's kal16; and the Indian voices, for want of sentences.
"""

TIMEOUT_S: Final = 60

_NO_VOICE = "no such voice"

_SCRIPT = """\
(if (member '{voice} (voice.list))
  (begin
    (voice_{voice})
    (Parameter.set 'Duration_Stretch {stretch:.4f})
    (set! czech-volume-scale* 0.9)
    {manner}
    (set! file (fopen "text" "rb"))
    (set! said (fread {length} file))
    (fclose file)
    (set! utt (utt.synth (eval (list 'Utterance 'Text said))))
    (utt.save.wave utt "speech.wav" 'riff)
    (mapcar
      (lambda (phone) (format t "%s %f\\n" (item.name phone) (item.feat phone 'end)))
      (utt.relation.items utt 'Segment)))
  (format t "{no_voice}\\n"))
"""

_SLOWER = '(set! hts_engine_params (append hts_engine_params (list \'("-r" {rate:.4f}))))'

_HIGHER = """\
(set! after_analysis_hooks
      (list (lambda (utt)
        (mapcar
          (lambda (target) (item.set_feat target 'f0 (* {pitch:.4f} (item.feat target 'f0))))
          (utt.relation.leafs utt 'Target))
        utt)))"""


def speak(text: str, voice: str, stretch: float = 1.0, pitch: float = 1.0) -> Utterance:
    """Speak ``text``; ``stretch`` > 1 is slower, ``pitch`` > 1 higher (where the voice can).

    The same arguments give the same samples. Raises `DependencyMissing` without festival or the
    voice, `InvalidInput` for an unknown voice and for text that the voice cannot say.
    """
    program = shutil.which("festival")
    if program is None:
        raise DependencyMissing("festival is not installed (Debian package: festival)")
    known = VOICES.get(voice)
    if known is None:
        raise InvalidInput(f"festival voice {voice!r} is unknown; allowed: {', '.join(VOICES)}")
    try:
        raw = text.encode(known.encoding)
    except UnicodeEncodeError as error:
        raise InvalidInput(
            f"festival voice {voice!r} cannot say {text[error.start]!r} ({known.encoding})"
        ) from error
    manner = _SLOWER.format(rate=1 / stretch) if known.parametric else _HIGHER.format(pitch=pitch)
    with tempfile.TemporaryDirectory(prefix="lipwire-festival-") as name:
        folder = Path(name)
        (folder / "text").write_bytes(raw)
        (folder / "script").write_text(
            _SCRIPT.format(
                voice=voice, stretch=stretch, manner=manner, length=len(raw), no_voice=_NO_VOICE
            )
        )
        try:
            done = subprocess.run(
                [program, "-b", "script"],
                cwd=folder,
                env={**os.environ, "HOME": name},  # nobody's .festivalrc
                capture_output=True,
                text=True,
                errors="replace",
                timeout=TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise InvalidInput(f"festival took more than {TIMEOUT_S} s over {text!r}") from error
        if _NO_VOICE in done.stdout:
            raise DependencyMissing(
                f"festival's voice {voice} is not installed (Debian package: {known.package})"
            )
        target = folder / "speech.wav"
        if done.returncode != 0 or not target.exists():
            raise InvalidInput(f"festival could not speak {text!r}: {done.stderr.strip()[:200]}")
        with wave.open(str(target)) as sound:
            rate_hz = sound.getframerate()
            pcm = np.frombuffer(sound.readframes(sound.getnframes()), "<i2").astype(np.int16)
    pcm = unwrapped(pcm)
    phones = parse_timings(done.stdout, known, len(pcm) / rate_hz)
    if not any(phone.symbol for phone in phones):
        raise InvalidInput(f"festival voice {voice!r} finds nothing to say in {text!r}")
    if rate_hz != SAMPLE_RATE_HZ:
        pcm = soxr.resample(pcm, rate_hz, SAMPLE_RATE_HZ)
    return Utterance(f"festival/{voice}", text, pcm, phones)


def unwrapped(pcm: npt.NDArray[np.int16]) -> npt.NDArray[np.int16]:
    """Samples with their peaks where they belong: Festival lets those past 16 bits wrap around.

    Speech does not move by half of the range from one sample to the next, so what does has wrapped.
    """
    samples = np.unwrap(pcm.astype(np.float64), period=65536)
    return np.rint(
        samples * min(1.0, 30000 / max(float(np.abs(samples).max(initial=0)), 1.0))
    ).astype(np.int16)


def parse_timings(printed: str, voice: Voice, length_s: float) -> tuple[Phone, ...]:
    """Phones of lines ``NAME END``; one after its like is the same, held longer (Italian "tt").

    None ends after ``length_s``, the length of the sound.

    Raises `InvalidInput` for a phone that is unknown.
    """
    phones: list[Phone] = []
    start_s, last = 0.0, ""
    for line in printed.splitlines():
        name, _, end = line.partition(" ")
        if name not in voice.phones:
            raise InvalidInput(f"festival phone {name!r} is unknown ({voice.package})")
        end_s = min(float(end) + voice.delay_s, length_s)
        if name == last:
            start_s = phones.pop().start_s
        phones.append(Phone(voice.phones[name], start_s, end_s))
        start_s, last = end_s, name
    return tuple(phones)
