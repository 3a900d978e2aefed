"""What each compiled part is made from, as a name: change any of it and the name is another one.

    NAME = PART - CONTENT - VARIANT

CONTENT stands for the package's files and the format; VARIANT for what else the bytes depend on
(JPEG quality and encoder; ONNX Runtime, and for the part ``model`` the processor). Parts of old
content are swept, variants live side by side: machines of several kinds may share a folder.
"""

import hashlib
from dataclasses import dataclass

import av

from lipwire.avatars.compiled.container import FORMAT_VERSION
from lipwire.avatars.compiled.fingerprints import Fingerprints
from lipwire.avatars.compiled.parts import FilePart, encoder_version
from lipwire.avatars.package import AvatarPackage, FramesHalf
from lipwire.domain import Revision
from lipwire.engine import FORMAT_VERSION as NETWORK_FORMAT
from lipwire.engine import gpu_runtime_key, runtime_key

_DIGEST_BYTES = 10
_FORMAT = str(FORMAT_VERSION)


@dataclass(frozen=True, slots=True)
class PartKey:
    """Names one form of a compiled part.

    ``content`` is a hash of the files that it is made from, ``variant`` a text for what it depends
    on besides: versions, and the quality of JPEG.
    """

    part: FilePart
    content: str
    variant: str

    @property
    def name(self) -> str:
        """Name of the part's file or folder, and the key inside it."""
        return f"{self.part}-{self.content}-{self.variant}"


@dataclass(frozen=True, slots=True)
class PackageKeys:
    """Hashes that stand for a package's files as they are at one moment."""

    parts: dict[FilePart, PartKey]
    """The key of each part; a half that the package was read without has none."""
    frames: str
    """Stands for the frames alone, whatever the rectangles; empty where they are not there."""
    revision: Revision


def package_keys(package: AvatarPackage, fingerprints: Fingerprints, quality: int) -> PackageKeys:
    """Return the keys of the package's files as they are now. Raises AvatarInvalid where one is
    gone or cannot be read.

    ``fingerprints`` are those of the package's folder, and are brought up to date. ``quality`` is
    that of JPEG, 1 to 100.
    """
    keys: list[PartKey] = []
    model = shown = frames = ""
    if package.model is not None:
        hashed = fingerprints.network(package.model)
        model = _digest(hashed)
        # Parts of an older form of the network are of no use any more: they are to be swept.
        content = _digest([_FORMAT, str(NETWORK_FORMAT), *hashed])
        keys += [
            PartKey("model", content, _digest([_FORMAT, runtime_key()])),
            PartKey("gpu", content, _digest([_FORMAT, gpu_runtime_key()])),
        ]
    if package.frames is not None:
        shown, frames, frame_keys = _frames_keys(package, package.frames, fingerprints, quality)
        keys += frame_keys
    revision = Revision(frames=frames, model=model)
    return PackageKeys({key.part: key for key in keys}, shown, revision)


def rest_content(revision: Revision, form: str) -> str:
    """Return a hash, 20 hexadecimal digits, of the frames and the network of ``revision``, for the
    key of the part ``rest``; empty where one of the two is not known.

    ``form`` names the form in which mouths are stored, which the hash depends on too.
    """
    if not (revision.frames and revision.model):
        return ""
    return _digest([_FORMAT, form, revision.frames, revision.model])


def _frames_keys(
    package: AvatarPackage, half: FramesHalf, fingerprints: Fingerprints, quality: int
) -> tuple[str, str, list[PartKey]]:
    """What stands for the frames alone, their revision, and the keys of the parts that are made
    from them."""
    pictures = half.pictures
    filmed = fingerprints.hashes(
        pictures.frame_paths if pictures.video_path is None else [pictures.video_path]
    )
    # Decoders may round colours differently from one version to the next.
    shown = filmed if pictures.video_path is None else [av.__version__, *filmed]
    (rects,) = fingerprints.hashes([half.rects_path])
    settings = package.settings
    revision = _digest([*filmed, rects, str(settings.crop_border), settings.colour_order])
    frames_and_rects = _digest([_FORMAT, *shown, rects])
    jpeg_variant = f"q{quality}-{_digest([_FORMAT, encoder_version()])}"
    return (
        _digest([_FORMAT, *shown]),
        revision,
        [
            PartKey("patches", frames_and_rects, "raw"),
            PartKey("jpeg", frames_and_rects, jpeg_variant),
        ],
    )


def _digest(facts: list[str]) -> str:
    text = "\n".join(facts)
    return hashlib.blake2b(text.encode(), digest_size=_DIGEST_BYTES).hexdigest()
