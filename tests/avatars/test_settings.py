import pytest

from lipwire.avatars.problems import Findings
from lipwire.avatars.settings import AvatarSettings, parse_settings


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
        "source_video: anna.mp4\n"
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
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: a\nlicense: MIT", "line 2: unknown key 'license'; did you mean licence?"),
        ("colour_oder: rgb", "line 1: unknown key 'colour_oder'; did you mean colour_order?"),
        ("zzzzzz: 1", "line 1: unknown key 'zzzzzz'; known are name"),
        ("name: a\ncrop_border: 5", "line 2: crop_border is 5; allowed is 4 or 0"),
        ("crop_border: '4'", "line 1: crop_border is '4'; allowed is 4 or 0"),
        ("colour_order: gbr", "line 1: colour_order is 'gbr'; allowed is bgr or rgb"),
        ("\nfps: 30", "line 2: fps is 30; allowed is 25"),
        ("fps: .nan", "line 1: fps is nan; allowed is 25"),
        ("name: a\nname: b", "line 2: name is given twice; it was first given in line 1"),
        ("name: [a, b]", "line 1: name is a list; it has to be a single value"),
        ("name: {a: b}", "line 1: name is a mapping; it has to be a single value"),
        ("[a]: b", "line 1: a key is a list; keys are single words"),
        ("- a\n- b", "avatar.yaml holds a list; it has to be a mapping of keys to values"),
        ("hello", "avatar.yaml holds a single value; it has to be a mapping"),
        ("name: a\n\tfps: 25", "avatar.yaml line 2: not YAML"),
        ("name: 'a", "avatar.yaml line 1: not YAML"),
        ("name: *nobody", "avatar.yaml line 1: not YAML"),
        (b"name: \xff", "avatar.yaml is not UTF-8 at byte 6"),
        (b"name: a\x00b", "avatar.yaml is not YAML"),
        ('name: "\\e[31mred"', "line 1: name is '\\x1b[31mred'; allowed is a line of"),
        ('name: "a\\nb"', "line 1: name is 'a\\nb'; allowed is a line of"),
        ('consent: "\\e[31mred"', "line 1: consent is"),
        ("name: " + "x" * 500, "line 1: name is 'xxxx"),
        ("name: ''", "line 1: name is ''; allowed is a line of 1 to 100 printable characters"),
        ("name: 2024-13-45\nfps: 1e400", "line 2: fps is"),
        ("name: !!python/object:os.system x", "line 1: name is"),
    ],
)
def test_says_in_one_line_what_is_wrong(text: str | bytes, message: str) -> None:
    settings, problems = parsed(text)
    if "python/object" not in str(text):  # its text is taken as a text, and nothing is run
        assert settings is None
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
