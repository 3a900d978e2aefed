"""What an avatar is judged by: the folder ``evaluation`` of its package.

    evaluation.json    what follows, by name
    NAME.flac          speech that training never heard
    NAME.mp4           the truth: what the crop rectangle should show, a frame each 40 ms
    NAME.npy           (T, K) float32, the mouth controls that the truth was made with

``evaluation.json`` says where in the crop rectangle speech changes pixels (``mouth_region``: x1,
y1, x2, y2 in pixels of the rectangle; jaw and cheeks move too) and where the lips and the inside of
the mouth are (``lips_box``), what colours that inside has (``interior``), and for each sequence the
frames in which p, b and m close the lips, the settled pauses, and a frame that shows each viseme.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import av
import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lipwire.domain import AvatarInvalid, CropRect, Float32Array, NotFound, UInt8Array
from lipwire.domain.media import open_media

FOLDER: Final = "evaluation"
INDEX: Final = "evaluation.json"

_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,60}$")]
_Span = tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Interior(_Strict):
    """How the inside of a mouth is told from lips and skin in pictures of 0-255: ``dark_below`` is
    the brightest channel of a pixel of the dark inside, ``pale_below`` the saturation, (max - min)
    / max, of a pixel of a tooth. ``closed_below_px`` is the opening up to which a mouth counts as
    closed, in pixels of the crop rectangle."""

    dark_below: Annotated[float, Field(ge=0, le=255)] = 70
    """Brightest channel of a pixel of the dark inside."""
    pale_below: Annotated[float, Field(ge=0, le=1)] = 0.16
    """Saturation, (max - min) / max, of a pixel of a tooth."""
    closed_below_px: Annotated[float, Field(ge=0)] = 2.5
    """Opening up to which a mouth counts as closed, in pixels of the crop rectangle. The dark line
    between the demo's resting lips reads as up to 1.5; one more cannot be seen."""


class Viseme(_Strict):
    """A mouth shape that a sequence shows: its name (``label``) and the number of the ``frame``
    that shows it."""

    label: Annotated[str, Field(min_length=1, max_length=12)]
    frame: Annotated[int, Field(ge=0)]


class SequenceEntry(_Strict):
    """A held-out sequence of an avatar, one that its network was not trained on, as
    ``evaluation.json`` lists it: its ``name``, whose ``voice`` speaks, and frames in which the
    mouth is known.

    ``closures`` are spans in which p, b or m close the lips, ``pauses`` those in which nobody
    speaks, each [first frame, one past the last]; ``visemes`` are single frames with a mouth shape.
    """

    name: _Name
    voice: Annotated[str, Field(max_length=200)] = ""
    closures: tuple[_Span, ...] = ()
    pauses: tuple[_Span, ...] = ()
    visemes: tuple[Viseme, ...] = ()


class Index(_Strict):
    """The content of ``evaluation.json``, which describes the held-out sequences of an avatar.

    ``mouth_region`` is where the network may change pixels, ``lips_box`` where lips and inside of
    the mouth are, both x1, y1, x2, y2 in pixels from the top left of the crop rectangle.
    ``interior`` says how the inside of the mouth is told from the rest.
    """

    version: Annotated[int, Field(ge=1, le=1)] = 1
    mouth_region: tuple[int, int, int, int]
    lips_box: tuple[int, int, int, int]
    interior: Interior = Interior()
    sequences: tuple[SequenceEntry, ...] = ()


@dataclass(frozen=True, slots=True)
class Material:
    """What an avatar is judged by: the ``folder`` of its package that contains recordings and the
    true pictures of held-out sequences, which its network was not trained on, and the ``index`` of
    these sequences. Recordings and pictures are read when a method asks for them. The pictures show
    the crop rectangle, the part of a frame around the mouth that the network draws anew."""

    folder: Path
    index: Index

    @property
    def mouth_region(self) -> CropRect:
        """Where the network may change pixels, in pixels from the top left of the crop
        rectangle."""
        return CropRect(*self.index.mouth_region)

    @property
    def lips_box(self) -> CropRect:
        """Where the lips and the inside of the mouth are, in pixels from the top left of the crop
        rectangle."""
        return CropRect(*self.index.lips_box)

    def audio_path(self, entry: SequenceEntry) -> Path:
        """Return the path of the speech of the sequence ``entry``, a FLAC file, whether it is there
        or not."""
        return self.folder / f"{entry.name}.flac"

    def truth(self, entry: SequenceEntry) -> UInt8Array:
        """Return the true pictures: what the crop rectangle should show in each frame of the
        sequence ``entry``, (T, rectangle height, rectangle width, 3) uint8 BGR. Raises
        AvatarInvalid where the sequence's video is missing, cannot be decoded, or has no frame."""
        path = self.folder / f"{entry.name}.mp4"
        try:
            with path.open("rb") as file, open_media(file) as video:
                frames = [frame.to_ndarray(format="bgr24") for frame in video.decode(video=0)]
        except (av.FFmpegError, OSError, ValueError, IndexError) as error:
            raise AvatarInvalid(
                f"evaluation/{path.name} cannot be decoded: {type(error).__name__}"
            ) from error
        if not frames:
            raise AvatarInvalid(f"evaluation/{path.name} holds no frame; at least one is needed")
        return np.asarray(np.stack(frames), np.uint8)

    def controls(self, entry: SequenceEntry) -> Float32Array | None:
        """Return the mouth controls that the truth of the sequence ``entry`` was made with, (T, K)
        float32 in [0, 1]; None where the package has no file of them. Raises AvatarInvalid where
        their file is no such array, or has values that are not finite."""
        path = self.folder / f"{entry.name}.npy"
        if not path.is_file():
            return None
        try:
            controls = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise AvatarInvalid(f"evaluation/{path.name} is not an array of NumPy") from error
        if controls.ndim != 2 or controls.dtype != np.float32 or not np.isfinite(controls).all():
            raise AvatarInvalid(
                f"evaluation/{path.name} is {controls.dtype} of shape {controls.shape}; finite "
                "float32 of shape (frames, controls) is needed"
            )
        return np.asarray(controls)


def read_material(package: Path) -> Material:
    """Return the material that the avatar in the folder ``package`` is judged by: its evaluation
    folder, whose index is read.

    Raises NotFound where the package has no evaluation folder or no index in it, AvatarInvalid
    where the index is broken.
    """
    folder = package / FOLDER
    index = folder / INDEX
    if not index.is_file():
        raise NotFound(
            f"{package.name} has no {FOLDER}/{INDEX}: without held-out sequences give a recording "
            "(--audio FILE)"
        )
    try:
        return Material(folder, Index.model_validate_json(index.read_bytes()))
    except OSError as error:
        raise AvatarInvalid(f"{FOLDER}/{INDEX} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise AvatarInvalid(f"{FOLDER}/{INDEX}: {where}: {first['msg']}") from error


def write_index(folder: Path, index: Index) -> None:
    """Write ``index`` as ``evaluation.json`` into the evaluation folder ``folder``, which has to
    exist; one that is there is overwritten. Raises OSError where it cannot be written."""
    text = json.dumps(index.model_dump(mode="json"), ensure_ascii=False, indent=1)
    (folder / INDEX).write_text(text + "\n", encoding="utf-8")
