"""The part ``rest``: the mouth that the network makes of each frame for silence.

Each mouth, (320, 320, 3) uint8, is a JPEG of its own at 4:4:4. It is no part that
``compile_avatar`` makes, as it takes a network that runs.

    jpegs    the files, one behind the other
    starts   (frames + 1,) int64: where each begins in them
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final, Self

import cv2
import numpy as np

from lipwire.avatars.compiled.container import Container, ContainerDamagedError, ContainerWriter
from lipwire.avatars.compiled.keys import rest_content
from lipwire.avatars.compiled.parts import REST_PART, encoder_version, frame_count, runs
from lipwire.avatars.compiled.storage import exclusive, homes, new_file, writable_home
from lipwire.domain import MOUTH_PX, AvatarFiles, Float32Array, Revision, UInt8Array
from lipwire.domain.newfiles import remove

_DIGEST_BYTES: Final = 10
_QUALITY: Final = 95
_FORM: Final = f"jpeg-444-q{_QUALITY}-{encoder_version()}"
_START_OF_SCAN: Final = b"\xff\xda"
_OPTIONS: Final = [
    cv2.IMWRITE_JPEG_QUALITY,
    _QUALITY,
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
]


def stored_form(mouth: UInt8Array) -> bytes:
    """Return ``mouth``, (320, 320, 3) uint8 in the package's colour order, as it is stored: the
    bytes of a JPEG file at 4:4:4. The order of colours is not changed: ``mouth_of`` returns the
    mouth in the same order."""
    _, data = cv2.imencode(".jpg", mouth, _OPTIONS)
    return data.tobytes()


def mouth_of(data: bytes | UInt8Array) -> UInt8Array | None:
    """Return the mouth that ``stored_form`` was given, (320, 320, 3) uint8 in the same order of
    colours, but for what JPEG loses. ``data`` is the bytes of the file; None is returned where they
    are damaged or were not made by ``stored_form`` of this version."""
    head = _head()
    if bytes(data[: len(head)]) != head:
        return None
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        mouth = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        return None
    return None if mouth is None else np.asarray(mouth, np.uint8)


@lru_cache(maxsize=1)
def _head() -> bytes:
    """What every stored mouth begins with: its tables and its size. A file of another size, which
    may take any memory to be decoded, begins otherwise."""
    data = stored_form(np.zeros((MOUTH_PX, MOUTH_PX, 3), np.uint8))
    return data[: data.index(_START_OF_SCAN)]


@dataclass(frozen=True, slots=True)
class RestKey:
    """The name of a part ``rest``, the compiled mouths of an avatar for silence, by which it is
    found again.

    ``content`` is a hash of the frames, the network, and how mouths are stored. ``variant`` is a
    hash of the audio window of silence, which may differ in its last bits from one processor to the
    next. ``earlier`` is what ``content`` is in the last minor version.
    """

    content: str
    """Stands for the frames, the network, and how mouths are stored."""
    variant: str
    """Stands for what the network heard. That comes from the audio encoder, and may differ in its
    last bits from one processor to the next."""
    earlier: str = ""

    @classmethod
    def of(cls, revision: Revision, silence: Float32Array) -> Self | None:
        """Return the key for the frames and the network of ``revision``; None where one of its two
        hashes is empty. ``silence`` is the audio window of silence that the network is given, (32,
        16, 16) float32."""
        content = rest_content(revision, _FORM)
        heard = np.ascontiguousarray(silence, "<f4").tobytes()
        variant = hashlib.blake2b(heard, digest_size=_DIGEST_BYTES).hexdigest()
        earlier = rest_content(revision, _FORM, earlier=True)
        return cls(content, variant, earlier) if content else None

    @property
    def name(self) -> str:
        """The key as one text, which is the name of the part's file and is written inside it."""
        return f"{REST_PART}-{self.content}-{self.variant}"


class RestPart:
    """The opened part ``rest``: the mouths that an avatar's network makes of each frame for
    silence, each a JPEG file. Frames are numbered from 0 to ``count`` - 1.

    ``container`` is the part's file. Raises ContainerDamagedError where its tables do not fit each
    other.
    """

    __slots__ = ("_data", "_starts", "count", "path")

    def __init__(self, container: Container) -> None:
        self.path: Path = container.path
        self.count: int = frame_count(container)
        self._data: UInt8Array = container.array("jpegs")
        starts = container.array("starts")
        if starts.shape != (self.count + 1,) or not runs(starts, len(self._data)):
            raise ContainerDamagedError(f"{container.path.name} has tables that do not add up")
        self._starts: list[int] = starts.tolist()

    @property
    def size_bytes(self) -> int:
        """Bytes of all stored mouths."""
        return self._data.nbytes

    def jpeg(self, number: int) -> UInt8Array:
        """Return the stored mouth of frame ``number``, the bytes of a JPEG file for ``mouth_of``:
        (length,) uint8, read-only, mapped."""
        return self._data[self._starts[number] : self._starts[number + 1]]


def open_rest(places: Iterable[Path], key: RestKey, count: int) -> RestPart | None:
    """Open the file of the part ``rest`` that ``key`` names, the mouths that the network makes of
    each frame for silence. ``places`` are the folders where the avatar's compiled form may lie,
    best first: the first is taken where the file is undamaged and has ``count`` mouths, one for
    each frame. Return None where no folder has such a file."""
    for place in places:
        with suppress(OSError, ContainerDamagedError):
            part = RestPart(Container(place / key.name, REST_PART, key.name))
            if part.count == count:
                return part
    return None


def write_rest(
    package: Path,
    files: AvatarFiles,
    key: RestKey,
    mouths: Sequence[bytes],
    waiting: Callable[[], None],
    *,
    replace: bool = False,
) -> None:
    """Write the part ``rest``, one file with ``mouths``, beside the other compiled parts of the
    avatar. ``mouths`` are those that the network makes of each frame for silence, in the frames'
    order, each the bytes of a JPEG file of 320x320 pixels at 4:4:4, made by ``stored_form``. Parts
    ``rest`` of other frames or networks are removed.

    ``package`` is the avatar's folder and ``files`` are its files; ``key`` names what is written. A
    file for the same key that is there already is kept, unless ``replace``. ``waiting`` is called
    without arguments about five times a second while another process writes there; what it raises
    is passed on. Raises NotFound where ``package`` is not there any more, StorageFailed where the
    part cannot be written; then what was there before is unchanged, and nothing new is left.
    """
    home = writable_home(package, files.key, others=files.folders, own=files.compiled)
    with exclusive(home, waiting):
        if not replace and open_rest((home,), key, len(mouths)) is not None:
            return
        with new_file(home / key.name) as stream:
            writer = ContainerWriter(stream)
            writer.begin("jpegs")
            starts = [0]
            for mouth in mouths:
                writer.append(mouth)
                starts.append(starts[-1] + len(mouth))
            writer.array("starts", np.array(starts, np.int64))
            writer.finish(REST_PART, key.name, {"frames": len(mouths)})
        _remove_others(home, key.content, key.earlier)


def sweep_rest(home: Path, revision: Revision) -> None:
    """Remove the parts ``rest`` in the folder ``home`` that were made from other frames or another
    network than ``revision`` names; remove nothing where one of its two hashes is empty. The caller
    holds the folder's lock (``exclusive``)."""
    content = rest_content(revision, _FORM)
    if content:
        _remove_others(home, content, rest_content(revision, _FORM, earlier=True))


def stored_bytes(package: Path, files: AvatarFiles, revision: Revision) -> int:
    """Return the bytes of the largest part ``rest`` that is on disk for the frames and the network
    of ``revision``; 0 where there is none. ``package`` is the avatar's folder, ``files`` are its
    files."""
    content = rest_content(revision, _FORM)
    if not content:
        return 0
    sizes = [0]
    for home in homes(package, files.key, own=files.compiled):
        for path in home.glob(f"{REST_PART}-{content}-*"):
            with suppress(OSError):
                sizes.append(path.stat().st_size)
    return max(sizes)


def _remove_others(home: Path, *kept: str) -> None:
    names = tuple(f"{REST_PART}-{content}-" for content in kept if content)
    for path in home.glob(f"{REST_PART}-*"):
        if not path.name.startswith(names):
            remove(path)
