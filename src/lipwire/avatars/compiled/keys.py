"""What each compiled part is made from, as a name: change any of it and the name is another one.

    NAME = PART - CONTENT - VARIANT

CONTENT stands for the package's files and the format; VARIANT for what else the bytes depend on
(JPEG quality and encoder; ONNX Runtime, and for the part ``model`` the processor). Parts of old
content are swept, variants live side by side: machines of several kinds may share a folder. Those
of the last minor version live beside them, too, since its servers run while they are replaced one
by one.
"""

import hashlib
from dataclasses import dataclass

import av

from lipwire.avatars.compiled.container import FORMAT_VERSION
from lipwire.avatars.compiled.fingerprints import Fingerprints
from lipwire.avatars.compiled.parts import FilePart, encoder_version
from lipwire.avatars.frames.masks import Masks
from lipwire.avatars.package import AvatarPackage, FramesHalf
from lipwire.domain import Revision
from lipwire.engine import FORMAT_VERSION as NETWORK_FORMAT
from lipwire.engine import gpu_runtime_key, runtime_key

_DIGEST_BYTES = 10
_FORMAT = str(FORMAT_VERSION)
EARLIER_FORMAT = "4"
EARLIER_NETWORK_FORMAT = "3"
"""The formats of the last minor version, which may be the same."""


@dataclass(frozen=True, slots=True)
class PartKey:
    """The name of a compiled part, by which it is found again: which ``part`` it is, a hash of the
    files that it is made from (``content``), and a text for what else it depends on (``variant``),
    such as versions and the quality of JPEG."""

    part: FilePart
    content: str
    variant: str

    @property
    def name(self) -> str:
        """The key as one text, which is the name of the part's file or folder and is written inside
        it."""
        return f"{self.part}-{self.content}-{self.variant}"


@dataclass(frozen=True, slots=True)
class PackageKeys:
    """Hashes that stand for an avatar's files as they are at one moment.

    ``parts`` has the key of each compiled part, except for those of a half (network or frames) that
    the package was read without. ``frames`` stands for the frames alone, whatever the crop
    rectangles; empty where they are not there. ``revision`` stands for frames and network on every
    machine. ``earlier`` has the hashes by which the last minor version finds parts of these files.
    """

    parts: dict[FilePart, PartKey]
    """The key of each part; a half that the package was read without has none."""
    frames: str
    """Stands for the frames alone, whatever the rectangles; empty where they are not there."""
    revision: Revision
    earlier: frozenset[str]
    """``PartKey.content`` of these files in the last minor version."""


def package_keys(package: AvatarPackage, fingerprints: Fingerprints, quality: int) -> PackageKeys:
    """Return hashes of the files of ``package`` as they are now, among them the key of each
    compiled part (``parts``, by the part's name), by which it is found. Raises AvatarInvalid where
    a file is gone or cannot be read.

    ``fingerprints`` are the recorded hashes of the package's folder: files that have changed since
    are read, and their new hashes put there. ``quality`` is that of JPEG, 1 to 100; the key of the
    part ``jpeg`` depends on it.
    """
    keys: list[PartKey] = []
    model = shown = frames = ""
    earlier: set[str] = set()
    if package.model is not None:
        hashed = fingerprints.network(package.model)
        model = _digest(hashed)
        # Parts of a still older form of the network are of no use any more: they are to be swept.
        content = _digest([_FORMAT, str(NETWORK_FORMAT), *hashed])
        earlier.add(_digest([EARLIER_FORMAT, EARLIER_NETWORK_FORMAT, *hashed]))
        keys += [
            PartKey("model", content, _digest([_FORMAT, runtime_key()])),
            PartKey("gpu", content, _digest([_FORMAT, gpu_runtime_key()])),
        ]
    if package.frames is not None:
        shown, frames, frame_keys, of_earlier = _frames_keys(
            package, package.frames, fingerprints, quality
        )
        keys += frame_keys
        earlier.add(of_earlier)
    revision = Revision(frames=frames, model=model)
    return PackageKeys({key.part: key for key in keys}, shown, revision, frozenset(earlier))


def rest_content(revision: Revision, form: str, *, earlier: bool = False) -> str:
    """Return a hash, 20 hexadecimal digits, of the frames and the network of ``revision``, for the
    key of the part ``rest`` (the stored mouths for silence). Return an empty text where one of the
    two hashes in ``revision`` is empty.

    ``form`` is any text that names the form in which mouths are stored; the hash depends on it too.
    With ``earlier`` it is the hash that the last minor version of Lipwire has for them.
    """
    if not (revision.frames and revision.model):
        return ""
    version = EARLIER_FORMAT if earlier else _FORMAT
    return _digest([version, form, revision.frames, revision.model])


def _frames_keys(
    package: AvatarPackage, half: FramesHalf, fingerprints: Fingerprints, quality: int
) -> tuple[str, str, list[PartKey], str]:
    """What stands for the frames alone, their revision, the keys of the parts that are made from
    them, and what stands for those in the last minor version."""
    pictures = half.pictures
    filmed = fingerprints.hashes(
        pictures.frame_paths if pictures.video_path is None else [pictures.video_path]
    )
    # Decoders may round colours differently from one version to the next.
    shown = filmed if pictures.video_path is None else [av.__version__, *filmed]
    (rects,) = fingerprints.hashes([half.rects_path])
    masks = _of_masks(half.masks, fingerprints)
    settings = package.settings
    revision = _digest([*filmed, rects, str(settings.crop_border), settings.colour_order, *masks])
    frames_and_rects = _digest([_FORMAT, *shown, rects, *masks])
    jpeg_variant = f"q{quality}-{_digest([_FORMAT, encoder_version()])}"
    return (
        _digest([_FORMAT, *shown]),
        revision,
        [
            PartKey("patches", frames_and_rects, "raw"),
            PartKey("jpeg", frames_and_rects, jpeg_variant),
        ],
        _digest([EARLIER_FORMAT, *shown, rects]),
    )


def _of_masks(masks: Masks | None, fingerprints: Fingerprints) -> list[str]:
    """What stands for which frames have masks, and for these; nothing where none has."""
    if masks is None:
        return []
    numbers = sorted(masks.paths)
    hashes = fingerprints.hashes([masks.paths[number] for number in numbers])
    return [f"{number} {found}" for number, found in zip(numbers, hashes, strict=True)]


def _digest(facts: list[str]) -> str:
    text = "\n".join(facts)
    return hashlib.blake2b(text.encode(), digest_size=_DIGEST_BYTES).hexdigest()
