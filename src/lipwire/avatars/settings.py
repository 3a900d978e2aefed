"""``avatar.yaml``: what a package says about itself. The file and each of its keys may be left out.

It is a flat mapping of keys to single values. Lists, mappings and aliases are refused before
anything is constructed, so no file can be larger in memory than it is on disk.
"""

from typing import Annotated, Any, Final, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from lipwire.avatars.problems import Findings, nearest, shown
from lipwire.domain import FPS, MOUTH_BORDER_PX

SETTINGS_NAME: Final = "avatar.yaml"
MAX_SETTINGS_BYTES: Final = 64 * 1024

ColourOrder = Literal["bgr", "rgb"]


def _printable(text: str) -> str:
    if not text.replace("\n", "").replace("\t", "").isprintable():
        raise ValueError("control characters")  # a terminal would obey them
    return text


_Text = Annotated[str, Field(min_length=1, max_length=4000), AfterValidator(_printable)]
_Line = Annotated[
    str, Field(min_length=1, max_length=100, pattern=r"^[^\n\t]*$"), AfterValidator(_printable)
]


class AvatarSettings(BaseModel):
    """The keys of ``avatar.yaml`` with their defaults."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: _Line | None = None
    """Shown to people; without it the folder's name is used."""
    description: _Text | None = None
    licence: _Text | None = None
    consent: _Text | None = None
    """How the person shown agreed to it, or why nobody had to."""
    fps: int = FPS
    """The audio windows are cut for 25 frames a second; nothing else is accepted."""
    crop_border: Literal[4, 0] = MOUTH_BORDER_PX
    """Pixels round the network's square that belong to the crop: 4 as trained, 0 as in the
    guide."""
    colour_order: ColourOrder = "bgr"
    """Order of the channels that the network was trained on."""
    audio_encoder: _Text | None = None
    """Path inside the package; without it ``checkpoint/audio_encoder.onnx`` is used where it
    exists."""
    source_video: _Text | None = None
    """Path inside the package of a video that stands for the frames."""


_ALLOWED: Final = {
    "name": "a line of 1 to 100 printable characters",
    "fps": str(FPS),
    "crop_border": "4 or 0",
    "colour_order": "bgr or rgb",
    "audio_encoder": "a path inside the package",
    "source_video": "a path inside the package",
}


def parse_settings(data: bytes, findings: Findings) -> AvatarSettings | None:
    """Read ``avatar.yaml``; every problem goes into ``findings``, and then the answer is None."""
    try:
        node = yaml.compose(data.decode("utf-8"), Loader=yaml.SafeLoader)
    except UnicodeDecodeError as error:
        findings.error(f"{SETTINGS_NAME} is not UTF-8 at byte {error.start}")
        return None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f" line {mark.line + 1}" if mark else ""
        findings.error(f"{SETTINGS_NAME}{line}: not YAML: {error.problem or error.context}")
        return None
    except (yaml.YAMLError, RecursionError) as error:
        reason = " ".join(str(error).split())[:120]
        findings.error(f"{SETTINGS_NAME} is not YAML: {reason}")
        return None
    if node is None:
        return AvatarSettings()
    if not isinstance(node, yaml.MappingNode):
        findings.error(
            f"{SETTINGS_NAME} holds a {_kind(node)}; it has to be a mapping of keys to values"
        )
        return None
    return _from_mapping(node, findings)


def _from_mapping(node: yaml.MappingNode, findings: Findings) -> AvatarSettings | None:
    known = list(AvatarSettings.model_fields)
    constructor = yaml.SafeLoader("")
    values: dict[str, Any] = {}
    lines: dict[str, int] = {}
    sound = True
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        key = str(key_node.value) if isinstance(key_node, yaml.ScalarNode) else None
        message = None
        if key is None:
            message = f"a key is a {_kind(key_node)}; keys are single words"
        elif key not in known:
            guess = nearest(key, known)
            hint = f"did you mean {guess}?" if guess else f"known are {', '.join(known)}"
            message = f"unknown key {shown(key)}; {hint}"
        elif key in values:
            message = f"{key} is given twice; it was first given in line {lines[key]}"
        elif not isinstance(value_node, yaml.ScalarNode):
            message = f"{key} is a {_kind(value_node)}; it has to be a single value"
        if message is not None or key is None:
            findings.error(f"{SETTINGS_NAME} line {line}: {message}")
            sound = False
            continue
        lines[key] = line
        try:
            values[key] = constructor.construct_object(value_node)
        except (ValueError, yaml.YAMLError):  # 2024-13-45 resolves to a date and is none
            values[key] = value_node.value
    try:
        settings = AvatarSettings.model_validate(values)
    except ValidationError as error:
        for detail in error.errors():
            key = str(detail["loc"][0])
            allowed = _ALLOWED.get(key, "a text of 1 to 4000 printable characters")
            findings.error(
                f"{SETTINGS_NAME} line {lines.get(key, 1)}: {key} is {shown(values.get(key))};"
                f" allowed is {allowed}"
            )
        return None
    if settings.fps != FPS:
        findings.error(
            f"{SETTINGS_NAME} line {lines['fps']}: fps is {settings.fps}; allowed is {FPS},"
            " for which the audio windows are cut"
        )
        return None
    return settings if sound else None


def _kind(node: yaml.Node) -> str:
    if isinstance(node, yaml.SequenceNode):
        return "list"
    return "mapping" if isinstance(node, yaml.MappingNode) else "single value"
