import re
import unicodedata
from typing import Literal

import pytest

from lipwire.domain import InvalidInput
from lipwire.domain.names import canonical_name, checked_name, is_name, spellings

ALLOWED = [
    "anna",
    "Anna Smith",
    "Zoë Ångström",
    "安娜",
    "Анна (2)",
    "آنا\u200cماریا",  # joined by a zero-width non-joiner
    "李\u3000娜",  # an ideographic space
    "👩\u200d💻 coder",
    "O'Hara & Söhne, v1.0+b @home #7 [x]",
    "_x",
    "x.",
    "7",
    "no",
    "x" * 128,
    "é" * 128,
]
REFUSED = [
    "",
    ".",
    "..",
    ".hidden",
    "-rf",
    " anna",
    "anna ",
    "anna\u00a0",
    "a/b",
    "a\\b",
    "C:",
    "a\0b",
    "a\nb",
    "a\tb",
    "a\x1b[31mb",
    "a\x7fb",
    "a\x85b",
    "a\u2028b",
    "a\u202eb",  # turns round what follows
    "\ufeffanna",  # a byte-order mark
    "a\udce4b",  # a byte of a name that is not UTF-8
    "x" * 129,
    "é" * 129,
]


@pytest.mark.parametrize("name", ALLOWED)
def test_names_of_any_language_are_allowed(name: str) -> None:
    assert checked_name(name) == unicodedata.normalize("NFC", name)


@pytest.mark.parametrize("name", REFUSED, ids=ascii)
def test_what_leads_elsewhere_or_cannot_be_seen_is_refused(name: str) -> None:
    assert not is_name(name)
    with pytest.raises(InvalidInput, match=r"^avatar name is .*; allowed are 1 to 128 ") as caught:
        checked_name(name)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_one_name_has_one_form(form: Literal["NFC", "NFD"]) -> None:
    name = "Zoë Ångström"
    written = unicodedata.normalize(form, name)
    assert canonical_name(written) == unicodedata.normalize("NFC", name)
    assert written in spellings(canonical_name(written))


def test_length_is_that_of_the_canonical_form() -> None:
    assert is_name(unicodedata.normalize("NFD", "é" * 128))


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("anna ", "no blank at either end"),
        ("a\u202eb", "signs that are shown"),
        ("a/b", "without /"),
        ("-anna", "neither . nor -"),
    ],
)
def test_the_rule_that_is_told_covers_what_is_refused(name: str, part: str) -> None:
    with pytest.raises(InvalidInput, match=re.escape(part)):
        checked_name(name)
