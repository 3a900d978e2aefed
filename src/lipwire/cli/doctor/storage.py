"""What servers read and write on disks: avatars, caches, logs and records."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from lipwire.cli.doctor.checks import Check, fault, holds, not_applicable, ok, warning

if TYPE_CHECKING:
    from lipwire.avatars import AvatarPackage
    from lipwire.config import ServerConfig

_GB: Final = 1e9
_FREE_GB: Final = 2.0
"""Compiled forms take up to some hundred megabytes for each avatar."""
_FREE_FOR_LINES_GB: Final = 0.5
"""For files that a line is added to at a time, until somebody has seen the warning."""
_FULL_BYTES: Final = 1e6
_NAMED: Final = 3
"""Avatars that are named in one line."""


@dataclass(frozen=True, slots=True)
class Avatars:
    """What was found out about the avatars of a configuration: ``checks``, how many avatars can be
    read (``readable``), and how many bytes of frames the setting ``preload_backgrounds`` reads into
    memory."""

    checks: tuple[Check, ...]
    readable: int = 0
    preloaded_bytes: int = 0


def avatars(
    config: ServerConfig, progress: Callable[[int, int], object] = lambda _done, _total: None
) -> Avatars:
    """Check that the avatars of ``config`` can be read, and have as many frames as it says. Return
    an ``Avatars``: the checks (a first one of all avatars, then a FAULT for each that cannot be
    used), the number of avatars that can be read, and the bytes of frames to preload. Avatars in a
    store are only counted, not read.

    ``progress(done, total)`` is called after each avatar with how many have been looked at, and how
    many there are.
    """
    from lipwire.config import InferenceConfig
    from lipwire.domain import LipwireError, NotFound
    from lipwire.wiring.registries import open_catalog

    name = "avatars"
    root = config.models_folder
    if config.store_url is not None:
        return _stored(config, config.store_url)
    if root is not None and not os.access(root, os.R_OK | os.X_OK):
        seen = f"{root} cannot be read" if holds(root.exists) else f"there is nothing at {root}"
        return Avatars(
            (fault(name, seen, "a folder of avatar packages", "set models_root, or allow it"),)
        )
    try:
        catalog = open_catalog(config)
        names = catalog.names()
    except NotFound as error:
        return Avatars((fault(name, str(error), "one avatar or more", "set models_root"),))
    needed = "model" if isinstance(config, InferenceConfig) else "frames"
    frames = preloaded = 0
    without: list[str] = []
    wrong: list[Check] = []
    for done, each in enumerate(names, 1):
        try:
            package = _read(catalog.files(each), needed)
            counted = _frames(package)
        except LipwireError as error:
            wrong.append(_unusable(each, str(error)))
            continue
        finally:
            progress(done, len(names))
        entry = config.models.get(each)
        is_video = package.frames is not None and package.pictures.video_path is not None
        if entry is not None and entry.num_frames not in (None, counted) and not is_video:
            wrong.append(_unusable(each, f"{counted} frames; num_frames is {entry.num_frames}"))
            continue
        frames += counted
        if package.model is None:
            without.append(each)
        if entry is not None and entry.preload_backgrounds:
            preloaded += _frame_bytes(package)
    good = len(names) - len(wrong)
    seen = f"{good} of {len(names)} can be read, {frames} frames"
    if without:
        seen += f"; without a network: {_listed(without)}"
    wanted = "every package readable; lipwire avatar validate looks at each picture"
    if not names:
        first = warning(name, f"none in {root}", "one avatar or more", "copy packages there")
    elif wrong:
        first = fault(name, seen, wanted, "lipwire avatar validate NAME says all of it")
    else:
        first = ok(name, seen, wanted)
    return Avatars((first, *wrong), good, preloaded)


def _stored(config: ServerConfig, url: str) -> Avatars:
    """Avatars in a store are counted, and not read: they are not here."""
    from lipwire.avatars.store.pushing import avatars_in
    from lipwire.domain import LipwireError
    from lipwire.stores.objects import ObjectStore

    settings, name = config.store, "avatars"
    wanted = "a store that can be read, with one avatar or more"
    try:
        store = ObjectStore(
            url, endpoint_url=settings.endpoint_url, timeout_s=settings.timeout_seconds
        )
        count = len(avatars_in(store))
    except LipwireError as error:
        return Avatars((fault(name, f"{url}: {error}", wanted, "set models_root, or allow it"),))
    seen = f"{count} are published in {url}"
    if not count:
        return Avatars((warning(name, seen, wanted, "lipwire avatar push NAME --publish"),))
    return Avatars((ok(name, seen, wanted),), count)


def _read(files: object, half: str) -> AvatarPackage:
    from lipwire.avatars import read_package

    return read_package(files, frozenset({half}))  # type: ignore[arg-type]


def _frames(package: AvatarPackage) -> int:
    """Source frames; of a video those that have a rectangle, as it is not decoded here."""
    if package.frames is None:
        return 0
    return len(package.pictures.frame_paths) or len(package.rects)


def _frame_bytes(package: AvatarPackage) -> int:
    if package.frames is None:
        return 0
    video = package.pictures.video_path
    files = package.pictures.frame_paths if video is None else (video,)
    return sum(path.stat().st_size for path in files)


def _unusable(avatar: str, seen: str) -> Check:
    return fault(f"avatar {avatar}", seen, "a whole package", f"lipwire avatar validate {avatar}")


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def cache(folder: Path) -> Check:
    """Check that ``folder`` can be written to, or made, and has 2 GB free. Compiled forms of
    avatars are kept there when they cannot be kept in the avatars' packages. Nothing is made or
    written."""
    name = "cache folder"
    wanted = f"{_FREE_GB:g} GB free, and writable"
    there = folder
    while not os.path.lexists(there):
        there = there.parent
    if not holds(there.is_dir) or not os.access(there, os.W_OK | os.X_OK):
        return fault(
            name, f"{folder} cannot be written to", wanted, "allow it, or set XDG_CACHE_HOME"
        )
    return _room(name, folder, shutil.disk_usage(there).free, wanted)


def _room(name: str, folder: Path, free_bytes: int, wanted: str) -> Check:
    seen = f"{free_bytes / _GB:.1f} GB free in {folder}"
    if free_bytes < _FREE_GB * _GB:
        return warning(name, seen, wanted, "make room, or set XDG_CACHE_HOME to another disk")
    return ok(name, seen, wanted)


def written_files(config: ServerConfig) -> Iterator[Check]:
    """Yield checks that the files which servers with ``config`` write can be written (the log, the
    records of calls and of live sessions, the count of tenants' minutes in live sessions), and that
    the files of API keys and of the key for tokens can be read. Where it names none of them, yields
    one check, NOT_APPLICABLE. Nothing is written."""
    security = config.security
    named = {
        "logging.file": config.logging.file,
        "security.audit_file": security.audit_file,
        "security.usage_file": security.usage_file,
        "security.limits.minutes_file": security.limits.minutes_file,
    }
    for name, path in named.items():
        if path is not None:
            yield _writable(name, path)
    keys, signing = security.keys_file, security.jwt.key_file
    if keys is not None:
        yield _keys("security.keys_file", keys)
    if signing is not None:
        yield _readable("security.jwt.key_file", signing)
    if not any((*named.values(), keys, signing)):
        yield not_applicable("logs, records, keys", "no file is named in logging and security")


def _writable(name: str, path: Path) -> Check:
    wanted = "a file that can be written"
    if holds(path.exists):
        good = path.is_file() and os.access(path, os.W_OK)
    else:
        good = holds(path.parent.is_dir) and os.access(path.parent, os.W_OK | os.X_OK)
    if not good:
        remedy = "make its folder, and let the server's user"
        return fault(name, f"{path} cannot be written", wanted, remedy)
    free_bytes = shutil.disk_usage(path.parent).free
    if free_bytes >= _FREE_FOR_LINES_GB * _GB:
        return ok(name, str(path), wanted)
    seen = f"{path}, {free_bytes / 1e6:.1f} MB free"
    judge = fault if free_bytes < _FULL_BYTES else warning
    return judge(name, seen, f"{_FREE_FOR_LINES_GB} GB free", "make room, or name another disk")


def _readable(name: str, path: Path) -> Check:
    wanted = "a file that can be read"
    if holds(path.is_file) and os.access(path, os.R_OK):
        return ok(name, str(path), wanted)
    return fault(name, f"{path} cannot be read", wanted, "put it there, or name another file")


def _keys(name: str, path: Path) -> Check:
    from lipwire.domain import LipwireError
    from lipwire.security import KeyFile

    wanted = "one API key or more"
    try:
        keys = KeyFile(path).listed()
    except LipwireError as error:
        return fault(name, str(error), wanted, "lipwire keys create NAME --file makes one")
    if not keys:
        return warning(name, f"no keys in {path}", wanted, "lipwire keys create NAME --file")
    return ok(name, f"{len(keys)} in {path}", wanted)
