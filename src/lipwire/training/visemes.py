"""Phones and the mouth: what lips, jaw and tongue do for each sound of speech.

Six controls describe a mouth, each 0..1. The amplitudes are those of a good animated film:
moderate, so that an open vowel is not a yawn, with closures and lip-teeth contacts that close.
Phones are IPA letters as espeak-ng writes them; `ARPABET` takes the phones of the Festival family
(flite) to the same letters. https://www.internationalphoneticassociation.org/content/ipa-chart
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from lipwire.domain import Float32Array, InvalidInput

CONTROLS: Final = ("open", "wide", "round", "press", "bite", "tongue")
"""Order of the controls in every array.

open    jaw drop
wide    corners of the mouth apart (i, e, s)
round   lips forward and narrow (o, u, w)
press   lips together (p, b, m); 1 is sealed, whatever ``open`` is
bite    lower lip against the upper teeth (f, v)
tongue  tip of the tongue raised behind or between the teeth (l, n, t, d, th)

All of them 0 is the mouth at rest: lips softly closed.
"""

OPEN, WIDE, ROUND, PRESS, BITE, TONGUE = range(6)

SILENCE: Final = ""
"""The phone of a pause."""


@dataclass(frozen=True, slots=True)
class Pose:
    """The mouth that one sound of speech wants: its mouth controls, each in [0, 1], and how much
    they count against the poses of the sounds before and after (``jaw`` and ``lips``, 0 or above).

    ``jaw`` weighs ``open``; ``lips`` weighs ``wide`` and ``round``. A /k/ leaves the lips to the
    vowels around it, a /w/ takes them over.
    """

    open: float
    wide: float = 0.0
    round: float = 0.0
    press: float = 0.0
    bite: float = 0.0
    tongue: float = 0.0
    jaw: float = 1.0
    lips: float = 1.0


REST: Final = Pose(0.0, jaw=1.0, lips=0.5)

POSES: Final[dict[str, Pose]] = {
    SILENCE: REST,
    # Open vowels
    "a": Pose(0.75, wide=0.20),
    "ɑ": Pose(0.85, wide=0.05),
    "æ": Pose(0.70, wide=0.50),
    "ɐ": Pose(0.50, wide=0.15),
    "ʌ": Pose(0.55, wide=0.15),
    "ɒ": Pose(0.68, round=0.35),
    # Middle vowels
    "ə": Pose(0.30, wide=0.15, jaw=0.7, lips=0.4),
    "ɘ": Pose(0.30, wide=0.20, jaw=0.7, lips=0.4),
    "ɚ": Pose(0.32, round=0.30, jaw=0.8, lips=0.8),
    "ɝ": Pose(0.36, round=0.35),
    "ɜ": Pose(0.40, round=0.20),
    "ɛ": Pose(0.52, wide=0.50),
    "e": Pose(0.42, wide=0.62),
    "ø": Pose(0.38, round=0.75),
    "œ": Pose(0.50, round=0.60),
    "ɵ": Pose(0.32, round=0.60),
    "ɞ": Pose(0.45, round=0.45),
    "o": Pose(0.45, round=0.80),
    "ɔ": Pose(0.60, round=0.58),
    "ɤ": Pose(0.42, wide=0.30),
    # Close vowels
    "i": Pose(0.24, wide=0.85),
    "ɪ": Pose(0.32, wide=0.55),
    "ɨ": Pose(0.26, wide=0.50),
    "ᵻ": Pose(0.28, wide=0.45, jaw=0.7, lips=0.5),
    "y": Pose(0.20, round=0.85),
    "ʏ": Pose(0.28, round=0.70),
    "ʉ": Pose(0.22, round=0.80),
    "u": Pose(0.20, round=0.95),
    "ʊ": Pose(0.30, round=0.70),
    "ɯ": Pose(0.24, wide=0.45),
    # Lips together
    "p": Pose(0.12, press=1.0, jaw=0.7, lips=0.15),
    "b": Pose(0.12, press=1.0, jaw=0.7, lips=0.15),
    "m": Pose(0.12, press=1.0, jaw=0.7, lips=0.15),
    "ɸ": Pose(0.12, round=0.20, press=0.6, jaw=0.7, lips=0.4),
    "β": Pose(0.15, press=0.6, jaw=0.7, lips=0.2),
    # Lower lip to the upper teeth
    "f": Pose(0.14, bite=1.0, jaw=0.9, lips=0.3),
    "v": Pose(0.14, bite=1.0, jaw=0.9, lips=0.3),
    "ɱ": Pose(0.14, bite=1.0, jaw=0.9, lips=0.3),
    "ʋ": Pose(0.20, bite=0.6, jaw=0.7, lips=0.3),
    # Lips forward
    "w": Pose(0.14, round=1.0, jaw=1.2, lips=1.6),
    "ʍ": Pose(0.14, round=1.0, jaw=1.2, lips=1.6),
    "ɥ": Pose(0.14, round=0.9, jaw=1.2, lips=1.4),
    "ʃ": Pose(0.15, round=0.55, jaw=1.1, lips=1.2),
    "ʒ": Pose(0.15, round=0.55, jaw=1.1, lips=1.2),
    "ʂ": Pose(0.15, round=0.35, jaw=1.1, lips=0.9),
    "ʐ": Pose(0.15, round=0.35, jaw=1.1, lips=0.9),
    "ɹ": Pose(0.22, round=0.40, tongue=0.25, jaw=0.8, lips=0.8),
    "ɻ": Pose(0.22, round=0.40, tongue=0.25, jaw=0.8, lips=0.8),
    # Tip of the tongue
    "θ": Pose(0.20, wide=0.20, tongue=1.0, jaw=0.9, lips=0.4),
    "ð": Pose(0.20, wide=0.20, tongue=1.0, jaw=0.9, lips=0.4),
    "t": Pose(0.17, wide=0.30, tongue=0.8, jaw=0.8, lips=0.2),
    "d": Pose(0.17, wide=0.30, tongue=0.8, jaw=0.8, lips=0.2),
    "n": Pose(0.20, wide=0.30, tongue=0.8, jaw=0.7, lips=0.2),
    "l": Pose(0.30, wide=0.25, tongue=1.0, jaw=0.7, lips=0.2),
    "ɫ": Pose(0.30, wide=0.15, tongue=1.0, jaw=0.7, lips=0.2),
    "ɬ": Pose(0.22, wide=0.30, tongue=1.0, jaw=0.7, lips=0.3),
    "ɾ": Pose(0.26, wide=0.25, tongue=0.7, jaw=0.4, lips=0.1),
    "r": Pose(0.28, wide=0.15, tongue=0.6, jaw=0.5, lips=0.2),
    "ɖ": Pose(0.18, tongue=0.8, jaw=0.8, lips=0.2),
    "ʈ": Pose(0.18, tongue=0.8, jaw=0.8, lips=0.2),
    "ɳ": Pose(0.20, tongue=0.8, jaw=0.7, lips=0.2),
    "ɭ": Pose(0.28, tongue=0.9, jaw=0.7, lips=0.2),
    "ɽ": Pose(0.28, tongue=0.7, jaw=0.5, lips=0.2),
    # Teeth together
    "s": Pose(0.10, wide=0.55, tongue=0.25, jaw=1.1, lips=0.5),
    "z": Pose(0.10, wide=0.55, tongue=0.25, jaw=1.1, lips=0.5),
    "ɕ": Pose(0.13, wide=0.35, tongue=0.15, jaw=1.0, lips=0.5),
    "ʑ": Pose(0.13, wide=0.35, tongue=0.15, jaw=1.0, lips=0.5),
    # Back of the tongue: the lips follow their neighbours
    "j": Pose(0.22, wide=0.65, jaw=0.8, lips=0.6),
    "ʝ": Pose(0.22, wide=0.55, jaw=0.8, lips=0.5),
    "ç": Pose(0.20, wide=0.50, jaw=0.8, lips=0.5),
    "ɲ": Pose(0.20, wide=0.45, tongue=0.4, jaw=0.7, lips=0.4),
    "ʎ": Pose(0.24, wide=0.45, tongue=0.5, jaw=0.7, lips=0.4),
    "c": Pose(0.20, wide=0.40, jaw=0.6, lips=0.3),
    "ɟ": Pose(0.20, wide=0.40, jaw=0.6, lips=0.3),
    "k": Pose(0.24, wide=0.20, jaw=0.5, lips=0.1),
    "ɡ": Pose(0.24, wide=0.20, jaw=0.5, lips=0.1),
    "ŋ": Pose(0.24, wide=0.20, jaw=0.5, lips=0.1),
    "x": Pose(0.30, wide=0.15, jaw=0.5, lips=0.1),
    "ɣ": Pose(0.30, wide=0.15, jaw=0.4, lips=0.1),
    "χ": Pose(0.32, wide=0.15, jaw=0.5, lips=0.1),
    "ʁ": Pose(0.32, wide=0.15, jaw=0.4, lips=0.1),
    "ʀ": Pose(0.32, wide=0.15, jaw=0.4, lips=0.1),
    "h": Pose(0.32, wide=0.15, jaw=0.15, lips=0.05),
    "ɦ": Pose(0.32, wide=0.15, jaw=0.15, lips=0.05),
    "ħ": Pose(0.32, wide=0.15, jaw=0.15, lips=0.05),
    "ʔ": Pose(0.25, wide=0.15, jaw=0.15, lips=0.05),
}
"""One IPA letter -> its pose."""

UNITS: Final[dict[str, str]] = {"tʃ": "ʃ", "dʒ": "ʒ", "tɕ": "ɕ", "dʑ": "ʑ", "ʈʂ": "ʂ", "ɖʐ": "ʐ"}
"""Affricates whose mouth is that of their second half from the start."""

ALIASES: Final[dict[str, str]] = {
    "g": "ɡ",
    "ε": "ɛ",
    "?": "ʔ",
    "ɧ": "ʃ",
    "ʟ": "ɫ",
    "ɺ": "ɾ",
    "q": "k",
    "ɢ": "ɡ",
}

MARKS: Final = frozenset("ː:ˑˈˌ̩̯̃̊ʲʰʷˤˠ̪̥̬̝̞̘̙̟̠̤̰̚͡ʼ˞.-|‖ ‿1234567890'\"")
"""Length, stress, tone, nasality and other marks that leave the lips where they are."""

ARPABET: Final[dict[str, str]] = {
    "pau": SILENCE, "sil": SILENCE, "h#": SILENCE, "brth": SILENCE,
    "aa": "ɑ", "ae": "æ", "ah": "ʌ", "ao": "ɔ", "aw": "aʊ", "ax": "ə", "axr": "ɚ", "ay": "aɪ",
    "eh": "ɛ", "er": "ɝ", "ey": "eɪ", "ih": "ɪ", "iy": "i", "ow": "oʊ", "oy": "ɔɪ", "uh": "ʊ",
    "uw": "u", "b": "b", "ch": "tʃ", "d": "d", "dh": "ð", "dx": "ɾ", "el": "l", "em": "m",
    "en": "n", "f": "f", "g": "ɡ", "hh": "h", "hv": "ɦ", "jh": "dʒ", "k": "k", "l": "l", "m": "m",
    "n": "n", "ng": "ŋ", "nx": "n", "p": "p", "r": "ɹ", "s": "s", "sh": "ʃ", "t": "t", "th": "θ",
    "v": "v", "w": "w", "y": "j", "z": "z", "zh": "ʒ",
}  # fmt: skip
"""Phones of flite's American voices -> IPA."""

STOPS: Final = frozenset("pb")
"""Closures that end with a release before the phone is over; an /m/ stays closed to its end."""


def letters(phone: str) -> tuple[str, ...]:
    """Return the keys of ``POSES`` (IPA letters with a pose of the mouth) that ``phone``, one sound
    as text, goes through, in order: "aɪ" -> ("a", "ɪ"). An affricate gives its second half alone:
    "tʃ" -> ("ʃ",). ``SILENCE``, the empty text, gives itself: ("",).

    Marks, such as those of length and stress, are passed over; a phone of marks alone gives ``()``.
    Raises InvalidInput for any other letter without a pose.
    """
    if phone in POSES:
        return (phone,)
    found: list[str] = []
    rest = phone
    while rest:
        unit = UNITS.get(rest[:2])
        letter = ALIASES.get(rest[0], rest[0])
        if unit is not None:
            found.append(unit)
            rest = rest[2:]
            continue
        if letter in POSES:
            if not found or found[-1] != letter:
                found.append(letter)
        elif letter not in MARKS:
            raise InvalidInput(f"phone {phone!r} has the letter {letter!r}, which has no pose")
        rest = rest[1:]
    return tuple(found)


def aperture(controls: npt.ArrayLike) -> Float32Array:
    """Return the gap between the lips, (N,) float32 in [0, 1], of ``controls``, (N, 6) in the order
    of `CONTROLS`; 0 is closed, 1 is wide open.

    It is open * (1 - press) * (1 - 0.75 bite) * (1 - 0.3 round): a seal closes whatever the jaw
    does, a lip at the teeth leaves a quarter of the gap, and forward lips narrow it.
    """
    c = np.asarray(controls, np.float32)
    gap = (
        c[..., OPEN]
        * (1 - c[..., PRESS])
        * (1 - np.float32(0.75) * c[..., BITE])
        * (1 - np.float32(0.3) * c[..., ROUND])
    )
    return np.clip(gap, 0, 1).astype(np.float32)
