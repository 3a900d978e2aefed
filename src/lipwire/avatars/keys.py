"""What each compiled part is made from, as a name: change any of it and the name is another one.

    NAME = PART - CONTENT - VARIANT

CONTENT stands for the package's files and the format; VARIANT for what else the bytes depend on
(JPEG quality and encoder; ONNX Runtime and the processor). Parts of old content are swept, variants
live side by side: machines of several kinds may share a folder.
"""

import hashlib
from dataclasses import dataclass

import av

from lipwire.avatars.container import FORMAT_VERSION
from lipwire.avatars.fingerprints import Fingerprints
from lipwire.avatars.package import AvatarPackage
from lipwire.avatars.parts import Part, encoder_version
from lipwire.engine import runtime_key

_DIGEST_BYTES = 10
_FORMAT = str(FORMAT_VERSION)


@dataclass(frozen=True, slots=True)
class PartKey:
    part: Part
    content: str
    variant: str

    @property
    def name(self) -> str:
        """Name of the part's file or folder, and the key inside it."""
        return f"{self.part}-{self.content}-{self.variant}"


@dataclass(frozen=True, slots=True)
class PackageKeys:
    """What a package's files are at one moment, under two kinds of names."""

    parts: dict[Part, PartKey]
    revision: str
    """The same wherever the files that decide about pixels are the same, whatever the machine."""


def package_keys(package: AvatarPackage, fingerprints: Fingerprints, quality: int) -> PackageKeys:
    """The keys as the package's files are now. Raises AvatarInvalid where one is gone."""
    pictures = package.pictures
    filmed = fingerprints.hashes(
        pictures.frame_paths if pictures.video_path is None else [pictures.video_path]
    )
    # Decoders may round colours differently from one version to the next.
    shown = filmed if pictures.video_path is None else [av.__version__, *filmed]
    (rects,) = fingerprints.hashes([package.rects_path])
    (model,) = fingerprints.hashes([package.model_path])
    settings = package.settings
    revision = _digest([*filmed, rects, model, str(settings.crop_border), settings.colour_order])
    frames_only = _digest([_FORMAT, *shown])
    frames_and_rects = _digest([_FORMAT, *shown, rects])
    jpeg_variant = f"q{quality}-{_digest([_FORMAT, encoder_version()])}"
    keys = (
        PartKey("model", _digest([_FORMAT, model]), _digest([_FORMAT, runtime_key()])),
        PartKey("patches", frames_and_rects, "raw"),
        PartKey("jpeg", frames_and_rects, jpeg_variant),
        PartKey("planes", frames_only, "i420"),
        PartKey("pixels", frames_only, "bgr"),
    )
    return PackageKeys({key.part: key for key in keys}, revision)


def _digest(facts: list[str]) -> str:
    text = "\n".join(facts)
    return hashlib.blake2b(text.encode(), digest_size=_DIGEST_BYTES).hexdigest()
