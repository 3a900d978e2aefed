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


@dataclass(frozen=True, slots=True)
class PartKey:
    part: Part
    content: str
    variant: str

    @property
    def name(self) -> str:
        """Name of the part's file or folder, and the key inside it."""
        return f"{self.part}-{self.content}-{self.variant}"


def part_keys(
    package: AvatarPackage, fingerprints: Fingerprints, quality: int
) -> dict[Part, PartKey]:
    """The key of every part as the package's files are now. Raises AvatarInvalid where one is
    gone."""
    pictures = package.pictures
    if pictures.video_path is not None:
        # Decoders may round colours differently from one version to the next.
        shown = [av.__version__, *fingerprints.hashes([pictures.video_path])]
    else:
        shown = fingerprints.hashes(pictures.frame_paths)
    (rects,) = fingerprints.hashes([package.rects_path])
    (model,) = fingerprints.hashes([package.model_path])
    frames_only = _digest(shown)
    frames_and_rects = _digest([*shown, rects])
    jpeg_variant = f"q{quality}-{_digest([encoder_version()])}"
    keys = (
        PartKey("model", _digest([model]), _digest([runtime_key()])),
        PartKey("patches", frames_and_rects, "raw"),
        PartKey("jpeg", frames_and_rects, jpeg_variant),
        PartKey("planes", frames_only, "i420"),
        PartKey("pixels", frames_only, "bgr"),
    )
    return {key.part: key for key in keys}


def _digest(facts: list[str]) -> str:
    text = "\n".join([str(FORMAT_VERSION), *facts])
    return hashlib.blake2b(text.encode(), digest_size=_DIGEST_BYTES).hexdigest()
