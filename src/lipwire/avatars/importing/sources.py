"""Where an avatar that is to be imported lies."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lipwire.config.links import HOW, links_may_lead_out
from lipwire.domain import AvatarInvalid, NotFound
from lipwire.domain.wording import shown

BODY_FOLDER: Final = "full_body_img"
"""The whole frames of a recording, as SyncTalk_2D and Ultralight-Digital-Human cut it."""
_DATA: Final = "dataset"
_CHECKPOINTS: Final = "checkpoint"
_ENCODER_FOLDERS: Final = ("model/checkpoints", "data_utils/ave/checkpoints")
"""Folders of SyncTalk_2D's own tree."""
_MAX_DESCENT: Final = 3
"""So many folders that hold nothing but one folder are passed through, as archives have them."""


@dataclass(frozen=True, slots=True)
class Source:
    """One avatar to import.

    ``shown`` is what messages call it, ``name`` what the avatar is called unless another name is
    given. Files are looked for in ``folder``, networks then in the folders ``beside``. ``model``,
    ``audio_encoder``, ``frames`` (a folder of images or a video) and ``rectangles`` are paths that
    were given on their own; where one is None, its files are looked for. ``frame_count`` is how
    many frames there have to be; None where that is not known. ``landmarks_size`` is the (width,
    height) of the pictures that the landmarks are of; None where they have the size of the frames.
    ``renamed`` says whether a person chose ``name``, which is then also the name that people are
    shown.
    """

    shown: str
    name: str
    folder: Path
    beside: tuple[Path, ...] = ()
    model: Path | None = None
    audio_encoder: Path | None = None
    frames: Path | None = None
    rectangles: Path | None = None
    frame_count: int | None = None
    landmarks_size: tuple[int, int] | None = None
    renamed: bool = False

    @property
    def folders(self) -> tuple[Path, ...]:
        """The folders in which networks are looked for, in order."""
        return (self.folder, *self.beside)


def folder_sources(folder: Path, shown_as: str, name: str) -> list[Source]:
    """Return the avatars in ``folder``: one, or those of SyncTalk_2D's own tree, each of which has
    a folder in ``dataset/`` there.

    Folders that hold nothing but one folder are passed through. ``shown_as`` is what messages
    call the folder, ``name`` is the name for an avatar that lies in the folder itself. Raises
    NotFound where there is no such folder.
    """
    if not folder.is_dir():
        raise NotFound(f"no folder {shown_as}; name a folder, a .zip or a .tar file")
    inner = _innermost(folder)
    data = _data_folders(inner)
    if data:
        return [_in_tree(inner, each, f"{shown_as}/{_DATA}/{each.name}") for each in data]
    if inner.parent.name == _DATA and (inner / BODY_FOLDER).is_dir():
        return [_in_tree(inner.parent.parent, inner, shown_as)]
    return [Source(shown_as, inner.name if inner != folder else name, inner)]


def followed(path: Path, root: Path, shown_as: str) -> Path:
    """Return ``path``, which was found below the folder ``root``, unchanged. Raises AvatarInvalid
    where a symbolic link in the path cannot be followed, or leads out of ``root`` and the
    environment variable LIPWIRE_ALLOW_LINKS_OUTSIDE does not allow that: through such links a
    stranger's folder could bring any file of this machine into the package. ``shown_as`` is what
    the message calls the path."""
    try:
        inside = path.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError) as error:
        raise AvatarInvalid(f"{shown_as} is a link that cannot be followed") from error
    if not inside and not links_may_lead_out():
        raise AvatarInvalid(f"{shown_as} is a link that leads out of the folder; {HOW}")
    return path


def label_of(path: Path, root: Path) -> str:
    """Return ``path`` as messages name it: relative to ``root`` where it lies there, else its last
    three parts."""
    if path.is_relative_to(root):
        return path.relative_to(root).as_posix() or "."
    return "/".join(path.parts[-3:])


def _innermost(folder: Path) -> Path:
    for _ in range(_MAX_DESCENT):
        entries = contents_of(folder)
        if len(entries) != 1 or not entries[0].is_dir() or entries[0].is_symlink():
            break
        if entries[0].name in (BODY_FOLDER, _DATA, "frames", _CHECKPOINTS):
            break  # part of an avatar, though the rest of it is missing
        folder = entries[0]
    return folder


def contents_of(folder: Path) -> list[Path]:
    """Return the paths of what is in ``folder``, in no order, without what macOS and others leave
    in each: ``__MACOSX`` and names that begin with a dot. Raises NotFound where it cannot be
    read."""
    try:
        names = os.listdir(folder)  # noqa: PTH208 - the names alone
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise NotFound(f"{shown(str(folder))} cannot be read; {reason}") from error
    return [folder / name for name in names if not name.startswith(".") and name != "__MACOSX"]


def _data_folders(tree: Path) -> list[Path]:
    data = tree / _DATA
    if not data.is_dir():
        return []
    return sorted(each for each in contents_of(data) if (each / BODY_FOLDER).is_dir())


def _in_tree(tree: Path, folder: Path, shown_as: str) -> Source:
    """A data folder of SyncTalk_2D's own tree, which has its networks elsewhere."""
    beside = [tree / _CHECKPOINTS / folder.name, *(tree / place for place in _ENCODER_FOLDERS)]
    return Source(shown_as, folder.name, folder, tuple(each for each in beside if each.is_dir()))
