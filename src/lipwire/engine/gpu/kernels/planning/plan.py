"""A network of the SyncTalk_2D family as the blocks that it was built of.

ONNX Runtime sees two hundred layers and hands every one's values through memory. Between the 1x1
convolutions of an inverted residual block (https://arxiv.org/abs/1801.04381) nothing needs to leave
the chip, so a plan names blocks: what each reads, what it makes, and which weights it takes. A plan
holds no weights, hence one plan serves every avatar of an architecture. It is of one frame: no
step looks at the batch.

``planner`` makes a plan of the graph that GPUs run.
"""

from dataclasses import dataclass
from typing import Literal

Ending = Literal["sigmoid", "clip", "none"]
"""What brings the mouth to [0, 1]: a sigmoid, a clip, or nothing at all."""


class NotPlanned(Exception):
    """The network is not of the family that the kernels run; one line says in what it differs."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """The output of a step: (height, width, channels) float16."""

    number: int
    """Its place in ``Plan.tensors``."""
    height: int
    width: int
    channels: int


@dataclass(frozen=True, slots=True)
class Convolution:
    """The weights of one convolution, by the names of the graph's inputs; float16.

    Full (outputs, inputs, k, k), or depthwise (outputs, 1, 3, 3) with as many inputs as outputs.
    """

    weight: str
    bias: str | None
    """(outputs,)."""
    inputs: int
    outputs: int


@dataclass(frozen=True, slots=True)
class Pixels:
    """An input of the first step: the crop (320, 320, 3) uint8, then it with MASK_ROWS x
    MASK_COLUMNS black.

    It is (320, 320, 6), divided by 255 in float32, and rounded to float16.
    """


@dataclass(frozen=True, slots=True)
class Speech:
    """An input of a step: the window (32, 16, 16) float32, channels first, rounded to float16."""


@dataclass(frozen=True, slots=True)
class Plain:
    """An input of a step: one tensor."""

    tensor: Tensor


@dataclass(frozen=True, slots=True)
class Joined:
    """An input of a step: two tensors of one height and width, their channels one after the
    other."""

    first: Tensor
    doubled: bool
    """``first`` is made twice as high and wide before: bilinear, corners aligned, rounded."""
    second: Tensor


Source = Pixels | Speech | Plain | Joined
"""What a block reads."""


@dataclass(frozen=True, slots=True)
class InvertedResidual:
    """A step: 1x1 to more channels, ReLU, 3x3 depthwise with a padding of one, ReLU, 1x1 to
    fewer."""

    source: Source
    expand: Convolution
    depthwise: Convolution
    project: Convolution
    stride: int
    """Of the depthwise convolution: 1 or 2."""
    add: bool
    """The source, which is ``Plain`` then, is added to what comes out."""
    out: Tensor


@dataclass(frozen=True, slots=True)
class FullConvolution:
    """A step: a 3x3 convolution over all channels."""

    source: Plain | Speech
    convolution: Convolution
    stride: int
    padding: int
    """Of zeros, on all four sides."""
    relu: bool
    out: Tensor


@dataclass(frozen=True, slots=True)
class Mouth:
    """The last step: 1x1 to three channels, ``ending``, times 255, clipped, rounded to even, uint8.

    What the convolution and the ending compute is rounded to float16; the rest is float32. The
    result is (320, 320, 3).
    """

    source: Tensor
    convolution: Convolution
    ending: Ending


Step = InvertedResidual | FullConvolution | Mouth


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps by which one frame's mouth is computed."""

    steps: tuple[Step, ...]
    """Each after those whose tensors it reads; the last one is the ``Mouth``."""
    tensors: tuple[Tensor, ...]
    constants: tuple[tuple[str, float], ...]
    """Inputs of the graph that are single numbers, and what an image has to hold for them.

    They came out of the graph with the weights. The plan has them built in, so whoever runs it for
    an avatar looks first whether its image agrees."""
