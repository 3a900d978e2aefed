"""A package made of what a source holds: written beside its place, checked, and given its name."""

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml

from lipwire.avatars.checks.problems import Problem
from lipwire.avatars.checks.validation import validate_package
from lipwire.avatars.importing.examining import Material
from lipwire.avatars.importing.features import features_note
from lipwire.avatars.importing.networks import Checkpoints, FoundNetwork, Kind
from lipwire.avatars.importing.report import Report
from lipwire.avatars.importing.sources import label_of
from lipwire.avatars.locating import reason_of
from lipwire.avatars.packagesettings import SETTINGS_NAME, AvatarSettings
from lipwire.avatars.sandbox.sandbox import Sandbox
from lipwire.domain import AvatarInvalid, CompileProgress, InvalidInput
from lipwire.domain.avatarfiles import (
    ENCODER_NAME,
    FRAMES_NAME,
    MASKS_NAME,
    MODEL_NAME,
    RECTANGLES_NAME,
    VIDEO_NAME,
)
from lipwire.domain.names import checked_name
from lipwire.domain.newfiles import new_folder, storage_errors
from lipwire.engine import external_files

_PIECE_BYTES: Final = 1 << 20
_WRITTEN_FRAME: Final = re.compile(rf"(?:{FRAMES_NAME}/)?frame_(\d{{4,9}})\.(?:png|jpe?g)")
_KEPT: Final = ("description", "licence", "consent")


@dataclass(frozen=True, slots=True)
class Target:
    """Where a package is written: the folder ``name`` in the folder ``folder``, which is made where
    it is missing. ``replace`` says whether one that is there may be replaced. Raises InvalidInput
    for what cannot be an avatar's name."""

    folder: Path
    name: str
    replace: bool = False

    def __post_init__(self) -> None:
        checked_name(self.name)

    @property
    def path(self) -> Path:
        """The package's folder."""
        return self.folder / self.name

    def check(self, source: Path) -> None:
        """Raise InvalidInput where something is there that may not be replaced, where ``folder`` is
        no folder, or where the package would lie in the folder ``source`` or hold it."""
        if self.folder.is_symlink() and not self.folder.exists():
            raise InvalidInput(f"{self.folder} is a link to nothing; name another folder (--to)")
        if self.folder.exists() and not self.folder.is_dir():
            raise InvalidInput(f"{self.folder} is no folder; an avatar is put into one (--to)")
        path, held = self.path.resolve(), source.resolve()
        if held.is_relative_to(path) or path.is_relative_to(held):
            raise InvalidInput(
                f"{self.path} is, holds or is in what is imported; name another place (--to) or"
                " name (--name)"
            )
        if self.path.exists() and not self.replace:
            raise InvalidInput(f"{self.path} is there already; --force replaces it")


def write_package(
    material: Material,
    target: Target,
    checkpoints: Checkpoints,
    report: Report,
    *,
    progress: CompileProgress,
    sandbox: Sandbox | None = None,
) -> list[Problem]:
    """Write the package ``target`` from ``material``, validate it, and return the warnings of the
    validation; an empty list where there are none.

    ``checkpoints`` converts PyTorch checkpoints to ONNX. What is learnt on the way is added to
    ``report``; ``progress(done, total, what)`` is called meanwhile. With a ``sandbox`` the package
    is validated in a process of its own, within its limits.

    Raises InvalidInput where something is at ``target`` that may not be replaced, its folder is a
    file, or it lies in the folder that ``material`` is from or holds it; AvatarInvalid where the
    package would not be valid, or a checkpoint is not what it should be; DependencyMissing where a
    checkpoint needs PyTorch; StorageFailed where it cannot be written. Whenever something is
    raised, nothing new is left, and what was at ``target`` is unchanged.
    """
    target.check(material.source.folder)
    with (
        storage_errors(target.path),
        _folder_made(target.folder),
        new_folder(target.path) as partial,
    ):
        (partial / MODEL_NAME).parent.mkdir()
        keys = _write_frames(material, partial, progress)
        _write_rectangles(material, partial / RECTANGLES_NAME)
        _write_masks(material, partial / MASKS_NAME)
        progress(0, 0, "writing networks")
        _write_network(material.network, "network", partial / MODEL_NAME, checkpoints)
        encoder = None
        if material.encoder is not None:
            encoder = partial / ENCODER_NAME
            _write_network(material.encoder, "audio encoder", encoder, checkpoints)
        called = None if material.source.renamed else material.settings.name
        _write_settings(material.settings, called or target.name, keys, partial / SETTINGS_NAME)
        if material.features is not None and sandbox is None:
            progress(0, 0, "comparing audio features")
            report.note(features_note(material.features, material.recording, encoder))
        problems = validate_package(partial, progress=progress, sandbox=sandbox)
        for problem in problems:
            if problem.severity == "error":
                told = _in_the_source(problem.message, partial, material)
                raise AvatarInvalid(f"{material.source.shown}: {told}")
    return problems


def _in_the_source(message: str, package: Path, material: Material) -> str:
    """What is wrong with a package that nobody will see, with the names that files have in the
    source, where that is known."""
    images, folder = material.images, material.source.folder

    def named(found: re.Match[str]) -> str:
        index = int(found[1])
        return label_of(images[index], folder) if index < len(images) else found[0]

    return _WRITTEN_FRAME.sub(named, message.replace(f"{package}/", ""))


@contextmanager
def _folder_made(folder: Path) -> Iterator[None]:
    """``folder`` and those above it are there during the block; after an error, those that were
    made are removed again."""
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        for each in made:
            with suppress(OSError):  # somebody else has put something there
                each.rmdir()
        raise


def _write_frames(material: Material, package: Path, progress: CompileProgress) -> dict[str, str]:
    """The frames, and the keys of the settings that name them."""
    if material.video is not None:
        suffix = material.video.suffix.lower()
        name = VIDEO_NAME if suffix == ".mp4" else f"source_video{suffix}"
        _copy(material.video, package / name)
        return {} if name == VIDEO_NAME else {"source_video": name}
    folder = package / FRAMES_NAME
    folder.mkdir()
    for index, image in enumerate(material.images):
        _copy(image, folder / f"frame_{index:04d}{image.suffix.lower()}")
        progress(index + 1, len(material.images), "copying frames")
    return {}


def _write_masks(material: Material, folder: Path) -> None:
    if material.masks:
        folder.mkdir()
    for number, mask in material.masks.items():
        _copy(mask, folder / f"{number:04d}.png")


def _copy(source: Path, target: Path) -> None:
    """Copy a file. What cannot be read is the source's fault, and not a full disk."""
    try:
        stream = source.open("rb")
    except OSError as error:
        raise AvatarInvalid(f"{source} cannot be read; {reason_of(error)}") from error
    with stream, target.open("xb") as made:
        shutil.copyfileobj(stream, made, _PIECE_BYTES)


def _write_rectangles(material: Material, path: Path) -> None:
    listed = [[rect.x1, rect.y1, rect.x2, rect.y2] for rect in material.rects]
    path.write_text(json.dumps(listed) + "\n", "utf-8")


def _write_network(found: FoundNetwork, kind: Kind, target: Path, checkpoints: Checkpoints) -> None:
    if found.pytorch:
        checkpoints.convert(found.path, kind, target)
        return
    _copy(found.path, target)
    folder = found.path.parent.resolve()
    for name in external_files(found.path):
        beside = found.path.parent / name
        if not beside.resolve().is_relative_to(folder):
            raise AvatarInvalid(f"{found.label}: its weights {name} lie outside its folder")
        if not beside.is_file():
            raise AvatarInvalid(f"{found.label}: its weights {name} are missing beside it")
        copied = target.parent / name
        if copied.exists():
            raise AvatarInvalid(f"{found.label}: its weights {name} have the name of another file")
        copied.parent.mkdir(parents=True, exist_ok=True)
        _copy(beside, copied)


def _write_settings(
    settings: AvatarSettings, name: str, keys: Mapping[str, str], path: Path
) -> None:
    values: dict[str, object] = {"name": name}
    values |= {key: text for key in _KEPT if (text := getattr(settings, key)) is not None}
    values |= {"crop_border": settings.crop_border, "colour_order": settings.colour_order, **keys}
    if settings.closed_eyes:
        values["closed_eyes"] = [
            f"{first}-{last}" if first != last else first for first, last in settings.closed_eyes
        ]
    path.write_text(yaml.safe_dump(values, sort_keys=False, allow_unicode=True), "utf-8")
