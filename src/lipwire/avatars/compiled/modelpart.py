"""The parts ``model`` and ``gpu``: folders that the engine fills, sealed so that damage is seen.

    model   the network for the processor
    gpu     the same network for GPUs, made only where one is to run it

The seal lists each file with its size, and each file of external data the network was read from
with its content hash. It is the last file written.
"""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

from lipwire.avatars.compiled.fingerprints import Fingerprints, outside_of
from lipwire.avatars.compiled.storage import new_folder
from lipwire.avatars.package import AvatarPackage
from lipwire.domain import AvatarInvalid
from lipwire.engine import compile_for_gpu, compile_model, external_files

SEAL_NAME: Final = "seal.json"


def network_is_sound(folder: Path, package: AvatarPackage, fingerprints: Fingerprints) -> bool:
    """Return whether all files of the compiled network in ``folder`` are there, with their sizes,
    and the files in which the network of ``package`` keeps weights still have the hashes that they
    had when it was compiled. False also where there is no such folder. ``fingerprints`` are the
    hashes of the package's files."""
    try:
        if not (folder / SEAL_NAME).is_file():  # reading a pipe would wait for ever
            return False
        seal: dict[str, Any] = json.loads((folder / SEAL_NAME).read_bytes())
        if any((folder / name).stat().st_size != size for name, size in seal["files"].items()):
            return False
        external = [package.model_path.parent / name for name in seal["external"]]
        return fingerprints.hashes(external) == list(seal["external"].values())
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        AvatarInvalid,
        RecursionError,
    ):
        return False


def build_model(target: Path, package: AvatarPackage, fingerprints: Fingerprints) -> None:
    """Compile the network of ``package``, which has to have been read with its network, for the
    processor into the folder ``target``, which appears whole or not at all, in the place of one
    that is there. ``fingerprints`` are the hashes of the package's files. Takes seconds to minutes.
    Raises AvatarInvalid where the network is no valid one, StorageFailed where ``target`` cannot be
    written."""
    _build(target, package, fingerprints, partial(compile_model, package.model_path))


def build_for_gpu(
    target: Path, model: Path, package: AvatarPackage, fingerprints: Fingerprints
) -> None:
    """Compile the network of ``package``, which has to have been read with its network, for GPUs
    into the folder ``target``, which appears whole or not at all. ``model`` is the folder of the
    same network compiled for the processor (``build_model``); the mouths of the result are compared
    with those that it makes. ``fingerprints`` are the hashes of the package's files. Raises
    AvatarInvalid where the network cannot be compiled so, StorageFailed where ``target`` cannot be
    written."""
    _build(target, package, fingerprints, partial(compile_for_gpu, package.model_path, model))


def _build(
    target: Path,
    package: AvatarPackage,
    fingerprints: Fingerprints,
    fill: Callable[[Path], None],
) -> None:
    network = package.model_path
    external = outside_of(network, external_files(network))
    hashes = fingerprints.hashes(external)
    with new_folder(target) as folder:
        fill(folder)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        seal = {
            "files": {path.relative_to(folder).as_posix(): path.stat().st_size for path in files},
            "external": dict(zip(_names(package, external), hashes, strict=True)),
        }
        (folder / SEAL_NAME).write_text(json.dumps(seal))


def _names(package: AvatarPackage, external: list[Path]) -> list[str]:
    """Files beside the network, by their places relative to it."""
    beside = package.model_path.parent
    return [path.relative_to(beside).as_posix() for path in external]
