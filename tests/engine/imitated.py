"""``Programs`` that imitate kernels: they find what a run is given where the launches say, and make
mouths of it in another way. No compiler is needed, and a frame takes a millisecond.
"""

import ctypes
import hashlib
import re
import threading
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
from tests.engine.emulated import H200
from tests.engine.standin import Shown
from tests.support.compilednetworks import gpu_folder, load_both

from lipwire.domain import AUDIO_WINDOW_SHAPE, Float32Array, UInt8Array
from lipwire.engine import Engine, Model
from lipwire.engine.forms import FACE, MOUTH, PIXELS_SHAPE, SPEECH
from lipwire.engine.gpu.kernels.cuda.arguments import BlockArguments, SpeechArguments
from lipwire.engine.gpu.memory.cropplaces import CROP_BYTES
from lipwire.engine.gpu.memory.devicememory import Bytes
from lipwire.engine.gpu.programs import KernelSource, Launch, Limits, Module, Recording
from lipwire.engine.gpu.store.gpufiles import (
    GpuGraph,
    GpuModel,
    ImageFile,
    read_gpu_manifest,
)
from lipwire.engine.runtime import open_session, session_options
from lipwire.engine.store.files import StoredWeight

Make: TypeAlias = Callable[[Bytes, UInt8Array, Float32Array], UInt8Array]
"""A mouth (320, 320, 3) of an image, a crop (320, 320, 3) and speech (32, 16, 16)."""

_SPEECH_BYTES: Final = int(np.prod(AUDIO_WINDOW_SHAPE)) * 4


def stamped(image: Bytes, crop: UInt8Array, speech: Float32Array) -> UInt8Array:
    """The crop in colours that only these weights, all of them, and this speech give it."""
    stamp = zlib.crc32(speech.tobytes(), zlib.crc32(image.data))
    return crop + np.array([stamp & 255, stamp >> 8 & 255, stamp >> 16 & 255], np.uint8)


def played(graph: bytes, weights: Sequence[StoredWeight]) -> Make:
    """What ONNX Runtime makes of ``graph`` (pixels-half.onnx)."""
    session = open_session(graph, session_options(threads=1, optimisation="basic"))
    made: dict[bytes, UInt8Array] = {}

    def make(image: Bytes, crop: UInt8Array, speech: Float32Array) -> UInt8Array:
        given = hashlib.sha256(image.tobytes() + crop.tobytes() + speech.tobytes()).digest()
        if given not in made:
            made[given] = run(image, crop, speech)
        return made[given].copy()

    def run(image: Bytes, crop: UInt8Array, speech: Float32Array) -> UInt8Array:
        feeds: dict[str, Any] = {FACE: crop[None], SPEECH: speech[None]}
        for weight in weights:
            values = image[weight.offset_bytes :].view(np.uint8)
            dtype = np.dtype(weight.element_type)
            size_bytes = int(np.prod(weight.shape)) * dtype.itemsize
            feeds[weight.name] = values[:size_bytes].view(dtype).reshape(weight.shape)
        mouth: UInt8Array = session.run([MOUTH], feeds)[0][0]
        return mouth

    return make


@dataclass(frozen=True)
class _Played:
    """Addresses, as the launches of a recording have them."""

    frames: int
    weights: int
    crops: int
    speech: int
    mouths: int


class ImitatedPrograms:
    """Thread-safe."""

    def __init__(self, make: Make, image_bytes: int, *, limits: Limits = H200) -> None:
        self.make = make
        self.limits: Final = limits
        self.identity: str | None = None
        self.held: set[Module | Recording] = set()
        """What is not dropped yet."""
        self.loads = 0
        self.records: list[int] = []
        """Of how many frames."""
        self.runs: list[int] = []
        self.fails: dict[str, list[Exception]] = {"load": [], "record": [], "run": []}
        """What the next calls raise."""
        self.image_bytes = image_bytes
        self._lock = threading.Lock()

    @property
    def loaded(self) -> int:
        return len(self.held)

    def load(self, source: KernelSource) -> Module:
        self.loads += 1
        self._fail("load")
        uses = re.findall(r"^typedef (\w+<.*>) (\w+)_program;$", source.text, re.MULTILINE)
        module = Module({name: template for template, name in uses}, dict(source.kernels))
        self._hold(module)
        return module

    def record(self, module: Module, launches: Sequence[Launch], stream: int) -> Recording:
        assert module in self.held
        self._fail("record")
        recording = Recording((module, _addresses(module.handle, launches)))
        self._hold(recording)
        self.records.append(recording.handle[1].frames)
        return recording

    def run(self, recording: Recording, stream: int) -> None:
        module, at = recording.handle
        assert {module, recording} <= self.held
        self._fail("run")
        self.runs.append(at.frames)
        for frame in range(at.frames):
            image = _bytes(_address(at.weights, frame), self.image_bytes)
            crop = _bytes(_address(at.crops, frame), CROP_BYTES).reshape(PIXELS_SHAPE)
            window = _bytes(at.speech + frame * _SPEECH_BYTES, _SPEECH_BYTES).view(np.float32)
            mouth = self.make(image, crop, window.reshape(AUDIO_WINDOW_SHAPE))
            _bytes(at.mouths + frame * CROP_BYTES, CROP_BYTES)[:] = mouth.reshape(-1)

    def drop(self, held: Module | Recording) -> None:
        with self._lock:
            self.held.remove(held)

    def _hold(self, held: Module | Recording) -> None:
        with self._lock:
            self.held.add(held)

    def _fail(self, where: str) -> None:
        with self._lock:
            errors = self.fails[where]
            error = errors.pop(0) if errors else None
        if error is not None:
            raise error


def _addresses(templates: Mapping[str, str], launches: Sequence[Launch]) -> _Played:
    blocks = [
        (templates[launch.kernel], BlockArguments.from_buffer_copy(launch.arguments))
        for launch in launches
        if templates.get(launch.kernel, "").startswith("Block<")
    ]
    (first,) = (arguments for template, arguments in blocks if "<PIXELS," in template)
    (last,) = (arguments for template, arguments in blocks if "NO_MOUTH" not in template)
    (heard,) = (each for each in launches if each.kernel == "speech_picture")
    speech = SpeechArguments.from_buffer_copy(heard.arguments).speech
    return _Played(heard.grid[2], first.weights, first.first, speech, last.out)


def _address(table: int, frame: int) -> int:
    return int(_bytes(table, 8 * (frame + 1)).view(np.uint64)[frame])


def _bytes(address: int, size_bytes: int) -> Bytes:
    return np.ctypeslib.as_array((ctypes.c_uint8 * size_bytes).from_address(address))


@dataclass
class StampedAvatars:
    """Of one architecture, with frames; ``stamped`` says what their mouths are."""

    folders: list[Path]
    frames: list[Shown] = field(init=False)
    images: list[Bytes] = field(init=False)

    def __post_init__(self) -> None:
        self.frames = [Shown(number) for number in range(len(self.folders))]
        self.images = [half_of(folder)[2] for folder in self.folders]

    def load(self, engine: Engine) -> list[Model]:
        return [
            load_both(engine, folder, frames)
            for folder, frames in zip(self.folders, self.frames, strict=True)
        ]

    def are(self, which: int, made: UInt8Array, crops: Any, windows: Any) -> bool:
        """Whether ``made`` are this avatar's mouths."""
        image = self.images[which]
        wanted = [stamped(image, *each) for each in zip(crops, windows, strict=True)]
        return bool((made == np.stack(wanted)).all())


def half_of(folder: Path) -> tuple[GpuModel, GpuGraph, Bytes]:
    """What a compiled network has for GPUs in half precision; the image is a copy."""
    folder = gpu_folder(folder)
    model = read_gpu_manifest(folder).models["half"]
    return model, model.graphs["pixels"], np.array(ImageFile(folder, model).image)
