"""Whether a package may have changed since it was opened, for about a dozen stats.

The token is for a registry that asks once a second for each avatar in use. It sees a package moved
or linked into the place of another, any change to the network and to files that it keeps weights
in, to the audio encoder, the rectangles, the settings or the video, and frames added, removed or
replaced by renaming. It does not see a frame picture that was overwritten where it lies: there are
hundreds. Loading the avatar anew does (see ``fingerprints``), and so does touching
``crop_rects.json``.
"""

import os
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Final

from lipwire.avatars.package import Half
from lipwire.avatars.packagesettings import SETTINGS_NAME
from lipwire.domain import AvatarFiles, NotFound
from lipwire.domain.avatarfiles import (
    ENCODER_NAME,
    FRAMES_NAME,
    MODEL_NAME,
    RECTANGLES_NAME,
    VIDEO_NAME,
)
from lipwire.engine import external_files

_LOOKED_AT: Final = (
    MODEL_NAME,
    ENCODER_NAME,
    RECTANGLES_NAME,
    SETTINGS_NAME,
    FRAMES_NAME,
    VIDEO_NAME,
)

_MOST_GRAPH_BYTES: Final = 4 * 1024 * 1024
"""A network without its weights is smaller; one that is larger is not read to look for others."""

_Token = tuple[int, int, int, int]
PackageVersion = tuple[object, ...]
"""Equal for as long as nothing changed; otherwise without meaning."""


def package_version(
    where: AvatarFiles | Path, need: frozenset[Half] = frozenset()
) -> PackageVersion:
    """Return a token to compare with ``==``: it differs when one of an avatar's files was changed.
    It is made of the sizes and times of the files; the only content that is read is that of a
    network which was not read before, to find the files in which it keeps weights.

    ``where`` names the files, or the package's folder. ``need`` are the halves of the avatar that
    have to be there, of ``model`` and ``frames``. Raises NotFound where the package's folder is
    missing, or a file of a half in ``need`` whose path ``where`` gives on its own; a file that is
    missing inside the folder changes the token and raises nothing.
    """
    files = AvatarFiles.at(where)
    needed = {files.model} if "model" in need else set()
    if "frames" in need:
        needed |= {files.frames, files.rectangles}
    facts: list[object] = []
    if files.folder is not None:
        try:
            # Not its times: the compiled form comes and goes inside.
            folder = os.stat(os.path.join(files.folder, ""))  # noqa: PTH116, PTH118 - a third of Path's price
        except (OSError, ValueError) as error:
            name = files.folder.name
            raise NotFound(f"avatar {name} is gone; its folder is not there any more") from error
        facts += [folder.st_dev, folder.st_ino]
    for path in files.named:
        try:
            facts.append(_token(os.stat(path)))  # noqa: PTH116
        except (OSError, ValueError) as error:
            if path in needed:
                raise NotFound(f"{path} is not there") from error
            facts.append(None)
    for model in _networks(files):
        with suppress(OSError):
            beside = _outside(model, _token(os.stat(model)))  # noqa: PTH116
            facts += [_token_of(path) for path in beside]
    for root in files.folders:
        for name in _LOOKED_AT:
            facts.append(_token_of(f"{root}/{name}"))
    return tuple(facts)


def _networks(files: AvatarFiles) -> list[str]:
    """Where the network may be."""
    if files.model is not None:
        return [str(files.model)]
    return [f"{root}/{MODEL_NAME}" for root in files.folders]


@lru_cache(maxsize=20_000)
def _outside(model: str, token: _Token) -> list[str]:
    """The files that the network ``model``, as ``token`` has it, keeps weights in."""
    if token[0] > _MOST_GRAPH_BYTES:
        return []
    folder = os.path.dirname(model)  # noqa: PTH120
    return [f"{folder}/{name}" for name in external_files(Path(model)) if "\0" not in name]


def _token_of(path: str) -> _Token | None:
    """None where nothing is there."""
    try:
        return _token(os.stat(path))  # noqa: PTH116
    except OSError:
        return None


def _token(found: os.stat_result) -> _Token:
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino
