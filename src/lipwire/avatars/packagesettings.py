"""``avatar.yaml``: what a package says about itself. The file and each of its keys may be left out.

It is a flat mapping of keys to single values, and to one list. It is read as the servers' files
are: values stay the texts that were written, so ``007`` and ``no`` are names, and nothing is
constructed from the file. A key that is wrong leaves the others as they are.
"""

import re
from typing import Annotated, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
)

from lipwire.avatars import closedeyes
from lipwire.avatars.checks.problems import Findings, nearest
from lipwire.config.document import (
    Mapping,
    Node,
    Place,
    Problem,
    Scalar,
    Sequence,
    keys_begun,
    parse,
)
from lipwire.domain import FPS, MOUTH_BORDER_PX
from lipwire.domain.wording import shown

SETTINGS_NAME: Final = "avatar.yaml"
MAX_SETTINGS_BYTES: Final = 64 * 1024
_MAX_PROBLEMS: Final = 20
"""That are listed; another program's file of this name is full of them."""
_BEGINS_KEY: Final = re.compile(rb"(?:\xef\xbb\xbf)?[A-Za-z_]+[ \t]*:(?:\s|$)")
_WHOLE: Final = re.compile(r"\d{1,9}(?:\.0*)?", re.ASCII)

ColourOrder = Literal["bgr", "rgb"]


def _printable(text: str) -> str:
    if not text.replace("\n", "").replace("\t", "").isprintable():
        raise ValueError("control characters")  # a terminal would obey them
    return text


def _whole(value: object) -> object:
    """A number that was written as text, ``25`` or ``25.0``."""
    return int(float(value)) if isinstance(value, str) and _WHOLE.fullmatch(value) else value


def _spans(value: object) -> object:
    return closedeyes.parse_spans(value) if isinstance(value, list) else value


_Text = Annotated[str, Field(min_length=1, max_length=4000), AfterValidator(_printable)]
_Line = Annotated[
    str, Field(min_length=1, max_length=100, pattern=r"^[^\n\t]*$"), AfterValidator(_printable)
]
_PathInside = Annotated[
    str,
    Field(min_length=1, max_length=4000, pattern=r"^[^\n\t]*$"),
    AfterValidator(_printable),
    AfterValidator(lambda text: text.replace("\\", "/")),
]


class AvatarSettings(BaseModel):
    """The keys of ``avatar.yaml``, the settings of an avatar package, with their defaults.

    ``name`` is shown to people; without it the folder's name is. ``consent`` says how the person
    shown agreed to it. ``fps`` can only be 25. ``crop_border`` is how many pixels on each side of
    the resized crop the network does not see, 4 or 0. ``colour_order`` is that of the channels of
    crops and mouths. ``audio_encoder`` and ``source_video`` are paths inside the package,
    ``source_video`` that of a video in place of a folder of frames. ``closed_eyes`` are (first,
    last) numbers of source frames that show closed eyes.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: _Line | None = None
    """Shown to people; without it the folder's name is used."""
    description: _Text | None = None
    licence: _Text | None = None
    consent: _Text | None = None
    """How the person shown agreed to it, or why nobody had to."""
    fps: Annotated[Literal[25], BeforeValidator(_whole)] = FPS
    """The audio windows are cut for 25 frames a second; nothing else is accepted."""
    crop_border: Annotated[Literal[4, 0], BeforeValidator(_whole)] = MOUTH_BORDER_PX
    """Pixels round the network's square that belong to the crop: 4 as trained, 0 as in the
    guide."""
    colour_order: ColourOrder = "bgr"
    """Order of the channels that the network was trained on."""
    audio_encoder: _PathInside | None = None
    """Path inside the package, with forward slashes; without it ``checkpoint/audio_encoder.onnx``
    is used where it exists."""
    source_video: _PathInside | None = None
    """Path inside the package, with forward slashes, of a video that stands for the frames."""
    closed_eyes: Annotated[closedeyes.Spans, BeforeValidator(_spans)] = ()
    """The first and the last number of each span of source frames that show closed eyes."""


_PATH: Final = (
    "a path inside the package; in double quotes a backslash has to be written twice, or as /"
)
_ALLOWED: Final = {
    "name": "a line of 1 to 100 printable characters",
    "fps": f"{FPS}, for which the audio windows are cut",
    "crop_border": "4 or 0",
    "colour_order": "bgr or rgb",
    "audio_encoder": _PATH,
    "source_video": _PATH,
    "closed_eyes": closedeyes.ALLOWED,
}
_LISTS: Final = frozenset({"closed_eyes"})


def parse_settings(data: bytes, findings: Findings) -> AvatarSettings | None:
    """Return the settings in ``data``, the bytes of ``avatar.yaml``. Every problem is put into
    ``findings`` as an error; of more than 20 the first 20, and the number of the others.

    A key that is unknown is left out, and one whose value is wrong has its default. Where ``data``
    as a whole is not valid YAML, the keys whose lines are valid by themselves are read; None is
    returned where there are none.
    """
    problems: list[Problem] = []
    document = parse(data, problems)
    further = problems
    if document is None:
        # What else seems wrong may follow from what was told already.
        document, further = _by_keys(data), []
    settings = None if document is None else _from_mapping(document, further)
    problems.sort(key=lambda each: _line(each.place))
    for problem in problems[:_MAX_PROBLEMS]:
        findings.error(f"{SETTINGS_NAME} {problem}")
    if more := len(problems[_MAX_PROBLEMS:]):
        findings.error(f"{SETTINGS_NAME}: {more} more lines are wrong")
    return settings


def _by_keys(data: bytes) -> Mapping | None:
    """The keys whose lines are YAML by themselves, with their values; None where there are none."""
    items: dict[str, Node] = {}
    places: dict[str, Place] = {}
    for number, piece in _pieces(data):
        found = _read_alone(piece) or _read_alone(piece.splitlines()[0])
        if found is not None:
            for key in found.items.keys() & AvatarSettings.model_fields.keys() - items.keys():
                items[key], places[key] = found.items[key], number + 1
    return Mapping(items, places) if items else None


def _pieces(data: bytes) -> list[tuple[int, bytes]]:
    """The lines of each key, and the number of their first line, from 0."""
    pieces: list[tuple[int, bytes]] = []
    for number, line in enumerate(data.splitlines(keepends=True)):
        if _BEGINS_KEY.match(line) or not pieces:
            pieces.append((number, line))
        else:
            pieces[-1] = pieces[-1][0], pieces[-1][1] + line
    return pieces


def _read_alone(piece: bytes) -> Mapping | None:
    """The keys of ``piece``; None where anything of it is wrong."""
    problems: list[Problem] = []
    found = parse(piece, problems)
    return None if problems else found


def unread_keys(data: bytes, settings: AvatarSettings | None) -> frozenset[str]:
    """Return the names of the known keys that ``data``, the bytes of ``avatar.yaml``, contains and
    that are not set in ``settings``, such as those whose values are wrong. ``settings`` is what
    ``parse_settings`` returned for ``data``; with None all known keys in ``data`` are returned."""
    given = keys_begun(data)
    if parse(data, []) is None:  # others may follow where it stops being YAML
        given = given.union(*(keys_begun(piece) for _, piece in _pieces(data)))
    read = set() if settings is None else settings.model_fields_set
    return frozenset(given & AvatarSettings.model_fields.keys() - read)


def _from_mapping(document: Mapping, problems: list[Problem]) -> AvatarSettings:
    known = list(AvatarSettings.model_fields)
    values: dict[str, str | list[str]] = {}
    for key, node in document.items.items():
        message = None
        if key not in known:
            guess = nearest(key, known)
            hint = f"did you mean {guess}?" if guess else f"known are {', '.join(known)}"
            message = f"unknown key {shown(key)}; {hint}"
        elif key in _LISTS:
            entries = _entries(node)
            if entries is None:
                message = f"{key} is a {node.kind}; allowed is {_ALLOWED[key]}"
            else:
                values[key] = entries
        elif not isinstance(node, Scalar):
            message = f"{key} is a {node.kind}; it has to be a single value"
        elif node.text is not None:  # a key without a value says nothing
            values[key] = node.text
        if message is not None:
            problems.append(Problem(document.key_places[key], message))
    try:
        return AvatarSettings.model_validate(values)
    except ValidationError as error:
        for key in dict.fromkeys(str(detail["loc"][0]) for detail in error.errors()):
            text = values.pop(key)
            if isinstance(text, list):
                seen = shown(", ".join(text))
            else:
                seen = text if _WHOLE.fullmatch(text) else shown(text)
            allowed = _ALLOWED.get(key, "a text of 1 to 4000 printable characters")
            problems.append(
                Problem(document.key_places[key], f"{key} is {seen}; allowed is {allowed}")
            )
    return AvatarSettings.model_validate(values)


def _entries(node: Node) -> list[str] | None:
    """The texts of a list of single values, none where nothing is said; None for anything else."""
    if isinstance(node, Scalar):
        return [] if node.text is None else None
    if not isinstance(node, Sequence):
        return None
    texts = [item.text for item in node.items if isinstance(item, Scalar) and item.text is not None]
    return texts if len(texts) == len(node.items) else None


def _line(place: Place | None) -> int:
    return place if isinstance(place, int) else 0
