"""Compiling a package into its parts, and opening those that are there.

    read the package, one stat a file -> names of the parts -> open those files
                                              | one is missing or damaged
                                              v
    take the folder's lock -> look again (another process may have made it) -> build what is missing
        -> the files are still the same? -> rename into place -> sweep parts of old content

All parts made from frames are built in one pass, so a frame is decoded once.
"""

import os
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from lipwire.avatars.container import Container, ContainerDamagedError
from lipwire.avatars.fingerprints import Fingerprints
from lipwire.avatars.frames import FrameTask, frame_tasks, in_order
from lipwire.avatars.keys import PackageKeys, PartKey, package_keys
from lipwire.avatars.modelpart import build_model, model_is_sound
from lipwire.avatars.package import AvatarPackage
from lipwire.avatars.parts import (
    ALWAYS,
    FRAME_PARTS,
    Builder,
    FramePart,
    Jpegs,
    Part,
    Patches,
    builder,
    frame_count,
    whole_frames,
)
from lipwire.avatars.rectangles import RECTANGLES_NAME, outside_frame
from lipwire.avatars.storage import exclusive, homes, new_file, remove, writable_home
from lipwire.domain import AvatarInvalid, CropRect, InvalidInput, StorageFailed, UInt8Array

Progress = Callable[[int, int, str], None]
"""Called as (done, total, what) from the thread that compiles; total is 0 where it is not known."""

DEFAULT_QUALITY = 75


@dataclass(slots=True)
class CompiledParts:
    """The parts of one avatar, opened and checked."""

    revision: str
    """See ``PackageKeys.revision``."""
    model_path: Path | None = None
    patches: Patches | None = None
    jpegs: Jpegs | None = None
    planes: UInt8Array | None = None
    """(frames, even height * 3/2, even width) uint8 I420, mapped."""
    pixels: UInt8Array | None = None
    """(frames, height, width, 3) uint8 BGR, mapped."""
    found: set[Part] = field(default_factory=set)


def compile_avatar(
    package: AvatarPackage,
    *,
    parts: frozenset[Part] = frozenset(),
    quality: int = DEFAULT_QUALITY,
    progress: Progress | None = None,
) -> CompiledParts:
    """Open ``parts`` and what is always needed, building what is missing, stale or damaged.

    ``quality`` (1-100) is that of the part ``jpeg``. Raises InvalidInput for unknown parts or
    another quality, AvatarInvalid where the package is broken or changes meanwhile, StorageFailed
    where neither the package nor the user's cache folder can take the result. Whatever is raised,
    Ctrl-C included, what was there before is still there and nothing else.
    """
    wanted = _checked(parts, quality) | ALWAYS
    report = progress or _silent
    places = homes(package.path)
    fingerprints = Fingerprints.load(package.path, places)
    keys = package_keys(package, fingerprints, quality)
    compiled = _open(wanted, keys, places, package, fingerprints)
    if compiled.found != wanted:
        home = writable_home(package.path)
        waiting = partial(report, 0, 0, "waiting for another process that compiles this avatar")
        with exclusive(home, waiting):
            keys = package_keys(package, fingerprints, quality)
            compiled = _open(wanted, keys, places, package, fingerprints)
            missing = wanted - compiled.found
            if missing:
                _build(missing, keys.parts, home, package, fingerprints, quality, report)
                _sweep(home, keys.parts)
                compiled = _open(wanted, keys, places, package, fingerprints)
        if compiled.found != wanted:
            lost = ", ".join(sorted(wanted - compiled.found))
            raise StorageFailed(f"cannot read back {lost} from {home} after writing; try again")
    _save(fingerprints, package.path)
    return compiled


def _checked(parts: frozenset[Part], quality: int) -> frozenset[Part]:
    known = {"model", *FRAME_PARTS}
    if not parts <= known:
        raise InvalidInput(
            f"parts are {', '.join(sorted(parts))}; allowed are {', '.join(sorted(known))}"
        )
    if not 1 <= quality <= 100:
        raise InvalidInput(f"JPEG quality is {quality}; allowed are 1 to 100")
    return parts


def _open(
    wanted: frozenset[Part],
    keys: PackageKeys,
    places: tuple[Path, ...],
    package: AvatarPackage,
    fingerprints: Fingerprints,
) -> CompiledParts:
    """Those of the wanted parts that are there and sound."""
    compiled = CompiledParts(keys.revision)
    for home in places:
        folder = home / keys.parts["model"].name
        if model_is_sound(folder, package, fingerprints):
            compiled.model_path = folder
            compiled.found.add("model")
            break
    for part in FRAME_PARTS:
        for home in places:
            if part not in wanted or part in compiled.found:
                break
            name = keys.parts[part].name
            with suppress(OSError, ContainerDamagedError):
                container = Container(home / name, part, name)
                _use(container, part, compiled)
                compiled.found.add(part)
    return compiled


def _use(container: Container, part: FramePart, compiled: CompiledParts) -> None:
    if compiled.patches is not None and frame_count(container) != compiled.patches.count:
        raise ContainerDamagedError(f"{container.path.name} has not as many frames as its patches")
    if part == "patches":
        compiled.patches = Patches(container)
    elif part == "jpeg":
        compiled.jpegs = Jpegs(container)
    elif part == "planes":
        compiled.planes = whole_frames(container)
    else:
        compiled.pixels = whole_frames(container)


def _build(
    missing: frozenset[Part],
    keys: dict[Part, PartKey],
    home: Path,
    package: AvatarPackage,
    fingerprints: Fingerprints,
    quality: int,
    report: Progress,
) -> None:
    def check_unchanged(part: Part) -> None:
        if package_keys(package, fingerprints, quality).parts[part] != keys[part]:
            raise AvatarInvalid(
                f"{package.path.name} was changed while it was compiled; compile it again"
            )

    if "model" in missing:
        report(0, 1, "optimising the network")
        build_model(home / keys["model"].name, package, fingerprints)
        check_unchanged("model")
        report(1, 1, "optimising the network")
    frame_parts = [part for part in FRAME_PARTS if part in missing]
    if frame_parts:
        with ExitStack() as stack:
            _build_frames(stack, frame_parts, keys, home, package, quality, report)
            # Inside the block: leaving it with an error drops everything written.
            for part in frame_parts:
                check_unchanged(part)


def _build_frames(
    stack: ExitStack,
    parts: list[FramePart],
    keys: dict[Part, PartKey],
    home: Path,
    package: AvatarPackage,
    quality: int,
    report: Progress,
) -> None:
    tasks = stack.enter_context(closing(frame_tasks(package.pictures)))
    first_task = next(tasks)
    first = first_task()
    height, width = first.shape[:2]
    builders = [
        builder(
            part,
            stack.enter_context(new_file(home / keys[part].name)),
            keys[part].name,
            width,
            height,
            quality,
        )
        for part in parts
    ]
    total = len(package.pictures.frame_paths)
    jobs = (
        partial(_prepare, package, builders, index, task, (width, height))
        for index, task in enumerate(chain([_given(first)], tasks))
    )
    report(0, total, "compiling frames")
    done = 0
    with closing(in_order(jobs, os.cpu_count() or 1)) as results:
        for prepared in results:
            for part_builder, payload in zip(builders, prepared, strict=True):
                part_builder.append(payload)
            done += 1
            report(done, total, "compiling frames")
    for part_builder in builders:
        part_builder.finish()


def _prepare(
    package: AvatarPackage,
    builders: list[Builder],
    index: int,
    task: FrameTask,
    size: tuple[int, int],
) -> list[Any]:
    frame = task()
    if index >= len(package.rects):  # only a video can have more frames; images were counted
        raise AvatarInvalid(
            f"{RECTANGLES_NAME} has {len(package.rects)} rectangles and the video more frames;"
            " each frame needs one"
        )
    rect = package.rects[index]
    check_frame(package.pictures.label(index), (frame.shape[1], frame.shape[0]), rect, size)
    return [part_builder.prepare(frame, rect) for part_builder in builders]


def check_frame(
    label: str, seen: tuple[int, int], rect: CropRect | None, size: tuple[int, int]
) -> None:
    """Raises AvatarInvalid where a frame of ``seen`` (width, height) is not of ``size``, or
    ``rect`` is not inside it. ``label`` names the frame."""
    width, height = seen
    if seen != size:
        raise AvatarInvalid(
            f"{label} is {width}x{height}; all frames have to be as the first, {size[0]}x{size[1]}"
        )
    if rect is not None and outside_frame(rect, width, height):
        raise AvatarInvalid(
            f"{RECTANGLES_NAME}: rectangle of {label} is {rect};"
            f" it has to lie inside the frame of {width}x{height}"
        )


def _given(frame: UInt8Array) -> FrameTask:
    return lambda: frame


def _sweep(home: Path, keys: dict[Part, PartKey]) -> None:
    """Remove parts of content that the package no longer has."""
    for part, key in keys.items():
        for path in home.glob(f"{part}-*"):
            if not path.name.startswith(f"{part}-{key.content}-"):
                remove(path)


def _save(fingerprints: Fingerprints, package: Path) -> None:
    if fingerprints.changed:
        with suppress(StorageFailed):
            fingerprints.save(writable_home(package))


def _silent(done: int, total: int, what: str) -> None:
    del done, total, what
