"""Plans drawn by hand, and their launches run one by one on the processor."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from tests.engine.emulator import Emulator
from tests.engine.reference import Weights

from lipwire.domain import AUDIO_WINDOW_SHAPE, MOUTH_PX, Float32Array, UInt8Array
from lipwire.engine.gpu.kernels.cuda.arguments import BlockArguments, LayerArguments
from lipwire.engine.gpu.kernels.lowering.lowered import Lowered
from lipwire.engine.gpu.kernels.lowering.operations import Addresses
from lipwire.engine.gpu.kernels.planning.plan import (
    Convolution,
    Ending,
    FullConvolution,
    InvertedResidual,
    Joined,
    Mouth,
    Pixels,
    Plain,
    Plan,
    Source,
    Speech,
    Step,
    Tensor,
)
from lipwire.engine.gpu.programs import Launch

_GUARD_BYTES = 4096
_UNTOUCHED = 0xFF
"""Two of it are a NaN in float16."""
_ALIGNMENT_BYTES = 256


@dataclass
class Drawing:
    """A plan in the making. Weights are drawn as they are needed: none is there by chance."""

    names: dict[str, int] = field(default_factory=dict)
    """Of the steps, by what they are to try: the tensor that each makes."""
    steps: list[Step] = field(default_factory=list)
    tensors: list[Tensor] = field(default_factory=list)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Of weights and biases."""

    @property
    def plan(self) -> Plan:
        return Plan(tuple(self.steps), tuple(self.tensors), ())

    def inverted(
        self,
        name: str,
        source: Source | Tensor,
        outputs: int,
        *,
        middle: int | None = None,
        stride: int = 1,
        add: bool = False,
        biases: str = "edp",
    ) -> Tensor:
        """``biases`` has the first letters of the convolutions that have one."""
        source = Plain(source) if isinstance(source, Tensor) else source
        size, inputs = _size(source)
        middle = middle or 2 * inputs
        out = self._tensor(name, (size - 1) // stride + 1, outputs)
        convolutions = (
            self._convolution(f"{name}: expand", inputs, middle, 1, "e" in biases),
            self._convolution(f"{name}: depthwise", middle, middle, 3, "d" in biases, groups=True),
            self._convolution(f"{name}: project", middle, outputs, 1, "p" in biases),
        )
        self.steps.append(InvertedResidual(source, *convolutions, stride, add, out))
        return out

    def full(
        self,
        name: str,
        source: Speech | Tensor,
        outputs: int,
        *,
        stride: int = 1,
        padding: int = 1,
        relu: bool = True,
        bias: bool = True,
    ) -> Tensor:
        read = Plain(source) if isinstance(source, Tensor) else source
        size, inputs = _size(read)
        out = self._tensor(name, (size + 2 * padding - 3) // stride + 1, outputs)
        convolution = self._convolution(name, inputs, outputs, 3, bias)
        self.steps.append(FullConvolution(read, convolution, stride, padding, relu, out))
        return out

    def mouth(self, source: Tensor, ending: Ending, *, bias: bool = True) -> None:
        convolution = self._convolution("mouth", source.channels, 3, 1, bias)
        self.steps.append(Mouth(source, convolution, ending))

    def weights(self, seed: int) -> dict[str, npt.NDArray[np.float16]]:
        """Such that values stay about as large as they are."""
        random = np.random.default_rng(seed)
        made = {}
        for name, shape in self.shapes.items():
            scale = 0.3 if len(shape) == 1 else np.sqrt(2 / np.prod(shape[1:]))
            made[name] = (random.standard_normal(shape) * scale).astype(np.float16)
        return made

    def _tensor(self, name: str, size: int, channels: int) -> Tensor:
        tensor = Tensor(len(self.tensors), size, size, channels)
        self.tensors.append(tensor)
        assert name not in self.names
        self.names[name] = tensor.number
        return tensor

    def _convolution(
        self, name: str, inputs: int, outputs: int, side: int, bias: bool, *, groups: bool = False
    ) -> Convolution:
        self.shapes[name] = (outputs, 1 if groups else inputs, side, side)
        if bias:
            self.shapes[f"{name} bias"] = (outputs,)
        return Convolution(name, f"{name} bias" if bias else None, inputs, outputs)


def _size(source: Source) -> tuple[int, int]:
    """Pixels at a side, and channels."""
    if isinstance(source, Pixels):
        return MOUTH_PX, 6
    if isinstance(source, Speech):
        return AUDIO_WINDOW_SHAPE[1], AUDIO_WINDOW_SHAPE[0]
    if isinstance(source, Plain):
        return source.tensor.height, source.tensor.channels
    assert source.second.height == source.first.height * (2 if source.doubled else 1)
    return source.second.height, source.first.channels + source.second.channels


def places_of(weights: Weights) -> tuple[dict[str, int], int]:
    """Where in an image weights may lie, and its size. Nothing lies at 0: that may be read by
    mistake."""
    places, size_bytes = {}, 64
    for name, values in weights.items():
        places[name] = size_bytes
        size_bytes += values.nbytes + -values.nbytes % 64
    return places, size_bytes


class Rig:
    """A batch in guarded memory: images, crops, speech, mouths, and an arena full of NaN."""

    def __init__(
        self,
        lowered: Lowered,
        places: Mapping[str, int],
        weights: Sequence[Weights],
        crops: Sequence[UInt8Array],
        speech: Sequence[Float32Array],
        *,
        mouth_px: int = MOUTH_PX,
    ) -> None:
        """One of ``weights``, ``crops`` and ``speech`` for each frame."""
        self.frames = len(crops)
        uses = re.findall(r"^typedef (\w+)<.*> (\w+)_program;$", lowered.source.text, re.MULTILINE)
        self._templates = {name: template for template, name in uses}
        self._images = [_image(places, each) for each in weights]
        self._crops = [_room(crop.nbytes, crop) for crop in crops]
        self._speech = _room(self.frames * speech[0].nbytes, np.stack(speech))
        self._weights_table, self._crops_table = (
            np.array([each.ctypes.data for each in pieces], np.uint64)
            for pieces in (self._images, self._crops)
        )
        mouth_bytes = mouth_px * mouth_px * 3
        self._guarded = [
            _room(size_bytes + 2 * _GUARD_BYTES)
            for size_bytes in (self.frames * mouth_bytes, lowered.scratch_bytes(self.frames))
        ]
        mouths, self.arena = (room[_GUARD_BYTES:-_GUARD_BYTES] for room in self._guarded)
        self.mouths = mouths.reshape(self.frames, mouth_px, mouth_px, 3)
        self.launches = lowered.launches(
            self.frames,
            Addresses(
                self._weights_table.ctypes.data,
                self._crops_table.ctypes.data,
                self._speech.ctypes.data,
                mouths.ctypes.data,
                self.arena.ctypes.data,
            ),
        )

    def run(self, emulator: Emulator, schedule: int = 0) -> UInt8Array:
        for launch in self.launches:
            emulator.launch(launch, schedule)
        self.check_guards()
        return self.mouths

    def check_guards(self) -> None:
        """That nothing was written beside mouths and arena."""
        for room in self._guarded:
            for guard in (room[:_GUARD_BYTES], room[-_GUARD_BYTES:]):
                assert (guard == _UNTOUCHED).all()

    def by_step(
        self, plan: Plan
    ) -> Iterator[tuple[InvertedResidual | FullConvolution, list[Launch]]]:
        """The launches of each step but the mouth, which is a part of the one before it."""
        left = iter(self.launches)
        for step in plan.steps:
            if isinstance(step, Mouth):
                continue
            products = 2 if isinstance(step, InvertedResidual) else 1
            launches = []
            while products:
                launches.append(next(left))
                template = self._templates.get(launches[-1].kernel)
                products -= {"Block": products, "Layer": 1, None: 0}[template]
            yield step, launches
        assert not list(left)

    def products(self) -> Iterator[tuple[list[range], range]]:
        """The addresses that each launch of a ``Layer`` reads, and those that it writes."""
        for launch in self.launches:
            if self._templates.get(launch.kernel) != "Layer":
                continue
            at = LayerArguments.from_buffer_copy(launch.arguments)
            taken = [
                (at.first, at.in_height * at.in_width * at.channels_1),
                (at.second, at.in_height * at.in_width * at.channels_2),
                (at.residual, at.height * at.width * at.outputs if at.residual else 0),
                (at.out, at.height * at.width * at.outputs),
            ]
            *read, out = (range(start, start + 2 * self.frames * size) for start, size in taken)
            yield [each for each in read if each], out

    def made(self, launch: Launch, out: Tensor) -> npt.NDArray[np.float16]:
        """What ``launch`` has written: (N, height, width, channels), to be changed."""
        kind = BlockArguments if self._templates[launch.kernel] == "Block" else LayerArguments
        start = kind.from_buffer_copy(launch.arguments).out - self.arena.ctypes.data
        shape = (self.frames, out.height, out.width, out.channels)
        assert 0 <= start <= self.arena.nbytes - 2 * int(np.prod(shape))
        return self.arena[start : start + 2 * int(np.prod(shape))].view(np.float16).reshape(shape)


def _room(size_bytes: int, values: npt.NDArray[np.generic] | None = None) -> UInt8Array:
    """Aligned as a device aligns what it gives out."""
    whole = np.full(size_bytes + _ALIGNMENT_BYTES, _UNTOUCHED, np.uint8)
    room = whole[-whole.ctypes.data % _ALIGNMENT_BYTES :][:size_bytes]
    if values is not None:
        room[:] = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
    return room


def _image(places: Mapping[str, int], weights: Weights) -> UInt8Array:
    size_bytes = max(place + weights[name].nbytes for name, place in places.items())
    image = _room(size_bytes)
    for name, place in places.items():
        values = np.ascontiguousarray(weights[name])
        image[place : place + values.nbytes] = values.reshape(-1).view(np.uint8)
    return image


def joined(first: Tensor, second: Tensor) -> Joined:
    return Joined(first, False, second)


def doubled(first: Tensor, second: Tensor) -> Joined:
    return Joined(first, True, second)


def _odd() -> Drawing:
    """Whatever may come: sizes that no tile divides, channels of all kinds, biases that are not
    there."""
    d = Drawing()
    heard = d.inverted("speech to 8 channels", Speech(), 8, biases="dp")
    speech = d.full("speech, full, no relu", Speech(), 24, relu=False)
    d.inverted("no biases", speech, 24, add=True, biases="")
    small = d.full("full, stride 2, padding 3", heard, 48, stride=2, padding=3)
    same = d.inverted("48 channels, added", small, 48, add=True)
    halved = d.inverted("24 channels, stride 2", speech, 24, stride=2, biases="e")
    d.full("full, no bias, no relu", halved, 8, padding=3, relu=False, bias=False)
    d.inverted("joined, 48 and 48", joined(small, same), 40, biases="ep")
    d.inverted("doubled, 24 and 24", doubled(halved, speech), 8)
    five = d.inverted("a middle of 200, stride 2, 5 pixels", same, 72, middle=200, stride=2)
    d.inverted("doubled from 5 pixels", doubled(five, small), 136, middle=120)
    two = d.full("2 pixels", five, 16, stride=2, padding=0)
    one = d.full("1 pixel", two, 8, stride=2, padding=1, relu=False)
    d.inverted("doubled from 1 pixel", doubled(one, two), 8, middle=8)
    uneven = d.full("17 pixels", heard, 16, stride=2, padding=10)
    d.inverted("17 pixels, added", uneven, 16, add=True, biases="d")
    d.inverted("17 pixels, stride 2", uneven, 8, stride=2)
    uneven = d.full("82 pixels from 16", heard, 8, padding=34)
    d.inverted("82 pixels, added", uneven, 8, middle=16, add=True)
    large = d.full("88 pixels from 16", heard, 24, padding=37)
    d.inverted("88 pixels, added", large, 24, middle=40, add=True, biases="ed")
    d.inverted("88 pixels, joined", joined(large, large), 8, middle=24, biases="p")
    d.inverted("88 pixels, no biases", large, 64, middle=128, biases="")
    first = d.inverted("pixels, stride 2, no biases", Pixels(), 8, middle=24, stride=2, biases="")
    seen = d.inverted("160 pixels, stride 2", first, 16, middle=12, stride=2)
    last = d.inverted("160 pixels, doubled", doubled(seen, first), 16, middle=24, biases="dp")
    d.mouth(last, "clip", bias=False)
    return d


ODD = _odd()
