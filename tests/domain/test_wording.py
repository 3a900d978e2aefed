"""What somebody else wrote cannot end a message's line or drive a terminal."""

import pytest

from lipwire.domain.wording import escaped, one_line, shown


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("Zoë 安", "Zoë 安"),
        ("a\x1b[31mb", "a\\x1b[31mb"),
        ("a\r\nb\tc", "a\\r\\nb\\tc"),
        ("a\u2028b\u202eb", "a\\u2028b\\u202eb"),
        ("a\udcffb", "a\\udcffb"),
        ("می\u200cخواهم 👩\u200d🚒", "می\u200cخواهم 👩\u200d🚒"),
        ("a'b\\", "a'b\\"),
    ],
)
def test_what_cannot_be_printed_is_escaped(text: str, safe: str) -> None:
    assert escaped(text) == safe


def test_a_text_on_one_line() -> None:
    assert one_line(" a\n\n b\x07 ") == "a b\\x07"
    assert one_line("a " * 300, 9) == "a a a a a"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a\nb", r"'a\nb'"),
        ("", "''"),
        (3.5, "3.5"),
        (b"\0", r"b'\x00'"),
        ("x" * 60, f"'{'x' * 60}'"),
        ("x" * 61, f"'{'x' * 59}…'"),
        ("\x1b" * 10**6, "'" + r"\x1b" * 15 + "…"),
        ([1] * 99, f"[{'1, ' * 20}…"),
    ],
)
def test_values_are_shown_on_one_short_line(value: object, text: str) -> None:
    assert shown(value) == text
    assert len(shown(value)) <= 62


def test_a_number_too_long_to_print() -> None:
    assert shown(10**5000) == "a number too long to print"


def test_another_length() -> None:
    assert shown("abcdefgh", 6) == "'abcde…'"
