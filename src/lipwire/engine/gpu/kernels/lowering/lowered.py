"""From the steps of a plan to launches of kernels (the templates in ``kernels.cuda``).

An inverted residual is one launch of ``Block`` where its pictures are large and its channels few,
and two of ``Layer`` elsewhere. What is fixed for an architecture is compiled into the kernels;
batch and addresses come with a launch, and the places of weights with every frame.
"""

import ctypes
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from math import ceil, prod
from typing import Final

from lipwire.domain import AUDIO_WINDOW_SHAPE, MASK_COLUMNS, MASK_ROWS, MOUTH_PX
from lipwire.engine.forms import PIXELS_SHAPE
from lipwire.engine.gpu.kernels.cuda.arguments import (
    NO_BIAS,
    BlockArguments,
    DoubledArguments,
    LayerArguments,
    NeighboursArguments,
    SpeechArguments,
    WeightOffsets,
)
from lipwire.engine.gpu.kernels.cuda.kerneltexts import BLOCKS_AT_A_TIME, CannotLower, KernelTexts
from lipwire.engine.gpu.kernels.cuda.tiling import (
    BLOCK_COLUMNS,
    LAYER_SHAPES,
    SMALL,
    THREADS,
    TILE_SHAPES,
    WARPS,
    block_shared_bytes,
    layer_shared_bytes,
    tile,
)
from lipwire.engine.gpu.kernels.lowering.operations import Addresses, Operation, Where, arranged
from lipwire.engine.gpu.kernels.planning.plan import (
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
from lipwire.engine.gpu.programs import KernelSource, Launch, Limits

_ROUNDS: Final = 8
"""Blocks of threads that a multiprocessor has for each at a time before one of them does several
tiles, to load its weights once."""
_WIDE_PX: Final = 80
"""Pictures at least so wide are worth a ``Block``. What it keeps out of the memory is little below,
and the pixels that it computes twice at the edges of tiles are many."""
_TURNS: Final = 4
"""Values, or groups of values, that a thread prepares."""
_MOST_INPUTS: Final = 64
"""Channels of a ``Block``'s source, which stays in registers."""
_MOST_MIDDLE: Final = 128
_MOST_NARROW: Final = 64
_MOST_BEFORE_MOUTH: Final = 16


class Lowered:
    """The kernels that compute what a network's plan says, for one kind of device and one
    architecture (networks with equal graphs), and how they are launched."""

    def __init__(self, plan: Plan, places: Mapping[str, int], limits: Limits) -> None:
        """``plan`` is the network's plan, and ``limits`` what the device offers to kernels.
        ``places`` says where each weight lies, by name: its offset in bytes in the block that holds
        all weights of an avatar. Raises CannotLower where there are no kernels for the plan, or
        they need more than the device has."""
        self._places = places
        self._multiprocessors = limits.multiprocessors
        self._texts = KernelTexts(limits.shared_bytes)
        self._operations: list[Operation] = []
        self._tensors = max((tensor.number for tensor in plan.tensors), default=-1) + 1
        mouths = {step.source.number: step for step in plan.steps if isinstance(step, Mouth)}
        for step in plan.steps:
            if isinstance(step, InvertedResidual):
                self._inverted_residual(step, mouths.get(step.out.number))
            elif isinstance(step, FullConvolution):
                self._full_convolution(step)
        self._offsets, self._frame_bytes = arranged(self._operations)

    @property
    def source(self) -> KernelSource:
        """The CUDA source of all kernels, to be compiled."""
        return self._texts.source

    @property
    def templates(self) -> dict[str, str]:
        """The C++ template that each kernel runs, with its arguments filled in (``Layer<COPIED,
        ...>``), by the kernel's name (``kernel_0``), which is also that of ``Launch.kernel``.
        Kernels that only reorder data use no template and are left out."""
        return self._texts.templates

    @property
    def traffic_bytes(self) -> list[int]:
        """How many bytes each launch reads and writes for one frame, without weights, in the order
        of ``launches``."""
        return [operation.traffic_bytes for operation in self._operations]

    @property
    def labels(self) -> list[str]:
        """What each launch does, in a few words for people, in the order of ``launches``."""
        return [operation.label for operation in self._operations]

    def scratch_bytes(self, frames: int) -> int:
        """Return how many bytes of the device a batch of ``frames`` frames needs for intermediate
        tensors, besides inputs, weights and outputs: the size of ``Addresses.scratch``."""
        return self._frame_bytes * frames

    def launches(self, frames: int, addresses: Addresses) -> list[Launch]:
        """Return the launches of kernels that compute the mouths of a batch of ``frames`` frames,
        in their order. ``addresses`` says where on the device inputs, weights and outputs are."""
        where = Where(frames, addresses, self._offsets, self._multiprocessors)
        return [operation.launch(where) for operation in self._operations]

    def launched_for(self, multiprocessors: int) -> "Lowered":
        """Return a copy with the same kernels, whose launches have grids for a device of
        ``multiprocessors`` multiprocessors."""
        other = copy(self)
        other._multiprocessors = multiprocessors
        return other

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
        source = self._picture(step.source)
        whole = source.second if isinstance(source, Joined) else source.tensor
        middle = self._tensor(whole.height, whole.width, step.expand.outputs)
        label = _label(step)
        self._layer(source, step.expand, middle, f"{label}: expand", relu=True)
        self._layer(
            Plain(middle),
            step.project,
            step.out,
            f"{label}: project",
            depthwise=step.depthwise,
            stride=step.stride,
            residual=source.tensor if step.add and isinstance(source, Plain) else None,
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
        source = self._picture(step.source)
        assert isinstance(source, Plain)  # as its step's
        label = f"3x3 of {step.convolution.inputs} to {step.convolution.outputs} channels"
        seen = self._neighbours(source.tensor, step, label)
        product = replace(step.convolution, inputs=seen.channels)
        self._layer(Plain(seen), product, step.out, label, relu=step.relu)

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
        shared_bytes = block_shared_bytes(sum(channels), middle, outputs, step.stride, strips)
        name = self._texts.name(
            f"Block<{kind}, {channels[0]}, {channels[1]}, {middle}, {outputs}, {step.stride},"
            f" {str(step.add).lower()}, {ending}, {WARPS}, {strips}>",
            "BlockArgs",
            shared_bytes,
        )
        height, width = self._size(step)
        rows = 2 * strips * WARPS
        across, down = step.out.width // BLOCK_COLUMNS, ceil(step.out.height / rows)
        at = WeightOffsets(
            *self._places_of(step.expand),
            *self._places_of(step.depthwise),
            *self._places_of(step.project),
            *(self._places_of(mouth.convolution) if mouth is not None else (0, NO_BIAS)),
        )

        def launch(where: Where) -> Launch:
            at_a_time = BLOCKS_AT_A_TIME * where.multiprocessors
            each = max(1, across * down * where.frames // (_ROUNDS * at_a_time))
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
            grid = (across, ceil(down / each), where.frames)
            return Launch(name, grid, THREADS, shared_bytes, bytes(arguments))

        pixels_bytes = prod(PIXELS_SHAPE)
        other_bytes = pixels_bytes * ((first is None) + (mouth is not None))
        out = None if mouth else step.out
        self._add((first, second), out, launch, _label(step), other_bytes)

    def _layer(
        self,
        source: Plain | Joined,
        product: Convolution,
        out: Tensor,
        label: str,
        *,
        depthwise: Convolution | None = None,
        relu: bool = False,
        stride: int = 1,
        residual: Tensor | None = None,
    ) -> None:
        first, second = _tensors(source)
        assert first is not None  # pixels are a Block's
        for tensor in (first, second, out):
            if tensor is not None and tensor.channels % 8:
                raise CannotLower(f"a picture has {tensor.channels} channels, wanted are eights")
        tiled = depthwise is not None
        left = "DEPTHWISE" if tiled else "COPIED"
        rows, columns = tile(out.height, out.width, SMALL.pixels) if tiled else (0, 0)
        usual = TILE_SHAPES if tiled else LAYER_SHAPES
        shapes = (next((s for s in usual if s.outputs <= product.outputs), usual[-1]), SMALL)
        shared_bytes = [layer_shared_bytes(shape, left, stride, rows, columns) for shape in shapes]
        names = [
            self._texts.name(
                f"Layer<{left}, {stride if tiled else 0}, {rows}, {columns}, {shape.pixels},"
                f" {shape.outputs}, {shape.warps_down}, {shape.warps_across}, {shape.ahead}>",
                "LayerArgs",
                taken,
            )
            for shape, taken in zip(shapes, shared_bytes, strict=True)
        ]
        weight, bias = self._places_of(product)
        taps, taps_bias = (0, NO_BIAS) if depthwise is None else self._places_of(depthwise)

        def launch(where: Where) -> Launch:
            grids = [
                (
                    ceil(out.height / rows) * ceil(out.width / columns)
                    if tiled
                    else ceil(out.height * out.width / shape.pixels),
                    ceil(product.outputs / shape.outputs),
                    where.frames,
                )
                for shape in shapes
            ]
            small = prod(grids[0]) < where.multiprocessors
            arguments = LayerArguments(
                where.addresses.weights,
                where(first),
                where(second) if second else 0,
                where(residual) if residual else 0,
                where(out),
                first.height if second is None else second.height,
                first.width if second is None else second.width,
                out.height,
                out.width,
                first.channels,
                second.channels if second else 0,
                product.inputs,
                product.outputs,
                relu,
                ceil(out.width / columns) if tiled else 0,
                weight,
                bias,
                taps,
                taps_bias,
            )
            return Launch(
                names[small], grids[small], THREADS, shared_bytes[small], bytes(arguments)
            )

        self._add((first, second, residual), out, launch, label)

    # -- pictures ----------------------------------------------------------------------------------

    def _picture(self, source: Source) -> Plain | Joined:
        """``source`` as ``Layer`` takes it."""
        assert not isinstance(source, Pixels)  # a Block's
        if isinstance(source, Speech):
            return Plain(self._speech_picture())
        if isinstance(source, Joined) and source.doubled:
            return Joined(self._doubled(source.first), False, source.second)
        return source

    def _speech_picture(self) -> Tensor:
        channels, height, width = AUDIO_WINDOW_SHAPE
        picture = self._tensor(height, width, channels)

        def arguments(where: Where) -> ctypes.Structure:
            return SpeechArguments(
                where.addresses.speech, where(picture), channels, height, width, 0
            )

        self._prepare("speech_picture", (), picture, arguments, "speech as a picture")
        return picture

    def _doubled(self, small: Tensor) -> Tensor:
        out = self._tensor(2 * small.height, 2 * small.width, small.channels)

        def arguments(where: Where) -> ctypes.Structure:
            return DoubledArguments(
                where(small), where(out), out.height, out.width, out.channels, 0
            )

        label = f"doubled to {out.width} px"
        self._prepare("doubled_picture", (small,), out, arguments, label, values_each=8)
        return out

    def _neighbours(self, picture: Tensor, step: FullConvolution, label: str) -> Tensor:
        seen = self._tensor(step.out.height, step.out.width, picture.channels * 9)

        def arguments(where: Where) -> ctypes.Structure:
            return NeighboursArguments(
                where(picture),
                where(seen),
                picture.height,
                picture.width,
                seen.height,
                seen.width,
                picture.channels,
                step.stride,
                step.padding,
                0,
            )

        self._prepare("neighbours_picture", (picture,), seen, arguments, f"{label}: neighbours")
        return seen

    def _prepare(
        self,
        kernel: str,
        reads: tuple[Tensor, ...],
        out: Tensor,
        arguments: Callable[[Where], ctypes.Structure],
        label: str,
        values_each: int = 1,
    ) -> None:
        threads = ceil(out.height * out.width * out.channels / (values_each * _TURNS))

        def launch(where: Where) -> Launch:
            grid = (ceil(threads / THREADS), 1, where.frames)
            return Launch(kernel, grid, THREADS, 0, bytes(arguments(where)))

        heard_bytes = 0 if reads else prod(AUDIO_WINDOW_SHAPE) * 4
        self._add(reads, out, launch, label, heard_bytes)

    def _add(
        self,
        reads: Sequence[Tensor | None],
        writes: Tensor | None,
        launch: Callable[[Where], Launch],
        label: str,
        other_bytes: int = 0,
    ) -> None:
        there = tuple(tensor for tensor in reads if tensor is not None)
        self._operations.append(Operation(there, writes, launch, label, other_bytes))

    # -- memory ------------------------------------------------------------------------------------

    def _places_of(self, convolution: Convolution) -> tuple[int, int]:
        """Of weight and bias in an image."""
        bias = NO_BIAS if convolution.bias is None else self._places[convolution.bias]
        return self._places[convolution.weight], bias

    def _tensor(self, height: int, width: int, channels: int) -> Tensor:
        self._tensors += 1
        return Tensor(self._tensors - 1, height, width, channels)


def _label(step: InvertedResidual) -> str:
    return (
        f"{step.expand.inputs}-{step.expand.outputs}-{step.project.outputs} channels to"
        f" {step.out.width} px"
    )


_ENDINGS: Final = {"sigmoid": "SIGMOID", "clip": "CLIP", "none": "AS_IT_IS"}


def _tensors(source: Source) -> tuple[Tensor | None, Tensor | None]:
    if isinstance(source, Joined):
        return source.first, source.second
    return (source.tensor if isinstance(source, Plain) else None), None
