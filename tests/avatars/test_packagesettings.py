import pytest

from lipwire.avatars.checks.problems import Findings
from lipwire.avatars.packagesettings import AvatarSettings, parse_settings, unread_keys

ENCODINGS = ["utf-8", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"]


def parsed(text: str | bytes) -> tuple[AvatarSettings | None, list[str]]:
    findings = Findings()
    data = text if isinstance(text, bytes) else text.encode()
    return parse_settings(data, findings), [problem.message for problem in findings.problems]


def test_every_key_has_a_default() -> None:
    settings, problems = parsed("")
    assert settings == AvatarSettings()
    assert not problems
    assert settings is not None
    assert (settings.fps, settings.crop_border, settings.colour_order) == (25, 4, "bgr")


def test_reads_every_key() -> None:
    settings, problems = parsed(
        "name: Anna\ndescription: a reader\nlicence: CC0-1.0\nconsent: drawn, nobody is shown\n"
        "fps: 25\ncrop_border: 0\ncolour_order: rgb\naudio_encoder: checkpoint/ears.onnx\n"
        "source_video: anna.mp4\nclosed_eyes: [3, 10-12]\n"
    )
    assert not problems
    assert settings is not None
    assert settings.model_dump() == {
        "name": "Anna",
        "description": "a reader",
        "licence": "CC0-1.0",
        "consent": "drawn, nobody is shown",
        "fps": 25,
        "crop_border": 0,
        "colour_order": "rgb",
        "audio_encoder": "checkpoint/ears.onnx",
        "source_video": "anna.mp4",
        "closed_eyes": ((3, 3), (10, 12)),
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: a\nlicense: MIT", "line 2: unknown key 'license'; did you mean licence?"),
        ("colour_oder: rgb", "line 1: unknown key 'colour_oder'; did you mean colour_order?"),
        ("zzzzzz: 1", "line 1: unknown key 'zzzzzz'; known are name"),
        ("name: a\ncrop_border: 5", "line 2: crop_border is 5; allowed is 4 or 0"),
        ("crop_border: four", "line 1: crop_border is 'four'; allowed is 4 or 0"),
        ("crop_border: -4", "line 1: crop_border is '-4'; allowed is 4 or 0"),
        ("colour_order: gbr", "line 1: colour_order is 'gbr'; allowed is bgr or rgb"),
        ("\nfps: 30", "line 2: fps is 30; allowed is 25"),
        ("fps: .nan", "line 1: fps is '.nan'; allowed is 25"),
        ("name: a\nname: b", "line 2: name is given twice; it was first given in line 1"),
        ("closed_eyes: 3", "line 1: closed_eyes is a single value; allowed is a list of frame"),
        ("closed_eyes: {3: 4}", "line 1: closed_eyes is a mapping; allowed is a list of frame"),
        ("closed_eyes: [[3, 4]]", "line 1: closed_eyes is a list; allowed is a list of frame"),
        (
            "name: a\nclosed_eyes: [3, 9-4]",
            "line 2: closed_eyes is '3, 9-4'; allowed is a list of frame numbers and spans of them",
        ),
        ("name: [a, b]", "line 1: name is a list; it has to be a single value"),
        ("name: {a: b}", "line 1: name is a mapping; it has to be a single value"),
        ("[a]: b", "line 1: a key is a list; keys are single words"),
        (
            "- a\n- b",
            "avatar.yaml line 1: the file holds a list; it has to be a mapping of keys to values",
        ),
        ("hello", "avatar.yaml line 1: the file holds a single value; it has to be a mapping"),
        ("name: a\n\tfps: 25", "avatar.yaml line 2: not YAML"),
        ("name: 'a", "not YAML"),
        ("name: *nobody", "avatar.yaml line 1: "),
        (b"name: \xff", "avatar.yaml line 1: byte 6 is not UTF-8; the file has to be UTF-8, or"),
        (b"name: a\x00b", "not YAML"),
        (b"\xff\xfen\0a\0m\0e\0:\0\n", "avatar.yaml line 1: byte 12 is not UTF-16-LE"),
        ('name: "\\e[31mred"', "line 1: name is '\\x1b[31mred'; allowed is a line of"),
        ('name: "a\\nb"', "line 1: name is 'a\\nb'; allowed is a line of"),
        ('consent: "\\e[31mred"', "line 1: consent is"),
        ("name: " + "x" * 500, "line 1: name is 'xxxx"),
        ("name: ''", "line 1: name is ''; allowed is a line of 1 to 100 printable characters"),
        ("name: 2024-13-45\nfps: 1e400", "line 2: fps is"),
        ("name: !!python/object:os.system x", "line 1: the tag "),
        ('audio_encoder: "checkpoint\\x"', "a backslash has to be written twice, or as /"),
        ('audio_encoder: "checkpoint\\audio.onnx"', "a backslash has to be written twice, or as /"),
        ('source_video: "a\\new.mp4"', "a backslash has to be written twice, or as /"),
    ],
)
def test_says_in_one_line_what_is_wrong(text: str | bytes, message: str) -> None:
    _, problems = parsed(text)
    assert len(problems) == 1
    assert message in problems[0]
    assert "\n" not in problems[0]
    assert len(problems[0]) < 200


def test_says_everything_at_once() -> None:
    _, problems = parsed("fps: 30.5\ncrop_border: 1\ncolour: x\n")
    assert len(problems) == 3


def test_aliases_cannot_make_a_small_file_large() -> None:
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    for here, before in zip("bcdefghij", "abcdefghi", strict=True):
        lines.append(f"{here}: &{here} [{', '.join([f'*{before}'] * 9)}]")
    settings, problems = parsed("\n".join(lines))
    assert settings is None
    assert all(len(problem) < 200 for problem in problems)


@pytest.mark.parametrize("wrong", ["fps: 30", "licens: x", "name: [a]", "[a]: b", "licence: ''"])
def test_a_wrong_key_leaves_the_others(wrong: str) -> None:
    settings, problems = parsed(f"source_video: anna.mp4\n{wrong}\ncrop_border: 0\n")
    assert settings is not None
    assert (settings.source_video, settings.crop_border, settings.fps) == ("anna.mp4", 0, 25)
    assert len(problems) == 1
    assert "line 2" in problems[0]


@pytest.mark.parametrize(
    "name", ["007", "no", "on", "1.50", "1e3", "2024-01-01", "0x10", "12:30", "~anna", "Änne 2"]
)
def test_names_are_texts(name: str) -> None:
    settings, problems = parsed(f"name: {name}\nlicence: {name}\n")
    assert not problems
    assert settings is not None
    assert (settings.name, settings.licence) == (name, name)


def test_a_text_may_be_tagged_as_one() -> None:
    settings, problems = parsed("name: !!str 007\n")
    assert not problems
    assert settings is not None
    assert settings.name == "007"


@pytest.mark.parametrize("written", ["4", "'4'", "4.0", '"4"'])
def test_numbers_may_be_quoted_or_have_a_point(written: str) -> None:
    settings, problems = parsed(f"crop_border: {written}\nfps: 25.0\n")
    assert not problems
    assert settings is not None
    assert (settings.crop_border, settings.fps) == (4, 25)


@pytest.mark.parametrize(
    "written", ["a\\b\\c.mp4", "'a\\b\\c.mp4'", '"a\\\\b\\\\c.mp4"', "a/b/c.mp4"]
)
def test_paths_may_have_backslashes(written: str) -> None:
    settings, problems = parsed(f"source_video: {written}\naudio_encoder: {written}\n")
    assert not problems
    assert settings is not None
    assert (settings.source_video, settings.audio_encoder) == ("a/b/c.mp4", "a/b/c.mp4")


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_any_encoding_of_unicode_with_a_mark_is_read(encoding: str) -> None:
    settings, problems = parsed("\ufeffname: Zoë\r\ncrop_border: 0\r\n".encode(encoding))
    assert not problems
    assert settings is not None
    assert (settings.name, settings.crop_border) == ("Zoë", 0)


@pytest.mark.parametrize("value", ["Anna: the first", "@anna", "%anna", "`anna`"])
def test_a_value_that_needs_quotes_is_told_so(value: str) -> None:
    findings = Findings()
    parse_settings(f"name: {value}\n".encode(), findings)
    (problem,) = findings.problems
    assert problem.message.startswith("avatar.yaml line 1: not YAML: ")
    assert problem.message.endswith(
        "; a value with ': ' in it, or that begins with a sign, has to be in quotes"
    )


def test_a_file_full_of_other_keys_is_twenty_lines_and_a_count() -> None:
    findings = Findings()
    parse_settings("".join(f"key{n}: 1\n" for n in range(3000)).encode(), findings)
    assert len(findings.problems) == 21
    assert findings.problems[-1].message == "avatar.yaml: 2980 more lines are wrong"


@pytest.mark.parametrize(
    "broken",
    [
        b"crop_border: [1",
        b"name: 'Anna",
        b"description: a: b",
        b"licence: caf\xe9",  # Latin-1
        b"\tconsent: x",
        b"- a",
        b"consent: \x07",
    ],
)
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
def test_a_line_that_is_no_yaml_leaves_the_others(broken: bytes, line_end: bytes) -> None:
    lines = [b"source_video: anna.mp4", broken, b"closed_eyes:", b"- 3", b"- 7-9", b"fps: 25"]
    settings, problems = parsed(line_end.join(lines) + line_end)
    assert settings is not None
    assert (settings.source_video, settings.closed_eyes) == ("anna.mp4", ((3, 3), (7, 9)))
    assert len(problems) == 1


def test_what_follows_from_a_broken_line_is_not_told() -> None:
    settings, problems = parsed("description: 'Anna\nspeaks: well\nfps: 30\ncolour_order: rgb\n")
    assert settings is not None
    assert settings.colour_order == "rgb"
    assert len(problems) == 1


@pytest.mark.parametrize(
    ("text", "unread"),
    [
        ("source_video: [a", {"source_video"}),
        ("source_video: [a]\nfps: 25", {"source_video"}),
        ("source_video: a.mp4\ncrop_border: [1", {"crop_border"}),
        ("{source_video: a.mp4", {"source_video"}),
        ("source_video: a.mp4\nfps: 25", set()),
        ("other: [", set()),
        ("name: [\nsource_video: 'a.mp4\nfps: 25", {"name", "source_video"}),
        ("fps: 25\nsource_video: \x07", {"source_video"}),
        ("fps: 25\n'source_video': [", {"source_video"}),
        ("? source_video\n: [", {"source_video"}),
        ("- source_video: [", set()),
        ("source_video:\nfps: 24", {"fps"}),
        ("source_video: # none\nfps: [", {"fps"}),
        ("other: {source_video: x}\nfps: 24", {"fps"}),
        ("other:\n  source_video: x\nfps: [", {"fps"}),
        ("description: |\n  source_video: x\nfps: [", {"fps"}),
    ],
)
def test_keys_that_could_not_be_read(text: str, unread: set[str]) -> None:
    settings, _ = parsed(text)
    assert unread_keys(text.encode(), settings) == unread


def test_a_key_whose_value_is_no_text_is_given() -> None:
    data = b"fps: 25\nsource_video: \xff\xfe.mp4"
    assert unread_keys(data, None) == {"fps", "source_video"}
