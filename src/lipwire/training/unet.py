"""The mouth renderer: a small U-Net that repaints the moving part of a face crop.

It keeps the outer shape of the SyncTalk_2D family (``input`` (N, 6, 320, 320), ``audio``
(N, 32, 16, 16), ``output`` (N, 3, 320, 320), values in [0, 1], BGR) and is made for processors:

* the crop enters as 2x2 blocks, so that the widest pictures that a convolution sees are 160x160;
* plain 3x3 convolutions: on a CPU they run several times faster a FLOP than depthwise ones;
* the output is a *base picture plus a residual*: what does not move is copied, not painted, so it
  costs no capacity and no seam can show at the border of the crop;
* speech enters as a short *code* (a handful of mouth controls) that scales and shifts the features
  (FiLM, https://arxiv.org/abs/1709.07871) at the bottleneck and in every decoder stage.
"""

import copy
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from lipwire.domain import MOUTH_PX, InvalidInput

Base = Literal["real", "masked"]

FEATHER_PX = 8
"""The residual fades to nothing over so many pixels at the edges of the window: no seam."""

LEAK = 0.1
"""Slope of the activation below zero; ONNX Runtime fuses it into the convolution."""

CODE_HIDDEN = 64
"""Width of the small network between the code and the FiLM scales."""


@dataclass(frozen=True, slots=True)
class UNetConfig:
    """Everything that is needed to build the same ``LipUNet`` again. ``widths`` are the numbers of
    channels at 160, 80, 40 and 20 pixels; ``code_size`` is how many numbers describe a mouth;
    ``base`` says whether what the network makes is added to the crop ("real") or to the masked crop
    ("masked"). ``window`` is the part of the crop that is worked on, (top, left, height, width) in
    pixels, multiples of 16. Raises InvalidInput for a window of another form or outside the crop.
    """

    widths: tuple[int, int, int, int] = (16, 32, 96, 160)
    """Channels at 160, 80, 40 and 20 pixels."""
    code_size: int = 6
    """Numbers in the code that the audio branch makes (or that the controls are)."""
    base: Base = "real"
    """What the residual is added to: the real crop (training pairs that share a head pose), or the
    masked crop (a person's own video, where the reference crop is another frame)."""
    window: tuple[int, int, int, int] = (0, 0, MOUTH_PX, MOUTH_PX)
    """Top, left, height and width, in pixels of the crop, of what the network works on; the rest is
    copied. Multiples of 16. Speech moves only part of the crop, and time goes with the area."""

    def __post_init__(self) -> None:
        top, left, height, width = self.window
        inside = min(top, left) >= 0 and top + height <= MOUTH_PX and left + width <= MOUTH_PX
        if not inside or min(height, width) < 16 or any(value % 16 for value in self.window):
            raise InvalidInput(
                f"window {self.window} is not (top, left, height, width) in multiples of 16 inside "
                f"{MOUTH_PX}x{MOUTH_PX}"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a dictionary for a checkpoint."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "UNetConfig":
        """Return the configuration of which ``to_dict`` made ``values``. Raises KeyError where a
        field is missing, InvalidInput for a window that is not allowed."""
        return cls(
            widths=tuple(values["widths"]),
            code_size=values["code_size"],
            base=values["base"],
            window=tuple(values["window"]),
        )


def _convolution(inputs: int, outputs: int, stride: int = 1, *, size: int = 3) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, size, stride, size // 2)
    # There is no normalisation: with PyTorch's own start the signal would fade on its way through,
    # and with a plain ReLU the last stage died within thirty steps.
    nn.init.kaiming_normal_(convolution.weight, a=LEAK, nonlinearity="leaky_relu")
    nn.init.zeros_(convolution.bias)
    return nn.Sequential(convolution, nn.LeakyReLU(LEAK, inplace=True))


def _doubled(features: Tensor) -> Tensor:
    """Nearest-neighbour upsampling by two, which ONNX Runtime does in its blocked layout."""
    return functional.interpolate(features, scale_factor=2.0, mode="nearest")


def _feather(height: int, width: int) -> Tensor:
    """(1, 1, height, width): 1 inside, falling to 0 over FEATHER_PX at each edge."""

    def ramp(size: int) -> Tensor:
        distance = torch.minimum(torch.arange(size), torch.arange(size - 1, -1, -1))
        return (distance / FEATHER_PX).clamp(max=1.0)

    return (ramp(height)[:, None] * ramp(width)[None, :])[None, None]


class _Modulation(nn.Module):
    """Scale and shift every channel by what the code says."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale_shift = nn.Conv2d(CODE_HIDDEN, 2 * channels, 1)
        nn.init.normal_(self.scale_shift.weight, std=0.05)
        nn.init.zeros_(self.scale_shift.bias)

    def forward(self, features: Tensor, code: Tensor) -> Tensor:
        scale, shift = self.scale_shift(code).chunk(2, 1)
        return features * (1.0 + scale) + shift


class LipUNet(nn.Module):
    """A U-Net that makes the picture of a mouth from a crop and the sound around a frame;
    ``forward_controls`` takes a code, the mouth controls, in place of sound. Pictures have the
    order of colours that it was trained with, BGR for those of this project.

    ``audio_branch`` maps windows (N, 32, 16, 16) to codes (N, code_size) in [0, 1]. It may be None
    while the network is trained from controls.
    """

    def __init__(self, config: UNetConfig, audio_branch: nn.Module | None = None) -> None:
        """``config`` says how large the network is and what it works on; ``audio_branch`` is
        described at the class."""
        super().__init__()
        self.config = config
        self.audio_branch = audio_branch
        w160, w80, w40, w20 = config.widths

        self.blocks: nn.Module = nn.PixelUnshuffle(2)
        self.enter = _convolution(24, w160)
        self.down80 = nn.Sequential(_convolution(w160, w80, 2), _convolution(w80, w80))
        self.down40 = nn.Sequential(_convolution(w80, w40, 2), _convolution(w40, w40))
        self.down20 = nn.Sequential(_convolution(w40, w20, 2), _convolution(w20, w20))
        # Where in the crop a feature is, for a network that otherwise knows only neighbourhoods.
        self.place20 = nn.Parameter(
            torch.zeros(1, w20, config.window[2] // 16, config.window[3] // 16)
        )

        self.code = nn.Sequential(
            _convolution(config.code_size, CODE_HIDDEN, size=1),
            _convolution(CODE_HIDDEN, CODE_HIDDEN, size=1),
        )
        self.film20 = _Modulation(w20)
        self.film40 = _Modulation(w40)
        self.film80 = _Modulation(w80)
        self.film160 = _Modulation(w160)

        self.bottleneck = _convolution(w20, w20)
        self.up40_join = _convolution(w20 + w40, w40)
        self.up40 = _convolution(w40, w40)
        self.up80_join = _convolution(w40 + w80, w80)
        self.up80 = _convolution(w80, w80)
        self.up160_join = _convolution(w80 + w160, w160)
        self.up160 = _convolution(w160, w160)
        self.leave = nn.Conv2d(w160, 12, 3, 1, 1)
        # Training starts from "nothing moves", which is already right for most pixels.
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)
        if config.base == "real":
            self.register_buffer("feather", _feather(config.window[2], config.window[3]))

    def residual(self, crop: Tensor, code: Tensor, at: tuple[int, int] = (0, 0)) -> Tensor:
        """Return what is to be added to the base picture, the crop or the masked crop: (N, 3, H, W)
        float32.

        ``crop`` (N, 6, H, W) float32 in [0, 1] shows the network's window, or a part of it (for
        training) whose top left is at row and column ``at`` of the window; H, W and ``at`` are
        multiples of 16. Its first three channels are the crop, the others the masked crop. ``code``
        is (N, code_size) float32, usually in [0, 1].
        """
        rows = slice(at[0], at[0] + crop.shape[2])
        columns = slice(at[1], at[1] + crop.shape[3])
        rows20 = slice(rows.start // 16, rows.stop // 16)
        columns20 = slice(columns.start // 16, columns.stop // 16)
        place20 = self.place20[:, :, rows20, columns20]
        spoken = self.code(code[:, :, None, None])
        at160 = self.enter(self.blocks(crop))
        at80 = self.down80(at160)
        at40 = self.down40(at80)
        at20 = self.bottleneck(self.film20(self.down20(at40) + place20, spoken))

        up = self.up40(self.film40(self.up40_join(torch.cat([_doubled(at20), at40], 1)), spoken))
        up = self.up80(self.film80(self.up80_join(torch.cat([_doubled(up), at80], 1)), spoken))
        up = self.up160(self.film160(self.up160_join(torch.cat([_doubled(up), at160], 1)), spoken))
        residual = functional.pixel_shuffle(self.leave(up), 2)
        if self.config.base == "masked":
            return residual
        return residual * self.feather[:, :, rows, columns]

    def forward_window(self, crop: Tensor, code: Tensor, at: tuple[int, int] = (0, 0)) -> Tensor:
        """Return the pictures inside the network's window, or a part of it, (N, 3, H, W) float32,
        not clipped.

        ``crop`` (N, 6, H, W) in [0, 1] shows that part, whose top left is at row and column ``at``
        of the window; H, W and ``at`` are multiples of 16. ``code``, the mouth controls, is (N,
        code_size).
        """
        base = crop[:, :3] if self.config.base == "real" else crop[:, 3:]
        return base + self.residual(crop, code, at)

    def forward_controls(self, crop: Tensor, code: Tensor) -> Tensor:
        """Return the pictures that the network makes of mouth controls, (N, 3, 320, 320) float32,
        not clipped to [0, 1].

        ``crop`` is (N, 6, 320, 320) in [0, 1], the crop and the masked crop; ``code`` is (N,
        code_size), usually in [0, 1].
        """
        top, left, height, width = self.config.window
        if (height, width) == (MOUTH_PX, MOUTH_PX):
            return self.forward_window(crop, code)
        inside = crop[:, :, top : top + height, left : left + width]
        right, below = MOUTH_PX - left - width, MOUTH_PX - top - height
        base = crop[:, :3] if self.config.base == "real" else crop[:, 3:]
        return base + functional.pad(self.residual(inside, code), (left, right, top, below))

    def forward(self, crop: Tensor, audio: Tensor) -> Tensor:
        """Return the pictures that the network makes of speech, (N, 3, 320, 320) float32, not
        clipped to [0, 1].

        ``crop`` is (N, 6, 320, 320) in [0, 1], the crop and the masked crop; ``audio`` are windows,
        (N, 32, 16, 16). Raises ValueError where the network has no audio branch.
        """
        if self.audio_branch is None:
            raise ValueError("this network has no audio branch: it was trained from mouth controls")
        return self.forward_controls(crop, self.audio_branch(audio))


class AudioConvolutions(nn.Module):
    """An audio branch for training from a person's own video: windows to a learned code.

    (N, 32, 16, 16) -> (N, code_size) in [0, 1].
    """

    def __init__(self, code_size: int, widths: Sequence[int] = (64, 96, 128)) -> None:
        """``code_size`` is how many numbers the code has; ``widths`` are the numbers of channels of
        the convolutions, one to four, each of which halves the 16 x 16 window."""
        super().__init__()
        layers: list[nn.Module] = []
        channels = 32
        for width in widths:  # 16x16 -> 8x8 -> 4x4 -> 2x2
            layers.append(_convolution(channels, width, 2))
            channels = width
        side = 16 >> len(widths)
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * side**2, code_size))

    def forward(self, audio: Tensor) -> Tensor:
        """Return the codes, (N, code_size) float32 in [0, 1], of ``audio``, windows of (N, 32, 16,
        16) float32."""
        return torch.sigmoid(self.layers(audio))


def _without_blocks(convolution: nn.Conv2d) -> nn.Conv2d:
    """The convolution of pixels that does what ``convolution`` (3x3) does to blocks of 2x2 of them.

    Cutting a picture into blocks takes ONNX Runtime longer than the convolution.
    """
    inputs, outputs = convolution.in_channels // 4, convolution.out_channels
    merged = nn.Conv2d(inputs, outputs, 6, 2, 2)
    # Channel c * 4 + 2 * y + x of the blocks is pixel (y, x) of the block in channel c.
    kernel = convolution.weight.detach().reshape(outputs, inputs, 2, 2, 3, 3)
    merged.weight = nn.Parameter(
        kernel.permute(0, 1, 4, 2, 5, 3).reshape(outputs, inputs, 6, 6).clone()
    )
    assert convolution.bias is not None
    merged.bias = nn.Parameter(convolution.bias.detach().clone())
    return merged


class Clipped(nn.Module):
    """A copy of ``network`` as it is exported: its output is clipped to [0, 1], and its first
    layers are merged into one that does the same in less time. ``network`` stays as it is; it has
    to have its audio branch."""

    def __init__(self, network: LipUNet) -> None:
        super().__init__()
        self.network = copy.deepcopy(network)
        self.network.blocks = nn.Identity()
        self.network.enter[0] = _without_blocks(network.enter[0])

    def forward(self, crop: Tensor, audio: Tensor) -> Tensor:
        """Return the pictures that the network makes of speech, (N, 3, 320, 320) float32 in [0, 1].
        ``crop`` is (N, 6, 320, 320) in [0, 1], the crop and the masked crop; ``audio`` are windows,
        (N, 32, 16, 16)."""
        return self.network(crop, audio).clamp(0.0, 1.0)


def parameter_count(module: nn.Module) -> int:
    """Return how many numbers the parameters of ``module`` have, all together."""
    return sum(parameter.numel() for parameter in module.parameters())
