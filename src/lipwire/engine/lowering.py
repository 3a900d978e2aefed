"""From the steps of a plan to launches of kernels (the files in ``kernels``).

An inverted residual is one launch of ``Block`` where its pictures are large and its channels few,
and two of ``Layer`` elsewhere. What is fixed for an architecture is compiled into the kernels;
batch and addresses come with a launch, and the places of weights with every frame.
"""

import ctypes
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from math import ceil
from typing import Final

from lipwire.domain import AUDIO_WINDOW_SHAPE, MASK_COLUMNS, MASK_ROWS, MOUTH_PX
from lipwire.engine.arena import Span, arrange
from lipwire.engine.arguments import (
    NO_BIAS,
    BlockArguments,
    LayerArguments,
    Places,
    SpeechArguments,
)
from lipwire.engine.plan import (
    Convolution,
    FullConvolution,
    InvertedResidual,
    Joined,
    Mouth,
    Pixels,
    Plain,
    Plan,
    Source,
    Speech,
    Tensor,
)
from lipwire.engine.programs import HEADER_NAME, KernelSource, Launch, Limits
from lipwire.engine.tiling import (
    BLOCK_COLUMNS,
    HALF_BYTES,
    LAYER_SHAPES,
    SMALL,
    THREADS,
    TILE_SHAPES,
    WARPS,
    block_shared_bytes,
    layer_shared_bytes,
    tile,
)

_FILES: Final = ("pictures.cuh", "block.cuh", "layer.cuh")
_BLOCKS_AT_A_TIME: Final = 3
"""On a multiprocessor; the registers of all kernels are held to it."""
_ROUNDS: Final = 8
"""Blocks of threads that a multiprocessor has for each at a time before one of them does several
tiles, to load its weights once."""
_WIDE_PX: Final = 80
"""Pictures at least so wide are worth a ``Block``. What it keeps out of the memory is little below,
and the pixels that it computes twice at the edges of tiles are many."""
_MOST_INPUTS: Final = 64
"""Channels of a ``Block``'s source, which stays in registers."""
_MOST_MIDDLE: Final = 128
_MOST_NARROW: Final = 64
_MOST_BEFORE_MOUTH: Final = 16


class CannotLower(Exception):
    """The kernels do not do this plan; one line says why."""


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where on the device a run finds what it needs."""

    weights: int
    """A table: the address of the weights' image, for each frame."""
    crops: int
    """A table: the address of the crop (320, 320, 3) uint8, for each frame."""
    speech: int
    """(N, 32, 16, 16) float32."""
    mouths: int
    """(N, 320, 320, 3) uint8."""
    arena: int
    """``Lowered.arena_bytes`` that nobody else uses meanwhile."""


@dataclass(frozen=True, slots=True)
class _Kernel:
    expression: str
    arguments: str
    shared_bytes: int


class _Where:
    """Addresses of one batch size."""

    def __init__(self, frames: int, addresses: Addresses, offsets: Mapping[int, int]) -> None:
        self.frames = frames
        self.addresses = addresses
        self._offsets = offsets

    def __call__(self, tensor: Tensor) -> int:
        return self.addresses.arena + self._offsets[tensor.number] * self.frames


@dataclass(frozen=True, slots=True)
class _Operation:
    reads: tuple[Tensor, ...]
    writes: Tensor | None
    launch: Callable[[_Where], Launch]


class Lowered:
    """A plan as kernels, for a kind of device and the places of weights of one architecture."""

    def __init__(self, plan: Plan, places: Mapping[str, int], limits: Limits) -> None:
        """``places`` are the offsets of weights in an image, by name. Raises CannotLower."""
        self._places = places
        self._limits = limits
        self._kernels: dict[str, _Kernel] = {}
        self._operations: list[_Operation] = []
        self._tensors = max((tensor.number for tensor in plan.tensors), default=-1) + 1
        mouths = {step.source.number: step for step in plan.steps if isinstance(step, Mouth)}
        for step in plan.steps:
            if isinstance(step, InvertedResidual):
                self._inverted_residual(step, mouths.get(step.out.number))
            elif isinstance(step, FullConvolution):
                self._full_convolution(step)
        self._offsets, self._frame_bytes = self._arranged()

    @property
    def source(self) -> KernelSource:
        """The kernels, to be compiled."""
        folder = resources.files("lipwire.engine") / "kernels"
        entries = [
            f"typedef {kernel.expression} {name}_program;\n"
            f'static_assert(sizeof({name}_program::Shared) == {kernel.shared_bytes}, "shared");\n'
            f"KERNEL({name}, {THREADS}, {_BLOCKS_AT_A_TIME}, {kernel.arguments})"
            f" {{ {name}_program(args).run(); }}\n"
            for name, kernel in self._kernels.items()
        ]
        return KernelSource(
            "\n".join([*((folder / name).read_text("utf-8") for name in _FILES), *entries]),
            (folder / HEADER_NAME).read_text("utf-8"),
            {
                "speech_picture": 0,
                **{name: kernel.shared_bytes for name, kernel in self._kernels.items()},
            },
        )

    def arena_bytes(self, frames: int) -> int:
        """What a batch of so many frames takes besides its inputs and outputs."""
        return self._frame_bytes * frames

    def launches(self, frames: int, addresses: Addresses) -> list[Launch]:
        """What makes the mouths of a batch, in this order."""
        where = _Where(frames, addresses, self._offsets)
        return [operation.launch(where) for operation in self._operations]

    # -- steps -------------------------------------------------------------------------------------

    def _inverted_residual(self, step: InvertedResidual, mouth: Mouth | None) -> None:
        if self._fits(step):
            self._block(step, mouth)
            return
        if isinstance(step.source, Pixels) or mouth is not None:
            raise CannotLower(
                f"an inverted residual of {step.expand.inputs}, {step.expand.outputs} and"
                f" {step.project.outputs} channels at {step.out.width} pixels begins or ends it"
            )
        height, width = self._size(step)
        middle = self._tensor(height, width, step.expand.outputs)
        self._layer("COPIED", step.source, step.expand, middle, relu=True)
        self._layer(
            "DEPTHWISE",
            Plain(middle),
            step.project,
            step.out,
            depthwise=step.depthwise,
            stride=step.stride,
            residual=step.source.tensor if step.add and isinstance(step.source, Plain) else None,
        )

    def _size(self, step: InvertedResidual) -> tuple[int, int]:
        """Height and width of its source."""
        source = step.source
        if isinstance(source, Pixels):
            return MOUTH_PX, MOUTH_PX
        if isinstance(source, Speech):
            return AUDIO_WINDOW_SHAPE[1], AUDIO_WINDOW_SHAPE[2]
        tensor = source.tensor if isinstance(source, Plain) else source.second
        return tensor.height, tensor.width

    def _full_convolution(self, step: FullConvolution) -> None:
        self._layer(
            "NEIGHBOURS",
            step.source,
            step.convolution,
            step.out,
            relu=step.relu,
            stride=step.stride,
            padding=step.padding,
        )

    def _fits(self, step: InvertedResidual) -> bool:
        source = step.source
        parts = (
            (source.first.channels, source.second.channels) if isinstance(source, Joined) else ()
        )
        return (
            not isinstance(source, Speech)
            and step.out.width >= _WIDE_PX
            and step.out.width % BLOCK_COLUMNS == 0
            and step.expand.inputs <= _MOST_INPUTS
            and step.expand.outputs <= _MOST_MIDDLE
            and step.project.outputs <= _MOST_NARROW
            and step.project.outputs % 8 == 0
            and (isinstance(source, Pixels) or step.expand.inputs % 8 == 0)
            and all(part % 8 == 0 for part in parts)
        )

    # -- kernels -----------------------------------------------------------------------------------

    def _block(self, step: InvertedResidual, mouth: Mouth | None) -> None:
        source = step.source
        first, second = _tensors(source)
        if isinstance(source, Pixels):
            kind, channels = "PIXELS", (step.expand.inputs, 0)
        elif isinstance(source, Joined):
            kind = "DOUBLED" if source.doubled else "JOINED"
            channels = source.first.channels, source.second.channels
        else:
            kind, channels = "PLAIN", (step.expand.inputs, 0)
        if mouth is not None and step.project.outputs > _MOST_BEFORE_MOUTH:
            raise CannotLower(f"{step.project.outputs} channels come before the mouth")
        strips = 2 if step.stride == 1 else 1
        middle, outputs = step.expand.outputs, step.project.outputs
        ending = "NO_MOUTH" if mouth is None else _ENDINGS[mouth.ending]
        name = self._kernel(
            f"Block<{kind}, {channels[0]}, {channels[1]}, {middle}, {outputs}, {step.stride},"
            f" {str(step.add).lower()}, {ending}, {WARPS}, {strips}>",
            "BlockArgs",
            block_shared_bytes(sum(channels), middle, outputs, step.stride, strips),
        )
        height, width = self._size(step)
        rows = 2 * strips * WARPS
        across, down = step.out.width // BLOCK_COLUMNS, ceil(step.out.height / rows)
        at = Places(
            *self._places_of(step.expand),
            *self._places_of(step.depthwise),
            *self._places_of(step.project),
            *(self._places_of(mouth.convolution) if mouth is not None else (0, NO_BIAS)),
        )

        def launch(where: _Where) -> Launch:
            each = max(1, across * down * where.frames // (_ROUNDS * self._at_a_time))
            each = min(each, down)
            arguments = BlockArguments(
                where.addresses.weights,
                where.addresses.crops if first is None else where(first),
                0 if second is None else where(second),
                where.addresses.mouths if mouth is not None else where(step.out),
                height,
                width,
                MASK_ROWS.start,
                MASK_ROWS.stop,
                MASK_COLUMNS.start,
                MASK_COLUMNS.stop,
                down,
                each,
                at,
            )
            return self._launch(name, (across, ceil(down / each), where.frames), arguments)

        reads = tuple(tensor for tensor in (first, second) if tensor is not None)
        self._operations.append(_Operation(reads, None if mouth else step.out, launch))

    def _layer(
        self,
        left: str,
        source: Source,
        product: Convolution,
        out: Tensor,
        *,
        depthwise: Convolution | None = None,
        relu: bool = False,
        stride: int = 1,
        padding: int = 0,
        residual: Tensor | None = None,
    ) -> None:
        if isinstance(source, Speech):
            source = Plain(self._speech_picture())
        first, second = _tensors(source)
        assert first is not None  # pixels are a Block's
        joined = isinstance(source, Joined)
        if isinstance(source, Joined) and source.doubled:
            left = "UPSAMPLED"
        if (first.channels | product.outputs | (second.channels if second else 0)) % 8:
            raise CannotLower(f"{first.channels} and {product.outputs} channels are not eights")
        in_size = (second.height, second.width) if second else (first.height, first.width)
        depth = product.inputs * 9 if left == "NEIGHBOURS" else product.inputs
        tiled = depthwise is not None
        rows, columns = tile(out.height, out.width, SMALL.pixels) if tiled else (0, 0)
        usual = TILE_SHAPES if tiled else LAYER_SHAPES
        shapes = (next((s for s in usual if s.outputs <= product.outputs), usual[-1]), SMALL)
        names = [
            self._kernel(
                f"Layer<{left}, {stride if tiled else 0}, {rows}, {columns}, {shape.pixels},"
                f" {shape.outputs}, {shape.warps_down}, {shape.warps_across}>",
                "LayerArgs",
                layer_shared_bytes(shape, left, stride, rows, columns),
            )
            for shape in shapes
        ]
        weight, bias = self._places_of(product)
        taps, taps_bias = (0, NO_BIAS) if depthwise is None else self._places_of(depthwise)

        def launch(where: _Where) -> Launch:
            name = names[0]
            for shape, name in zip(shapes, names, strict=True):  # noqa: B007
                pixels = (
                    ceil(out.height / rows) * ceil(out.width / columns)
                    if tiled
                    else ceil(out.height * out.width / shape.pixels)
                )
                grid = (pixels, ceil(product.outputs / shape.outputs), where.frames)
                if grid[0] * grid[1] * grid[2] >= self._limits.multiprocessors:
                    break
            arguments = LayerArguments(
                where.addresses.weights,
                where(first),
                where(second) if second else 0,
                where(residual) if residual else 0,
                where(out),
                *in_size,
                out.height,
                out.width,
                first.channels,
                second.channels if second else 0,
                depth,
                product.outputs,
                stride,
                padding,
                relu,
                ceil(out.width / columns) if tiled else 0,
                weight,
                bias,
                taps,
                taps_bias,
            )
            return self._launch(name, grid, arguments)

        reads = tuple(tensor for tensor in (first, second, residual) if tensor is not None)
        assert joined == (second is not None)
        self._operations.append(_Operation(reads, out, launch))

    def _speech_picture(self) -> Tensor:
        channels, height, width = AUDIO_WINDOW_SHAPE
        picture = self._tensor(height, width, channels)

        def launch(where: _Where) -> Launch:
            arguments = SpeechArguments(
                where.addresses.speech, where(picture), channels, height, width, 0
            )
            blocks = ceil(channels * height * width / (8 * THREADS))
            return Launch("speech_picture", (blocks, 1, where.frames), THREADS, 0, bytes(arguments))

        self._operations.append(_Operation((), picture, launch))
        return picture

    def _kernel(self, expression: str, arguments: str, shared_bytes: int) -> str:
        """Its name."""
        if shared_bytes > self._limits.shared_bytes:
            raise CannotLower(f"{expression} takes {shared_bytes} bytes of shared memory")
        kernel = _Kernel(expression, arguments, shared_bytes)
        for name, known in self._kernels.items():
            if known == kernel:
                return name
        name = f"kernel_{len(self._kernels)}"
        self._kernels[name] = kernel
        return name

    def _launch(self, name: str, grid: tuple[int, int, int], arguments: ctypes.Structure) -> Launch:
        shared_bytes = self._kernels[name].shared_bytes
        return Launch(name, grid, THREADS, shared_bytes, bytes(arguments))

    @property
    def _at_a_time(self) -> int:
        return _BLOCKS_AT_A_TIME * self._limits.multiprocessors

    # -- memory ------------------------------------------------------------------------------------

    def _places_of(self, convolution: Convolution) -> tuple[int, int]:
        """Of weight and bias in an image."""
        bias = NO_BIAS if convolution.bias is None else self._places[convolution.bias]
        return self._places[convolution.weight], bias

    def _tensor(self, height: int, width: int, channels: int) -> Tensor:
        self._tensors += 1
        return Tensor(self._tensors - 1, height, width, channels)

    def _arranged(self) -> tuple[dict[int, int], int]:
        """Offsets of tensors for one frame, and the bytes of one."""
        made: dict[int, int] = {}
        used: dict[int, int] = {}
        sizes: dict[int, int] = {}
        for number, operation in enumerate(self._operations):
            for tensor in operation.reads:
                used[tensor.number] = number
            out = operation.writes
            if out is not None:
                made[out.number] = number
                used.setdefault(out.number, number)
                sizes[out.number] = out.height * out.width * out.channels * HALF_BYTES
        spans = [Span(sizes[tensor], first, used[tensor]) for tensor, first in made.items()]
        offsets, size_bytes = arrange(spans)
        return dict(zip(made, offsets, strict=True)), size_bytes


_ENDINGS: Final = {"sigmoid": "SIGMOID", "clip": "CLIP", "none": "AS_IT_IS"}


def _tensors(source: Source) -> tuple[Tensor | None, Tensor | None]:
    if isinstance(source, Joined):
        return source.first, source.second
    return (source.tensor if isinstance(source, Plain) else None), None
