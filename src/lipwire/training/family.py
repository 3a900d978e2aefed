"""Checkpoints of the SyncTalk_2D family, which PyTorch wrote, as ONNX files.

The networks are built here from their description and filled with a checkpoint's weights, which are
found by the names that the family's own classes give them
(https://github.com/ZiqiaoPeng/SyncTalk_2D: ``unet_328.py`` and ``utils.py``). No code of a
checkpoint is run.

The U-Net: inverted residuals (https://arxiv.org/abs/1801.04381, an expansion of two) at six
resolutions, 320 to 10 pixels. What is heard joins at the lowest.
"""

import re
import zipfile
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from lipwire.avatars.importing.unpacking.zipfiles import TooManyEntriesError, opened_zip
from lipwire.domain import AUDIO_WINDOW_SHAPE, AvatarInvalid, InvalidInput
from lipwire.domain.wording import shown
from lipwire.training.audio_model import export_encoder
from lipwire.training.checkpoint import load_checkpoint
from lipwire.training.export import write_network

Weights = dict[str, Tensor]
Widths = tuple[int, int, int, int, int]

_LEVELS: Final = 5
_MOST_RECORDS: Final = 20_000
"""Of a checkpoint: the network has 500 tensors, and an optimiser some for each."""
_WRAPPERS: Final = ("model_state_dict", "state_dict", "model", "net", "generator")
"""Keys under which programs keep the weights beside what else they save."""
_ENCODER_LAYERS: Final = (
    # inputs, outputs, side of the kernel, stride (bands, columns), padding, added to its input
    (1, 32, 3, (1, 1), 1, False),
    (32, 32, 3, (1, 1), 1, True),
    (32, 32, 3, (1, 1), 1, True),
    (32, 64, 3, (3, 1), 1, False),
    (64, 64, 3, (1, 1), 1, True),
    (64, 64, 3, (1, 1), 1, True),
    (64, 128, 3, (3, 3), 1, False),
    (128, 128, 3, (1, 1), 1, True),
    (128, 128, 3, (1, 1), 1, True),
    (128, 256, 3, (3, 2), 1, False),
    (256, 256, 3, (1, 1), 1, True),
    (256, 512, 3, (1, 1), 0, False),
    (512, 512, 1, (1, 1), 0, False),
)
"""Wav2Lip's audio encoder (https://github.com/Rudrabha/Wav2Lip), as the family has it."""
_NAMES: Final = (
    # of this module's layers, and what the family's classes call them
    (r"enter\.", "inc.inconv.0.conv."),
    (
        r"down\.(\d)\.(\d)\.",
        lambda m: f"down{int(m[1]) + 1}.maxpool_conv.0.double_conv.{m[2]}.conv.",
    ),
    (r"up\.(\d)\.(\d)\.", lambda m: f"up{int(m[1]) + 1}.conv.double_conv.{m[2]}.conv."),
    (r"fuse\.(\d)\.(\d)\.", r"fuse_conv.\1.double_conv.\2.conv."),
    (r"heard\.conv(\d)\.layers\.", r"audio_model.conv\1.conv."),
    (r"heard\.conv(\d)\.", r"audio_model.conv\1."),
    (r"heard\.norm(\d)\.", r"audio_model.bn\1."),
    (r"leave\.", "outc.conv."),
)


def describe_checkpoint(path: Path, kind: Literal["network", "audio encoder"]) -> str:
    """Return in a few words for a person what the checkpoint ``path``, a file of PyTorch, holds.
    ``kind`` says what it has to be: the U-Net of SyncTalk_2D with 'ave' features ("network"), or
    the encoder that makes these ("audio encoder"). It is read, and code in it is never run. Raises
    AvatarInvalid where it is not of that ``kind``, missing, or damaged."""
    module = _built(path, kind)
    millions = sum(parameter.numel() for parameter in module.parameters()) / 1e6
    if isinstance(module, FamilyUNet):
        form = {32: "", 16: ", the mobile form"}.get(module.widths[0], ", other widths")
        return f"the family's U-Net ({millions:.1f} M parameters{form})"
    return f"the family's audio encoder ({millions:.1f} M parameters)"


def convert_checkpoint(
    path: Path, kind: Literal["network", "audio encoder"], onnx_path: Path
) -> None:
    """Write the network in the checkpoint ``path``, a file of PyTorch, as the ONNX file
    ``onnx_path``, which is replaced where it is there. ``kind`` says what the checkpoint has to be:
    the U-Net of SyncTalk_2D with 'ave' features, or the encoder that makes these.

    Raises AvatarInvalid where it is not of that ``kind``, missing or damaged, or where ONNX
    Runtime's output differs from PyTorch's (of a network), and OSError (of a network) or
    StorageFailed (of an audio encoder) where the file cannot be written.
    """
    module = _built(path, kind)
    if kind == "network":
        write_network(module, onnx_path)
    else:
        export_encoder(module, onnx_path)


class _Inverted(nn.Sequential):
    """An inverted residual: 1x1 up to twice the channels, 3x3 for each channel, 1x1 down; ``add``
    adds the input."""

    def __init__(self, before: int, after: int, *, stride: int = 1, add: bool = False) -> None:
        wide = 2 * before
        super().__init__(
            nn.Conv2d(before, wide, 1, bias=False),
            nn.BatchNorm2d(wide),
            nn.ReLU(),
            nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False),
            nn.BatchNorm2d(wide),
            nn.ReLU(),
            nn.Conv2d(wide, after, 1, bias=False),
            nn.BatchNorm2d(after),
        )
        self.add = add

    def forward(self, features: Tensor) -> Tensor:
        made = super().forward(features)
        return features + made if self.add else made


def _pair(before: int, after: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(_Inverted(before, after, stride=stride), _Inverted(after, after, add=True))


class _Joined(nn.Module):
    """An inverted residual under a name of its own beside plain convolutions."""

    def __init__(self, before: int, after: int, *, add: bool = False) -> None:
        super().__init__()
        self.layers = _Inverted(before, after, add=add)

    def forward(self, features: Tensor) -> Tensor:
        return cast(Tensor, self.layers(features))


class _Heard(nn.Module):
    """The audio branch: (N, 32, 16, 16) to (N, widths[4], 10, 10)."""

    def __init__(self, widths: Widths) -> None:
        super().__init__()
        _, w1, w2, w3, w4 = widths
        self.conv1 = _Joined(AUDIO_WINDOW_SHAPE[0], w1)
        self.conv2 = _Joined(w1, w2)
        self.conv3 = nn.Conv2d(w2, w3, 3, padding=1)
        self.norm3 = nn.BatchNorm2d(w3)
        self.conv4 = _Joined(w3, w3, add=True)
        self.conv5 = nn.Conv2d(w3, w4, 3, stride=2, padding=3)
        self.norm5 = nn.BatchNorm2d(w4)
        self.conv6 = _Joined(w4, w4, add=True)
        self.conv7 = _Joined(w4, w4, add=True)

    def forward(self, audio: Tensor) -> Tensor:
        at = self.conv2(self.conv1(audio))
        at = self.conv4(functional.relu(self.norm3(self.conv3(at))))
        at = functional.relu(self.norm5(self.conv5(at)))
        return cast(Tensor, self.conv7(self.conv6(at)))


class FamilyUNet(nn.Module):
    """The U-Net of the family of SyncTalk_2D at 320 pixels with 'ave' features (512 numbers a row);
    see ``forward``."""

    def __init__(self, widths: Widths) -> None:
        """``widths`` are the numbers of channels at 160, 80, 40, 20 and 10 pixels, each twice the
        one before; at 320 pixels there are as many as at 160."""
        super().__init__()
        self.widths = widths
        w0, w1, w2, w3, w4 = widths
        self.enter = _Inverted(6, w0)
        above = (w0, *widths)
        self.down = nn.ModuleList(_pair(above[level], widths[level], 2) for level in range(_LEVELS))
        self.heard = _Heard(widths)
        self.fuse = nn.Sequential(_pair(2 * w4, w4), _pair(w4, w3))
        joined = ((w4, w3 // 2), (w3, w2 // 2), (w2, w1 // 2), (w1, w0), (w1, w0 // 2))
        self.up = nn.ModuleList(_pair(before, after) for before, after in joined)
        self.leave = nn.Conv2d(w0 // 2, 3, 1)

    def forward(self, crop: Tensor, audio: Tensor) -> Tensor:
        """Return mouths, (N, 3, 320, 320) float32 in [0, 1], BGR. ``crop`` is (N, 6, 320, 320) in
        [0, 1], the crop and the masked crop; ``audio`` are windows, (N, 32, 16, 16)."""
        levels = [self.enter(crop)]
        for down in self.down:
            levels.append(down(levels[-1]))
        at = self.fuse(torch.cat([levels.pop(), self.heard(audio)], 1))
        for up in self.up:
            twice = functional.interpolate(
                at, scale_factor=2.0, mode="bilinear", align_corners=True
            )
            at = up(torch.cat([twice, levels.pop()], 1))
        return torch.sigmoid(self.leave(at))


class FamilyEncoder(nn.Module):
    """The audio encoder of the family of SyncTalk_2D: (N, 1, 80, 16) mel columns to (N, 512)."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Conv2d(before, after, side, stride, padding), nn.BatchNorm2d(after))
            for before, after, side, stride, padding, _ in _ENCODER_LAYERS
        )

    def forward(self, mel: Tensor) -> Tensor:
        """Return the rows of ``mel``: (N, 1, 80, 16) float32 in [-4, 4] to (N, 512) float32."""
        at = mel
        for layer, (*_, add) in zip(self.layers, _ENCODER_LAYERS, strict=True):
            made = layer(at)
            at = functional.relu(made + at if add else made)
        return torch.flatten(at, 1)


def _built(path: Path, kind: Literal["network", "audio encoder"]) -> nn.Module:
    """The network with the checkpoint's weights, in evaluation mode."""
    weights = _read_weights(path)
    seen = _what_it_is(weights)
    wanted = "a U-Net" if kind == "network" else "an audio encoder"
    if seen not in ("", wanted):
        raise AvatarInvalid(f"{path.name} is {seen}; {_WANTED[kind]} is needed")
    module: nn.Module
    if kind == "network":
        module = FamilyUNet(_widths(weights, path.name))
        names = {name: _their_name(name) for name in module.state_dict()}
    else:
        module = FamilyEncoder()
        weights = {name.removeprefix("audio_encoder."): t for name, t in weights.items()}
        names = {
            name: re.sub(r"layers\.(\d+)\.", r"\1.conv_block.", name)
            for name in module.state_dict()
        }
    module.load_state_dict(dict(_fitting(module.state_dict(), names, weights, path.name, kind)))
    return module.eval()


_WANTED: Final = {
    "network": "SyncTalk_2D's U-Net of 328 pixels with 'ave' features",
    "audio encoder": "the 'ave' encoder (audio_visual_encoder.pth)",
}


def _read_weights(path: Path) -> Weights:
    """The tensors of a checkpoint by the names in it, without what wraps them."""
    _check_size(path)
    try:
        state: dict[str, Any] = load_checkpoint(path)
    except InvalidInput as error:
        raise AvatarInvalid(str(error).replace(f"checkpoint {path}", path.name)) from error
    for key in _WRAPPERS:
        if isinstance(state.get(key), Mapping):
            state = dict(state[key])
            break
    weights = {
        str(name).removeprefix("module."): value
        for name, value in state.items()
        if isinstance(value, Tensor)
    }
    if not weights:
        keys = ", ".join(shown(key) for key in list(state)[:3])
        raise AvatarInvalid(f"{path.name} holds no weights by their names, but {keys or 'nothing'}")
    return weights


def _check_size(path: Path) -> None:
    """Raise AvatarInvalid for a checkpoint that would take more memory than its file has bytes:
    PyTorch's ZIP files are not compressed, and it would unpack one that is, whatever comes of
    it."""
    if not zipfile.is_zipfile(path):
        return  # PyTorch's older form
    try:
        with opened_zip(path, _MOST_RECORDS) as opened:
            unpacked_bytes = sum(info.file_size for info in opened.infolist())
    except TooManyEntriesError:
        raise AvatarInvalid(f"{path.name} holds more than {_MOST_RECORDS} tensors") from None
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as error:
        raise AvatarInvalid(f"{path.name} is damaged: {type(error).__name__}") from error
    size_bytes = path.stat().st_size
    if unpacked_bytes > size_bytes:
        raise AvatarInvalid(
            f"{path.name} has {size_bytes} bytes and unpacks to {unpacked_bytes}; PyTorch does not"
            " compress checkpoints"
        )


def _what_it_is(weights: Weights) -> str:
    """What a checkpoint is, by the names in it and the shapes that tell variants apart; empty where
    that is not known."""
    if any(name.startswith(("face_encoder", "face_decoder")) for name in weights):
        decodes = any(name.startswith("face_decoder") for name in weights)
        return "Wav2Lip's network" if decodes else "a SyncNet, which only training needs"
    if any(re.match(r"(audio_encoder\.)?\d+\.conv_block\.0\.weight", name) for name in weights):
        return "an audio encoder"
    if not any(name.startswith("outc.") for name in weights):
        return ""
    if not any(name.startswith(f"down{_LEVELS}.") for name in weights):
        return "a U-Net of 160 pixels, as Ultralight-Digital-Human's"
    first = weights.get("audio_model.conv1.conv.0.weight")
    channels = first.shape[1] if first is not None and first.ndim == 4 else 0
    if channels in (128, 256):
        return "a U-Net that hears wenet features"
    if channels == 16:
        return "a U-Net that hears hubert features"
    return "a U-Net"


def _widths(weights: Weights, label: str) -> Widths:
    """The channels at 160 to 10 pixels, by the shapes of what leads there."""
    found = []
    for level in range(1, _LEVELS + 1):
        name = f"down{level}.maxpool_conv.0.double_conv.0.conv.6.weight"
        tensor = weights.get(name)
        if tensor is None or tensor.ndim != 4 or not 2 <= tensor.shape[0] <= 4096:
            raise AvatarInvalid(_unlike(label, f"it has no {name}", weights, "network"))
        found.append(int(tensor.shape[0]))
    if any(2 * above != below for above, below in pairwise(found)):
        seen = ", ".join(map(str, found))
        raise AvatarInvalid(
            _unlike(label, f"its channels are {seen}, which do not double", weights, "network")
        )
    return found[0], found[1], found[2], found[3], found[4]


def _their_name(name: str) -> str:
    for ours, theirs in _NAMES:
        if re.match(ours, name):
            return re.sub(ours, theirs, name, count=1)
    return name


def _fitting(
    wanted: Weights,
    names: dict[str, str],
    weights: Weights,
    label: str,
    kind: Literal["network", "audio encoder"],
) -> Iterator[tuple[str, Tensor]]:
    """The tensors for a module by its own names. Raises AvatarInvalid where one is missing, has
    another shape, or is left over."""
    for name, tensor in wanted.items():
        theirs = weights.get(names[name])
        if theirs is None:
            if not name.endswith("num_batches_tracked"):  # which only training needs
                raise AvatarInvalid(_unlike(label, f"it has no {names[name]}", weights, kind))
            theirs = tensor
        if theirs.shape != tensor.shape:
            shapes = f"{tuple(theirs.shape)} and not {tuple(tensor.shape)}"
            raise AvatarInvalid(_unlike(label, f"{names[name]} is {shapes}", weights, kind))
        yield name, theirs
    left = sorted(weights.keys() - set(names.values()))
    if left:
        raise AvatarInvalid(_unlike(label, f"it has {shown(left[0])} as well", weights, kind))


def _unlike(
    label: str, what: str, weights: Weights, kind: Literal["network", "audio encoder"]
) -> str:
    return (
        f"{label} ({len(weights)} tensors) is not {_WANTED[kind]}: {what}; a fork that differs"
        " exports ONNX by itself (docs/import.md)"
    )
