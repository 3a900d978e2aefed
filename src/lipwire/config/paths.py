"""Paths of a configuration: where they start, and which avatar's folder they lie in."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Final

from pydantic import BeforeValidator, ValidationInfo, WithJsonSchema
from pydantic_core import PydanticCustomError

from lipwire.config.wording import shown

EXPLAINED: Final = "explained"
"""Type of the errors whose text needs nothing added but the key."""

MODEL_FILE: Final = ("checkpoint", "model_best.onnx")
FRAMES_FOLDER: Final = ("frames",)
RECTANGLES_FILE: Final = ("crop_rects.json",)
PACKAGE_LAYOUT: Final = {
    "model_path": MODEL_FILE,
    "background_dir": FRAMES_FOLDER,
    "crop_rects_path": RECTANGLES_FILE,
}
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_DRIVE: Final = re.compile(r"[A-Za-z]:|\\\\")


def _path(value: object, info: ValidationInfo) -> object:
    if not isinstance(value, str):
        return value
    base = info.context.get("base") if isinstance(info.context, dict) else None
    return resolve(value, base)


def resolve(text: str, base: Path | None) -> Path:
    """The path that ``text`` means in a file of folder ``base``. Raises ValueError.

    ``~`` is the user's home. A Windows path with a drive stays one, also where it leads nowhere.
    """
    if not text.strip() or _CONTROL.search(text) or len(text) > 4096:
        raise ValueError("no path")
    if os.name != "nt" and _DRIVE.match(text):
        return Path(text.replace("\\", "/"))
    try:
        path = Path(text).expanduser() if text.startswith("~") else Path(text)
    except RuntimeError as error:  # ~nobody
        raise ValueError("no home folder") from error
    return path if base is None else base / path


def is_foreign(path: Path) -> bool:
    """Whether ``path`` has a drive, on a system that has none."""
    return os.name != "nt" and _DRIVE.match(str(path)) is not None


def package_folder(key: str, path: Path) -> Path:
    """The avatar's folder that ``path``, given as ``key``, lies in."""
    inside = PACKAGE_LAYOUT.get(key, ())
    parts = path.parts
    if inside and (len(parts) <= len(inside) or parts[-len(inside) :] != inside):
        raise PydanticCustomError(
            EXPLAINED,
            "{key} is {seen}; it has to end in {inside}, inside the avatar's folder",
            {"key": key, "seen": shown(str(path)), "inside": "/".join(inside)},
        )
    for _ in inside:
        path = path.parent
    return path


FilePath = Annotated[
    Path, BeforeValidator(_path), WithJsonSchema({"type": "string", "allowed": "a path"})
]
