import os
from pathlib import Path

import pytest
import yaml

from lipwire.config import document
from lipwire.config.document import (
    MAX_BYTES,
    Mapping,
    Node,
    Problem,
    Scalar,
    Sequence,
    parse,
    read_file,
)
from lipwire.domain import InvalidInput, NotFound


@pytest.fixture(params=["with libyaml", "in Python"], autouse=True)
def loader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both parsers of PyYAML: which one there is depends on how it was built."""
    if request.param == "in Python":
        monkeypatch.setattr(document, "_LOADER", yaml.SafeLoader)
    elif not hasattr(yaml, "CSafeLoader"):
        pytest.skip("PyYAML is built without libyaml")


def plain(node: Node | None) -> object:
    if isinstance(node, Scalar):
        return node.text
    if isinstance(node, Sequence):
        return [plain(item) for item in node.items]
    return {key: plain(value) for key, value in node.items.items()} if node else None


def parsed(text: str | bytes) -> tuple[object, list[str]]:
    problems: list[Problem] = []
    node = parse(text if isinstance(text, bytes) else text.encode(), problems)
    return plain(node), [str(problem) for problem in problems]


def test_values_stay_what_was_written() -> None:
    text = "a: no\nb: 1:30\nc: 2024-01-01\nd: 0o17\ne: '5'\nf: [1, x]\ng: ~\nh: ''\ni:\nj: 'null'\n"
    assert parsed(text) == (
        {
            "a": "no",
            "b": "1:30",
            "c": "2024-01-01",
            "d": "0o17",
            "e": "5",
            "f": ["1", "x"],
            "g": None,
            "h": "",
            "i": None,
            "j": "null",
        },
        [],
    )


def test_keys_and_values_know_their_lines() -> None:
    node = parse(b"# first\na:\n  b: 1\n  c:\n    - 2\n", [])
    assert isinstance(node, Mapping)
    assert node.key_places == {"a": 2}
    inner = node.items["a"]
    assert isinstance(inner, Mapping)
    assert inner.key_places == {"b": 3, "c": 4}


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "null\n", "\ufeff"])
def test_a_file_may_say_nothing(text: str) -> None:
    assert parsed(text) == ({}, [])


def test_a_mark_of_byte_order_is_no_part_of_a_key() -> None:
    assert parsed("\ufeffserver: 1\r\nmore: 2\r\n") == ({"server": "1", "more": "2"}, [])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_any_encoding_of_unicode_with_a_mark_is_read(encoding: str) -> None:
    data = "\ufeffpath: 'd:\\Ö'\r\nmore: 2\r\n".encode(encoding)
    assert parsed(data) == ({"path": "d:\\Ö", "more": "2"}, [])


def test_a_text_may_be_tagged_as_one() -> None:
    assert parsed("a: !!str 007\nb: !!str null\n") == ({"a": "007", "b": "null"}, [])


def test_what_several_models_share_can_be_merged() -> None:
    text = "base: &base {x: 1, y: 2}\na: {<<: *base, y: 3}\nb: {y: 4, <<: [*base, {z: 5}]}\n"
    value, problems = parsed(text)
    assert not problems
    assert value == {
        "base": {"x": "1", "y": "2"},
        "a": {"y": "3", "x": "1"},
        "b": {"y": "4", "x": "1", "z": "5"},
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\na: 4", "line 3: a is given twice; it was first given in line 1"),
        ("a: 1\n'a': 3", "line 2: a is given twice; it was first given in line 1"),
        ("a:\n  [x]: 1", "line 2: a key is a list; keys are single words"),
        ("a: {<<: 5}", "line 1: << merges a mapping or a list of mappings, and this is neither"),
        ("- a\n- b", "line 1: the file holds a list; it has to be a mapping of keys to values"),
        ("hello", "line 1: the file holds a single value; it has to be a mapping"),
        ("a: 1\n---\nb: 2", "line 2: a second document begins; a file holds one"),
        ("a: 1\nb: !!python/object/apply:os.system ['x']", "line 2: the tag "),
        ("a: !include /etc/passwd", "line 1: the tag '!include' is not allowed; values are plain"),
        ("a: !!int '5'", "line 1: the tag "),
        ("a: *nothing", "line 1: "),
        ("a: &x [*x]", "line 1: *x stands for nothing that is finished above it"),
        ("a: *" + "x" * 99, f"line 1: *'{'x' * 59}…' stands for nothing"),
        ("a: &x {b: *x}", "line 1: *x stands for nothing that is finished above it"),
        ("a: [[[[[[[[[1]]]]]]]]]", "line 1: values are nested 9 deep; at most 8 are read"),
        ("a: 1\n\tb: 2", "line 2: not YAML: "),
        ("a: 'x\nb: 2\n", "not YAML: "),
        ("a: {x: 1\nb: 2\n", "not YAML: "),
        ("a: b: c", "line 1: not YAML: "),
        ('a: 1\nb: "d:\\models"', "a backslash has to be written twice, or as / in a path"),
        (b"\xff\xfea\0:\0\0", "byte 6 is not UTF-16-LE; the file has to be UTF-8, or UTF-16 with"),
        (b"a: 1\nb: \xff\xfe", "line 2: byte 8 is not UTF-8; the file has to be"),
        ("a: 1\nb: \x00", "not YAML: "),
        ("a: 1\nb: \x1b[31m", "not YAML: "),
    ],
)
def test_what_is_wrong_is_one_line_with_its_place(text: str | bytes, message: str) -> None:
    _, problems = parsed(text)
    assert problems
    assert message in problems[0]
    assert all("\n" not in problem and "\x1b" not in problem for problem in problems)


def test_what_cannot_be_merged_is_told_once() -> None:
    value, problems = parsed("a: {x: 1, <<: [5, {y: 2}, 6]}")
    assert value == {"a": {"x": "1", "y": "2"}}
    assert problems == ["line 1: << merges a mapping or a list of mappings, and this is neither"]


def test_aliases_count_as_if_they_were_written_out() -> None:
    levels = ["a0: &a0 [" + ", ".join("x" * 9) + "]"]
    levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)]
    value, problems = parsed("\n".join(levels))
    assert value is None
    assert problems == [
        "line 7: more than 1000000 values with aliases written out; that is the most"
    ]


@pytest.mark.slow
@pytest.mark.parametrize("text", ["[" * 200_000, "{a: " * 100_000, "- " * 100_000, "? " * 50_000])
def test_depth_cannot_exhaust_the_stack(text: str) -> None:
    value, problems = parsed(text)
    assert value is None
    assert len(problems) == 1


@pytest.mark.slow
def test_eleven_thousand_models_are_read(request: pytest.FixtureRequest) -> None:
    if "Python" in request.node.callspec.id:
        pytest.skip("ten times slower without libyaml")
    text = "models:\n" + "".join(
        f'  user_{n}:\n    background_dir: "/data/user_{n}/frames"\n    num_frames: 523\n'
        for n in range(11_000)
    )
    value, problems = parsed(text)
    assert not problems
    assert isinstance(value, dict)
    assert len(value["models"]) == 11_000


def test_only_files_are_read(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="there is no such file"):
        read_file(tmp_path / "nothing.yaml")
    with pytest.raises(InvalidInput, match="is a folder"):
        read_file(tmp_path)
    with pytest.raises(InvalidInput, match="cannot be read"):
        read_file(tmp_path / ("x" * 5000))
    with pytest.raises(InvalidInput, match="cannot be read"):
        read_file(Path("a\0b"))
    (tmp_path / "big.yaml").write_bytes(b"#" * (MAX_BYTES + 1))
    with pytest.raises(InvalidInput, match=f"more than {MAX_BYTES} bytes"):
        read_file(tmp_path / "big.yaml")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.yaml")  # nobody writes into it: reading would wait for ever
        with pytest.raises(InvalidInput, match="is not a file"):
            read_file(tmp_path / "pipe.yaml")
