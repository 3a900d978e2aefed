"""The part ``model``: a folder that the engine fills, sealed so that damage to it is seen.

The seal lists each file with its size, and each file of external data the network was read from
with its content hash. It is the last file written.
"""

import json
from pathlib import Path
from typing import Any, Final

from lipwire.avatars.fingerprints import Fingerprints
from lipwire.avatars.package import AvatarPackage
from lipwire.avatars.storage import new_folder
from lipwire.domain import AvatarInvalid
from lipwire.engine import compile_model

SEAL_NAME: Final = "seal.json"


def model_is_sound(folder: Path, package: AvatarPackage, fingerprints: Fingerprints) -> bool:
    """Whether ``folder`` is whole, and was made from the external data as it is now."""
    try:
        seal: dict[str, Any] = json.loads((folder / SEAL_NAME).read_bytes())
        if any((folder / name).stat().st_size != size for name, size in seal["files"].items()):
            return False
        external = [package.path / name for name in seal["external"]]
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
    """Make the folder ``target``. Raises AvatarInvalid, StorageFailed."""
    external = _external_data(package)
    hashes = fingerprints.hashes(external)
    with new_folder(target) as folder:
        compile_model(package.model_path, folder)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        seal = {
            "files": {path.relative_to(folder).as_posix(): path.stat().st_size for path in files},
            "external": dict(zip(map(package.label, external), hashes, strict=True)),
        }
        (folder / SEAL_NAME).write_text(json.dumps(seal))


def _external_data(package: AvatarPackage) -> list[Path]:
    """Files beside the network whose names occur in it: all that it may keep weights in, if not
    more."""
    try:
        network = package.model_path.read_bytes()
        beside = sorted(package.model_path.parent.rglob("*"))
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        label = package.label(package.model_path)
        raise AvatarInvalid(f"{label} cannot be read; {reason}") from error
    return [
        path
        for path in beside
        if path.is_file() and path != package.model_path and path.name.encode() in network
    ]
