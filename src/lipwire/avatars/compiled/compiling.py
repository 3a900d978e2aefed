"""Compiling a package into its parts, and opening those that are there.

    read the package, one stat a file -> names of the parts -> open those files
                                              | one is missing or damaged
                                              v
    take the folder's lock -> look again (another process may have made it) -> build what is missing
        -> the files are still the same? -> rename into place -> sweep parts of old content

All parts made from frames are built in one pass, so a frame is decoded once.
"""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Final

from lipwire.avatars.checks.rectanglechecks import misplaced
from lipwire.avatars.compiled.container import Container, ContainerDamagedError
from lipwire.avatars.compiled.fingerprints import Fingerprints
from lipwire.avatars.compiled.keys import PackageKeys, PartKey, package_keys
from lipwire.avatars.compiled.modelpart import build_for_gpu, build_model, network_is_sound
from lipwire.avatars.compiled.parts import (
    ALWAYS,
    FRAME_PARTS,
    NETWORK_PARTS,
    WHOLE,
    Builder,
    FilePart,
    FramePart,
    Jpegs,
    NetworkPart,
    Part,
    Patches,
    builder,
    frame_count,
)
from lipwire.avatars.compiled.restpart import sweep_rest
from lipwire.avatars.compiled.storage import exclusive, homes, new_file, writable_home
from lipwire.avatars.frames.frameloading import (
    FrameTask,
    frames_in_flight,
    in_order,
    shown_frames,
)
from lipwire.avatars.frames.origins import Origins, frame_sum
from lipwire.avatars.package import AvatarPackage, Half
from lipwire.avatars.sandbox.sandbox import Sandbox
from lipwire.config import usable_cores
from lipwire.domain import (
    AvatarInvalid,
    CompileProgress,
    InvalidInput,
    NotFound,
    Revision,
    StorageFailed,
    UInt8Array,
)
from lipwire.domain.avatarfiles import RECTANGLES_NAME
from lipwire.domain.callbacks import WAITING
from lipwire.domain.newfiles import remove

DEFAULT_QUALITY = 75
FILE_PARTS: Final[tuple[FilePart, ...]] = (*NETWORK_PARTS, *FRAME_PARTS)
_NETWORK: Final[frozenset[Part]] = frozenset(NETWORK_PARTS)


@dataclass(slots=True)
class CompiledParts:
    """What ``compile_avatar`` returns: the compiled parts of one avatar, files that its own files
    were made into, opened and checked.

    ``revision`` has a hash of its frames and one of its network, the same on every machine;
    ``frames`` is a hash of the frames' files alone. ``networks`` has the folder of the compiled
    network by part ("model" or "gpu"). ``patches`` and ``jpegs`` are the opened parts of these
    names, None where they were not asked for. ``found`` names all parts that were opened.
    """

    revision: Revision
    """Hashes of the frames and of the network, the same on every machine; see ``PackageKeys``."""
    frames: str
    """Hash of the frames' files; see ``PackageKeys``."""
    networks: dict[NetworkPart, Path] = field(default_factory=dict)
    """The folders of the compiled network, by part."""
    patches: Patches | None = None
    jpegs: Jpegs | None = None
    found: set[FilePart] = field(default_factory=set)

    @property
    def network(self) -> Path:
        """The folder of the compiled network. Raises InvalidInput where the part ``model`` was not
        asked for."""
        folder = self.networks.get("model")
        if folder is None:
            raise InvalidInput("the network was not asked for; name the part model")
        return folder

    @property
    def network_for_gpu(self) -> Path | None:
        """The folder of the network compiled for GPUs; None where the part ``gpu`` was not asked
        for."""
        return self.networks.get("gpu")


def compile_avatar(
    package: AvatarPackage,
    *,
    parts: frozenset[Part] = ALWAYS,
    quality: int = DEFAULT_QUALITY,
    progress: CompileProgress | None = None,
    sandbox: Sandbox | None = None,
    foreign: bool = False,
) -> CompiledParts:
    """Open the compiled ``parts`` of an avatar, files that its own files are made into, and build
    those that are missing, stale or damaged; returns when all are there.

    ``package`` is what ``read_package`` returned. Parts are ``model`` (the network), ``gpu`` (the
    network for GPUs), ``patches`` and ``jpeg`` (of the frames); the default is ``model`` and
    ``patches``. ``gpu`` asks for ``model`` too; ``jpeg``, ``planes`` and ``pixels`` ask for
    ``patches``. ``quality`` (1-100) is that of ``jpeg``.

    ``progress(done, total, what)`` is called while something is built, with total 0 where it is not
    known, and while another process builds it; what it raises ends the building and is passed on.
    With a ``sandbox`` what is missing is built in a process of its own, within its limits.
    ``foreign`` says that the package comes from a stranger, which is always assumed with a sandbox:
    its compiled form is then kept in the user's cache alone, and one in the package's folder is not
    used.

    Raises InvalidInput for unknown parts or another quality, AvatarInvalid where the package is
    broken or changes meanwhile, NotFound where its folder is gone, StorageFailed where neither the
    package nor the user's cache folder can take the result. With a sandbox AvatarInvalid also where
    it needs more memory or time than is allowed or crashes, and Unavailable where the process
    cannot be started, is killed, or waits too long for another one. Whatever is raised, Ctrl-C
    included, the parts that were there before are kept, and no incomplete part is left.
    """
    _check(parts, quality)
    wanted = frozenset(part for part in FILE_PARTS if part in parts)
    if parts - _NETWORK:
        wanted |= {"patches"}
    if "gpu" in wanted:
        wanted |= {"model"}
    report = progress or _silent
    foreign = foreign or sandbox is not None
    own = package.files.compiled
    places = homes(package.path, package.files.key, foreign=foreign, own=own)
    fingerprints = Fingerprints.load(package.path, places)
    keys = package_keys(package, fingerprints, quality)
    compiled = _open(wanted, keys, places, package, fingerprints)
    if compiled.found != wanted and sandbox is not None:
        sandbox.compile(package.files, _halves(package), parts, quality, report)
        keys = package_keys(package, fingerprints, quality)
        compiled = _open(wanted, keys, places, package, fingerprints)
        if compiled.found != wanted:
            raise _not_read_back(wanted - compiled.found, places[-1])
    elif compiled.found != wanted:
        home = _home(package, foreign)
        waiting = partial(report, 0, 0, WAITING)
        with exclusive(home, waiting):
            keys = package_keys(package, fingerprints, quality)
            compiled = _open(wanted, keys, places, package, fingerprints)
            missing = wanted - compiled.found
            if missing:
                model = compiled.networks.get("model")
                _build(missing, keys.parts, home, model, package, fingerprints, quality, report)
                _sweep(home, keys)
                sweep_rest(home, keys.revision)
                compiled = _open(wanted, keys, places, package, fingerprints)
        if compiled.found != wanted:
            raise _not_read_back(wanted - compiled.found, home)
    _save(fingerprints, package, foreign)
    return compiled


def _halves(package: AvatarPackage) -> frozenset[Half]:
    """Those that ``package`` was read with."""
    halves: dict[Half, object] = {"model": package.model, "frames": package.frames}
    return frozenset(half for half, found in halves.items() if found is not None)


def _not_read_back(lost: Iterable[FilePart], home: Path) -> StorageFailed:
    return StorageFailed(
        f"cannot read back {', '.join(sorted(lost))} from {home} after writing; try again"
    )


def _check(parts: frozenset[Part], quality: int) -> None:
    known = {*FILE_PARTS, *WHOLE}
    if not parts <= known:
        raise InvalidInput(
            f"parts are {', '.join(sorted(parts))}; allowed are {', '.join(sorted(known))}"
        )
    if not 1 <= quality <= 100:
        raise InvalidInput(f"JPEG quality is {quality}; allowed are 1 to 100")


def _open(
    wanted: frozenset[FilePart],
    keys: PackageKeys,
    places: tuple[Path, ...],
    package: AvatarPackage,
    fingerprints: Fingerprints,
) -> CompiledParts:
    """Those of the wanted parts that are there and sound."""
    compiled = CompiledParts(keys.revision, keys.frames)
    for part in NETWORK_PARTS:
        for home in places if part in wanted else ():
            folder = home / keys.parts[part].name
            if network_is_sound(folder, package, fingerprints):
                compiled.networks[part] = folder
                compiled.found.add(part)
                break
    for frame_part in FRAME_PARTS:
        for home in places:
            if frame_part not in wanted or frame_part in compiled.found:
                break
            name = keys.parts[frame_part].name
            with suppress(OSError, ContainerDamagedError):
                container = Container(home / name, frame_part, name)
                _use(container, frame_part, compiled)
                compiled.found.add(frame_part)
    return compiled


def _use(container: Container, part: FramePart, compiled: CompiledParts) -> None:
    if compiled.patches is not None and frame_count(container) != compiled.patches.count:
        raise ContainerDamagedError(f"{container.path.name} has not as many frames as its patches")
    if part == "patches":
        compiled.patches = Patches(container)
    else:
        compiled.jpegs = Jpegs(container)


def _build(
    missing: frozenset[FilePart],
    keys: dict[FilePart, PartKey],
    home: Path,
    model: Path | None,
    package: AvatarPackage,
    fingerprints: Fingerprints,
    quality: int,
    report: CompileProgress,
) -> None:
    """``model`` is the part of that name, unless it is missing too."""

    def check_unchanged(part: FilePart) -> None:
        if package_keys(package, fingerprints, quality).parts[part] != keys[part]:
            raise AvatarInvalid(
                f"{package.path.name} was changed while it was compiled; compile it again"
            )

    frame_parts = [part for part in FRAME_PARTS if part in missing]
    with ExitStack() as stack:
        if frame_parts:  # before the network, which takes long
            frames = _open_frames(stack, package)
        if "model" in missing:
            report(0, 1, "optimising the network")
            model = home / keys["model"].name
            build_model(model, package, fingerprints)
            check_unchanged("model")
            report(1, 1, "optimising the network")
        if "gpu" in missing:
            assert model is not None  # it is wanted with this one
            report(0, 1, "optimising the network for GPUs")
            build_for_gpu(home / keys["gpu"].name, model, package, fingerprints)
            check_unchanged("gpu")
            report(1, 1, "optimising the network for GPUs")
        if frame_parts:
            _build_frames(stack, frame_parts, frames, keys, home, package, quality, report)
            # Inside the block: leaving it with an error drops everything written.
            for part in frame_parts:
                check_unchanged(part)


@dataclass(frozen=True, slots=True)
class _Frames:
    """The frames of a package, opened, of which the first is there already."""

    origins: Origins
    """Where they come from; complete when the last frame was taken."""
    source: int
    first: UInt8Array  # (height, width, 3) uint8 BGR, of frame `source` of the file
    others: Iterator[tuple[int, FrameTask]]


def _open_frames(stack: ExitStack, package: AvatarPackage) -> _Frames:
    """The package's frames, open until ``stack`` is closed. Raises AvatarInvalid with all
    rectangles that are not inside frames as the first."""
    pictures = package.pictures
    origins = Origins()
    tasks = stack.enter_context(closing(shown_frames(pictures, origins)))
    source, task = next(tasks)
    first = task()
    height, width = first.shape[:2]
    wrong = misplaced(pictures.used(package.rects), width, height, pictures.first_number)
    if wrong is not None:
        raise AvatarInvalid(wrong)
    return _Frames(origins, source, first, tasks)


def _build_frames(
    stack: ExitStack,
    parts: list[FramePart],
    frames: _Frames,
    keys: dict[FilePart, PartKey],
    home: Path,
    package: AvatarPackage,
    quality: int,
    report: CompileProgress,
) -> None:
    origins, first = frames.origins, frames.first
    size = first.shape[1], first.shape[0]
    builders = [
        builder(
            part,
            stack.enter_context(new_file(home / keys[part].name)),
            keys[part].name,
            size,
            quality,
            origins,
        )
        for part in parts
    ]
    total = len(package.pictures.frame_paths)
    jobs = (
        partial(_prepare, package, builders, source, task, size)
        for source, task in chain([(frames.source, lambda: first)], frames.others)
    )
    report(0, total, "compiling frames")
    workers = usable_cores()
    in_flight = frames_in_flight(first.nbytes, workers)
    with closing(in_order(jobs, workers, in_flight)) as results:
        for done, prepared in enumerate(results, start=1):
            origins.shown.append(prepared.source)
            origins.sums.append(prepared.sum)
            for part_builder, payload in zip(builders, prepared.payloads, strict=True):
                part_builder.append(payload)
            report(done, total, "compiling frames")
    for part_builder in builders:
        part_builder.finish()


@dataclass(frozen=True, slots=True)
class _Prepared:
    """One frame, as the builders write it."""

    source: int
    sum: int
    payloads: list[Any]


def _prepare(
    package: AvatarPackage,
    builders: list[Builder],
    source: int,
    task: FrameTask,
    size: tuple[int, int],
) -> _Prepared:
    frame = task()
    if source >= len(package.rects):  # only a video can have more frames; images were counted
        raise AvatarInvalid(
            f"{RECTANGLES_NAME} has {len(package.rects)} rectangles and the video more frames;"
            " each frame needs one"
        )
    rect = package.rects[source]
    seen = (frame.shape[1], frame.shape[0])
    if seen != size:
        raise AvatarInvalid(f"{package.pictures.label(source)} {other_size(seen, size)}")
    mask = None if package.masks is None else package.masks.under(source, rect, size)
    payloads = [part_builder.prepare(frame, rect, mask) for part_builder in builders]
    return _Prepared(source, frame_sum(frame), payloads)


def other_size(seen: tuple[int, int], size: tuple[int, int]) -> str:
    """Return the end of a message that a frame has the size ``seen``, where the first frame has
    ``size``; both are (width, height)."""
    return f"is {seen[0]}x{seen[1]}; all frames have to be as the first, {size[0]}x{size[1]}"


def _sweep(home: Path, keys: PackageKeys) -> None:
    """Remove parts of content that the package no longer has, and of kinds that are not kept any
    more. What the last minor version made of its content is kept."""
    for part in WHOLE:
        for path in home.glob(f"{part}-*"):
            remove(path)
    for part, key in keys.parts.items():
        kept = tuple(f"{part}-{content}-" for content in (key.content, *keys.earlier))
        for path in home.glob(f"{part}-*"):
            if not path.name.startswith(kept):
                remove(path)


def _home(package: AvatarPackage, foreign: bool) -> Path:
    files = package.files
    return writable_home(
        package.path, files.key, foreign=foreign, others=files.folders, own=files.compiled
    )


def _save(fingerprints: Fingerprints, package: AvatarPackage, foreign: bool) -> None:
    if fingerprints.changed:
        with suppress(StorageFailed, NotFound):  # the latter where it was erased meanwhile
            fingerprints.save(_home(package, foreign))


def _silent(done: int, total: int, what: str) -> None:
    del done, total, what
