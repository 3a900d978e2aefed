"""The avatars that the servers' configuration files name: the guide's two ``config.yaml``.

One file names networks, the other frames and rectangles, each by the avatar's name. Paths of
another machine ("d:/Projects/...") are looked for near the file: what follows some folder of such a
path is tried in each folder above the file.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Final

from lipwire.avatars.importing.sources import Source
from lipwire.config import check_config, detect_kind
from lipwire.domain import AvatarFiles, AvatarInvalid, InvalidInput

_PAIR: Final = ("inference", "compositing")
_DRIVE: Final = re.compile(r"^[A-Za-z]:")


@dataclass(frozen=True, slots=True)
class ConfiguredSources:
    """What configuration files name: ``sources``, one for each avatar that has files here, and
    ``faults``, a line for each that has none; ``told`` are lines on what was assumed."""

    sources: tuple[Source, ...]
    faults: tuple[str, ...]
    told: tuple[str, ...]


@dataclass(slots=True)
class _Entry:
    files: AvatarFiles
    frame_count: int | None
    config: Path
    moved: list[str] = field(default_factory=list)


def configured_sources(paths: Sequence[Path]) -> ConfiguredSources:
    """Return the avatars that the YAML files ``paths``, one or more, name: ``sources`` to import,
    and a line (``faults``) for each avatar whose files are not here. The files are configurations
    of inference servers, which name networks, and of compositing servers, which name frames and
    crop rectangles; what they name of one avatar is put together.

    Where one file is given, the other server's is looked for beside it: in a folder or under a name
    that has "inference" in the place of "compositing", or the other way round. Where a path that is
    named does not exist, its end is looked for in the folders above the configuration file. Raises
    NotFound where a file is not there and InvalidInput where it is no configuration, or no file
    names an avatar.
    """
    told: list[str] = []
    every = list(paths)
    if len(every) == 1 and (other := _other_of(every[0])) is not None:
        told.append(f"{other} belongs to {every[0]}")
        every.append(other)
    entries: dict[str, _Entry] = {}
    for path in every:
        for name, entry in _entries_of(path):
            known = entries.get(name)
            if known is None:
                entries[name] = entry
            else:
                known.files = known.files.completed_by(entry.files)
                known.frame_count = known.frame_count or entry.frame_count
                known.moved += entry.moved
    sources, faults = [], []
    for name, entry in entries.items():
        try:
            sources.append(_source(name, entry))
            told += entry.moved
        except AvatarInvalid as error:
            faults.append(str(error))
    if not entries:
        raise InvalidInput(f"{every[0]} names no avatars; its section models is looked at")
    return ConfiguredSources(tuple(sources), tuple(faults), tuple(dict.fromkeys(told)))


def _entries_of(path: Path) -> Iterator[tuple[str, _Entry]]:
    kind = detect_kind(path)
    if kind is None:
        raise InvalidInput(
            f"{path} is neither an inference server's configuration nor a compositing server's"
        )
    checked = check_config(path, {}, kind)
    if checked.config is None:
        raise InvalidInput(f"{path} {checked.problems[0]}")
    for name, files in checked.config.files.items():
        moved: list[str] = []

        def near(named: Path, moved: list[str] = moved) -> Path:
            return _near(named, path, moved)

        yield name, _Entry(files.through(near), checked.config.models[name].num_frames, path, moved)


def _near(named: Path, config: Path, moved: list[str]) -> Path:
    """``named``, or where it is here: the longest end of it that is there below a folder above the
    configuration file."""
    if named.exists():
        return named
    text = _DRIVE.sub("", named.as_posix().replace("\\", "/"))
    parts = [part for part in PurePosixPath(text).parts if part not in ("/", "..")]
    for begin in range(len(parts) - 1):
        for above in config.absolute().parents:
            here = above.joinpath(*parts[begin:])
            if here.exists():
                moved.append(f"{named} is {here}")
                return here
    return named


def _source(name: str, entry: _Entry) -> Source:
    files = entry.files
    for path in files.named:
        if not path.exists():
            raise AvatarInvalid(
                f"{name} in {entry.config}: {path} is not there, nor the end of this path in a"
                " folder above the file"
            )
    folders = [each for each in files.folders if each.is_dir()]
    if not folders:
        raise AvatarInvalid(f"{name} in {entry.config}: {files} is not there")
    return Source(
        shown=f"{name} in {entry.config}",
        name=name,
        folder=folders[0],
        beside=tuple(folders[1:]),
        model=files.model,
        audio_encoder=files.audio_encoder,
        frames=files.frames,
        rectangles=files.rectangles,
        frame_count=entry.frame_count,
    )


def _other_of(path: Path) -> Path | None:
    """The other server's file, where it lies where the guide has it."""
    whole = path.absolute()
    for this, other in (_PAIR, _PAIR[::-1]):
        if this in whole.name:
            beside = whole.with_name(whole.name.replace(this, other))
        elif this in whole.parent.name:
            beside = whole.parent.with_name(whole.parent.name.replace(this, other)) / whole.name
        else:
            continue
        return beside if beside.is_file() else None
    return None
