"""What lies in a package under another name, for messages about what is missing.

People bring folders of other programs: a network called ``195.onnx``, rectangles in
``cache/crop_rectangles.json``, frames in ``full_body_img/`` or in ``full_body_video.mp4``. Folders
are only listed, three levels deep (``checkpoint/anna/195.pth``), and nothing is read.
"""

import os
import re
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Final

_LEVELS: Final = 3
_MAX_FOLDERS: Final = 64
_MAX_ENTRIES: Final = 20_000
"""Of one folder; a recording of 13 minutes has so many frames."""
_MAX_NAME: Final = 100

_VIDEOS: Final = (".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi")
_IMAGES: Final = re.compile(r"(?:frame_)?\d{1,9}\.(?:png|jpe?g)", re.IGNORECASE | re.ASCII)
_CHECKPOINTS: Final = (".pth", ".pt", ".ckpt", ".safetensors")
PARTS_OF_FRAMES: Final = re.compile(
    r"crop|rois?_|mask|model_input|landmark|parsing|preview", re.IGNORECASE
)
"""In names of what is no whole frame."""
SPEECH: Final = re.compile(
    r"audio|encoder|(?<![a-z])ave(?![a-z])|hubert|wenet|syncnet", re.IGNORECASE
)
_RECTANGLES: Final = re.compile(r"rect|crop|bbox|box", re.IGNORECASE)


def frames_hint(root: Path, *, besides: str | None = None) -> str:
    """Return the end of a message that a package has no frames, which begins with "; " and says
    what lies in its folder ``root`` that may be meant as such; empty where nothing does.
    ``besides`` is the name of a video or folder that is not to be mentioned, because it was looked
    at already; None for none."""
    files = _files(root)
    videos = _likely(
        name
        for name in files[""]
        if name.lower().endswith(_VIDEOS) and name != besides and not PARTS_OF_FRAMES.search(name)
    )
    found = {
        name: f"{name} is there: say source_video: {name} in avatar.yaml" for name in videos[:1]
    }
    counts = {
        folder: sum(_IMAGES.fullmatch(name) is not None for name in names)
        for folder, names in files.items()
        if folder != besides and not PARTS_OF_FRAMES.search(folder)
    }
    for folder in _likely(folder for folder, count in counts.items() if count)[:1]:
        place = f"{folder}/" if folder else "the folder itself"
        use = "are used without source_video" if folder == "frames" else "belong in frames/"
        found[folder] = f"{place} holds images ({counts[folder]}): they {use}"
    return _joined(found[name] for name in _likely(found))


def network_hint(root: Path) -> str:
    """Return the end of a message that a package has no network, which begins with "; " and says
    what in its folder ``root`` looks like one; empty where nothing does."""
    paths = [path for path in listed_paths(root) if not SPEECH.search(path)]
    networks = [path for path in paths if path.lower().endswith(".onnx")]
    if networks:
        return _joined(
            [f"{_first_of(networks)} there: the network has to be checkpoint/model_best.onnx"]
        )
    checkpoints = [path for path in paths if path.lower().endswith(_CHECKPOINTS)]
    if checkpoints:
        last = sorted(checkpoints, key=natural, reverse=True)
        return _joined(
            [f"{_first_of(last)} there, which PyTorch reads: lipwire avatar import converts it"]
        )
    return ""


def encoder_hint(root: Path) -> str:
    """Return the end of a message that a package has no audio encoder, which begins with "; " and
    says what in its folder ``root`` looks like one; empty where nothing does."""
    paths = [path for path in listed_paths(root) if path.endswith(".onnx") and SPEECH.search(path)]
    return _joined(
        f"{path} is there: say audio_encoder: {path} in avatar.yaml" for path in paths[:1]
    )


def rectangles_hint(root: Path) -> str:
    """Return the end of a message that a package has no crop rectangles, which begins with "; " and
    says what in its folder ``root`` looks like a file of them; empty where nothing does."""
    paths = [
        path
        for path in listed_paths(root)
        if path.lower().endswith(".json") and _RECTANGLES.search(path)
    ]
    if paths:
        return _joined([f"{_first_of(paths)} there: the rectangles have to be in crop_rects.json"])
    pickled = [path for path in listed_paths(root) if path.endswith("coords.pkl")]
    if pickled:
        return _joined(
            [
                f"{_first_of(pickled)} there, a pickle, which is not read: its rectangles have to"
                " be in crop_rects.json, as x1, y1, x2, y2"
            ]
        )
    landmarks = sum(name.endswith(".lms") for name in _files(root).get("landmarks", []))
    if landmarks:
        return _joined(["landmarks/ is there: lipwire avatar import makes rectangles of it"])
    return ""


def _files(root: Path) -> dict[str, list[str]]:
    """Names of the files in ``root`` (key "") and in the folders below it, the upper ones first."""
    found: dict[str, list[str]] = {}
    level = [""]
    for _ in range(_LEVELS):
        below: list[str] = []
        for folder in level[: _MAX_FOLDERS + 1 - len(found)]:
            found[folder], folders = _listed(root / folder)
            below += (f"{folder}/{name}" if folder else name for name in folders)
        level = below
    return found


def _listed(folder: Path) -> tuple[list[str], list[str]]:
    """(files, folders) in ``folder`` that a message can name; links are not followed."""
    try:
        with os.scandir(folder) as entries:
            kept = [
                (entry.name, entry.is_dir(follow_symlinks=False))
                for entry in islice(entries, _MAX_ENTRIES)
                if entry.name.isprintable()
                and len(entry.name) <= _MAX_NAME
                and not entry.name.startswith(".")
            ]
    except OSError:
        return [], []
    kept.sort(key=lambda each: natural(each[0]))
    return [name for name, is_dir in kept if not is_dir], [name for name, is_dir in kept if is_dir]


def listed_paths(root: Path) -> list[str]:
    """Return the paths of the files in the folder ``root`` and in those up to two levels below it,
    relative to ``root``, with forward slashes, the upper ones first. Names that begin with a dot,
    that cannot be printed or are very long are left out, and so are folders that cannot be read; of
    very many files or folders only some are looked at."""
    return [
        f"{folder}/{name}" if folder else name
        for folder, names in _files(root).items()
        for name in names
    ]


def _likely(names: Iterable[str]) -> list[str]:
    """Those that say they are whole first."""
    return sorted(names, key=lambda name: not re.search("full|body|source", name, re.IGNORECASE))


def natural(name: str) -> list[tuple[int, str]]:
    """Return what ``name``, any text, is sorted by (``sorted(names, key=natural)``) so that numbers
    in texts count by their value: "frame9" before "frame10"."""
    return [(int(part) if part.isdecimal() else 0, part) for part in re.split(r"(\d{1,9})", name)]


def _first_of(paths: list[str]) -> str:
    more = len(paths) - 1
    return f"{paths[0]} is" if not more else f"{paths[0]} and {more} more are"


def _joined(found: Iterable[str]) -> str:
    text = "; or ".join(found)
    return f"; {text}" if text else ""
