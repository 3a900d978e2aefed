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
    """A network is not of the family that Lipwire's own kernels run; the message is one line that
    says what is different."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """The output of a step of a plan, (height, width, channels) float16, in C order. ``number`` is
    its place in ``Plan.tensors``."""

    number: int
    """Its place in ``Plan.tensors``."""
    height: int
    width: int
    channels: int


@dataclass(frozen=True, slots=True)
class Convolution:
    """The weights of one convolution, float16: ``weight`` and ``bias`` are names of the graph's
    inputs; ``bias``, (outputs,), is None where it has none.

    The weight is (outputs, inputs, k, k) for a full convolution, or (outputs, 1, 3, 3) for a
    depthwise one, with as many inputs as outputs.
    """

    weight: str
    bias: str | None
    """(outputs,)."""
    inputs: int
    outputs: int


@dataclass(frozen=True, slots=True)
class Pixels:
    """The input of a plan's first step, (320, 320, 6): the crop of a frame, (320, 320, 3) uint8,
    and then the crop with rows MASK_ROWS of columns MASK_COLUMNS black, divided by 255 in float32,
    and rounded to float16."""


@dataclass(frozen=True, slots=True)
class Speech:
    """An input of a plan's step: the audio window of a frame, (32, 16, 16) float32, channels first,
    rounded to float16."""


@dataclass(frozen=True, slots=True)
class Plain:
    """An input of a plan's step: ``tensor``, the output of another step, unchanged."""

    tensor: Tensor


@dataclass(frozen=True, slots=True)
class Joined:
    """An input of a plan's step: the outputs of two other steps, of the same height and width,
    joined with the channels of ``first`` before those of ``second``. Where ``doubled`` is set,
    ``first`` has half that height and width, and is enlarged before: bilinear, corners aligned,
    rounded to float16."""

    first: Tensor
    doubled: bool
    """``first`` is made twice as high and wide before: bilinear, corners aligned, rounded."""
    second: Tensor


Source = Pixels | Speech | Plain | Joined
"""What a block reads."""


@dataclass(frozen=True, slots=True)
class InvertedResidual:
    """A step of a plan: a 1x1 convolution to more channels (``expand``), ReLU, a 3x3 ``depthwise``
    convolution with a padding of one pixel and a ``stride`` of 1 or 2, ReLU, and a 1x1 convolution
    to fewer channels (``project``). Where ``add`` is set, the step's input, ``source``, is added to
    that. ``out`` is the result."""

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
    """A step of a plan: a 3x3 convolution of ``source`` over all channels, with its ``stride``, a
    ``padding`` of zeros on all four sides, and ReLU behind it where ``relu`` is set. ``out`` is the
    result."""

    source: Plain | Speech
    convolution: Convolution
    stride: int
    padding: int
    """Of zeros, on all four sides."""
    relu: bool
    out: Tensor


@dataclass(frozen=True, slots=True)
class Mouth:
    """The last step of a plan: a 1x1 ``convolution`` of ``source`` to three channels, the
    ``ending`` (what brings values to [0, 1]: "sigmoid", "clip" or "none"), a multiplication by 255,
    clipped and rounded, ties to even.

    What the convolution and the ending compute is rounded to float16; the rest is float32. The
    result is the mouth, (320, 320, 3) uint8.
    """

    source: Tensor
    convolution: Convolution
    ending: Ending


Step = InvertedResidual | FullConvolution | Mouth


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps by which a network of the family computes one frame's mouth, recognised in its
    graph, for which kernels can be written.

    Each of ``steps`` comes after those whose outputs (``tensors``) it reads; the last one is the
    ``Mouth``. ``constants`` has (name, value) of each input of the graph that is a single number.
    These values are built into the plan, so whoever runs it for an avatar has to check that the
    avatar's weights have the same values.
    """

    steps: tuple[Step, ...]
    """Each after those whose tensors it reads; the last one is the ``Mouth``."""
    tensors: tuple[Tensor, ...]
    constants: tuple[tuple[str, float], ...]
    """Inputs of the graph that are single numbers, and what an image has to hold for them.

    They came out of the graph with the weights. The plan has them built in, so whoever runs it for
    an avatar looks first whether its image agrees."""
