import pytest

from lipwire.domain.texts import decode_text

TEXT = '{"a": "Grüße, 世界"}'


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_encodings_are_told_apart(encoding: str, mark: str) -> None:
    assert decode_text((mark + TEXT).encode(encoding)) == TEXT


@pytest.mark.parametrize("data", [b"", b"a", b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff"])
def test_nothing_and_next_to_nothing(data: bytes) -> None:
    assert decode_text(data) == ("a" if data == b"a" else "")


@pytest.mark.parametrize(
    ("data", "encoding", "start"),
    [
        (b"name: \xff", "utf-8", 6),
        (b"\xef\xbb\xbfa\xff", "utf-8", 1),
        (b"\xff\xfea\0b", "utf-16-le", 4),
        ("ä".encode("latin-1") + b": 1", "utf-8", 0),
    ],
)
def test_bytes_of_no_encoding_are_told_with_their_place(
    data: bytes, encoding: str, start: int
) -> None:
    with pytest.raises(UnicodeDecodeError) as caught:
        decode_text(data)
    assert caught.value.encoding == encoding
    assert caught.value.start >= start
