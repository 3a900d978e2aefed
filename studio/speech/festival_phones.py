"""The phones of Festival's voices as IPA, a table for each set of phones.

The names are those of the voices' own definitions (``defPhoneSet`` in the packages' Scheme files).
"""

from typing import Final

from lipwire.training.visemes import SILENCE

ITALIAN: Final[dict[str, str]] = {
    "#": SILENCE,
    "i": "i", "e": "e", "E": "ɛ", "a": "a", "o": "o", "O": "ɔ", "u": "u",
    "i1": "i", "e1": "e", "E1": "ɛ", "a1": "a", "o1": "o", "O1": "ɔ", "u1": "u",
    "j": "j", "w": "w", "p": "p", "t": "t", "k": "k", "b": "b", "d": "d", "g": "ɡ",
    "f": "f", "s": "s", "S": "ʃ", "v": "v", "z": "z", "Z": "ʒ",
    "ts": "ts", "tS": "tʃ", "dz": "dz", "dZ": "dʒ",
    "m": "m", "n": "n", "J": "ɲ", "ng": "ŋ", "nf": "ɱ", "l": "l", "L": "ʎ", "r": "r",
}  # fmt: skip
"""SAMPA of ``italian_phoneset.scm``; a 1 marks stress."""

_FINNISH_SHORT: Final[dict[str, str]] = {
    "a": "ɑ", "e": "e", "i": "i", "o": "o", "u": "u", "y": "y", "@": "æ", "7": "ø",
    "p": "p", "t": "t", "k": "k", "b": "b", "d": "d", "g": "ɡ",
    "f": "f", "T": "θ", "D": "ð", "s": "s", "z": "z", "S": "ʃ", "Z": "ʒ", "h": "h", "v": "ʋ",
    "m": "m", "n": "n", "N": "ŋ", "l": "l", "L": "ɫ", "r": "r", "j": "j", "w": "w",
}  # fmt: skip

FINNISH: Final[dict[str, str]] = {
    "#": SILENCE,
    "##": SILENCE,
    "&": "ə",
    **_FINNISH_SHORT,
    **{f"{name}:": f"{ipa}ː" for name, ipa in _FINNISH_SHORT.items()},
}
"""WorldBet of ``finnish_phones.scm``, without the quantity of any dialect."""

CZECH: Final[dict[str, str]] = {
    "#": SILENCE, "_": "ʔ",
    "a": "a", "a:": "aː", "e": "ɛ", "e:": "ɛː", "i": "ɪ", "i:": "iː", "o": "o", "o:": "oː",
    "u": "u", "u:": "uː",
    "p": "p", "b": "b", "t": "t", "d": "d", "t~": "c", "d~": "ɟ", "k": "k", "g": "ɡ",
    "f": "f", "v": "v", "s": "s", "z": "z", "s~": "ʃ", "z~": "ʒ", "ch": "x", "h": "ɦ",
    "c": "ts", "dz": "dz", "c~": "tʃ", "dz~": "dʒ",
    "m": "m", "n": "n", "n*": "ŋ", "n~": "ɲ", "l": "l", "r": "r", "r~": "rʐ", "r~*": "rʂ", "j": "j",
}  # fmt: skip
"""``czech.scm``. The Czech ř is written as a trill that turns into friction."""

CATALAN: Final[dict[str, str]] = {
    "pau": SILENCE, "_": SILENCE, "#": SILENCE,
    "ax": "ə", "a": "a", "a1": "a", "e": "e", "e1": "e", "E": "ɛ", "E1": "ɛ", "i": "i", "i1": "i",
    "o": "o", "o1": "o", "O": "ɔ", "O1": "ɔ", "u": "u", "u1": "u", "j": "j", "w": "w",
    "p": "p", "b": "b", "t": "t", "d": "d", "k": "k", "g": "ɡ",
    "f": "f", "s": "s", "z": "z", "S": "ʃ", "Z": "ʒ",
    "m": "m", "n": "n", "J": "ɲ", "l": "l", "L": "ʎ", "r": "ɾ", "rr": "r",
}  # fmt: skip
"""``upc_catalan_phones-central.scm``; a 1 marks stress."""
