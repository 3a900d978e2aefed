"""SyncTalk_2D's networks and inference, written once more from their description: PyTorch's
functions on a checkpoint's tensors, a frame at a time, as slow as it is.

Names of tensors are those of a checkpoint (https://github.com/ZiqiaoPeng/SyncTalk_2D).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as functional

from lipwire.audio import mel_spectrogram
from lipwire.domain import Float32Array, UInt8Array

Weights = dict[str, Any]
ENCODER = (
    # outputs, kernel, stride, padding, residual
    (32, 3, (1, 1), 1, False),
    (32, 3, (1, 1), 1, True),
    (32, 3, (1, 1), 1, True),
    (64, 3, (3, 1), 1, False),
    (64, 3, (1, 1), 1, True),
    (64, 3, (1, 1), 1, True),
    (128, 3, (3, 3), 1, False),
    (128, 3, (1, 1), 1, True),
    (128, 3, (1, 1), 1, True),
    (256, 3, (3, 2), 1, False),
    (256, 3, (1, 1), 1, True),
    (512, 3, (1, 1), 0, False),
    (512, 1, (1, 1), 0, False),
)


class Maker:
    """Random weights under a checkpoint's names."""

    def __init__(self, seed: int) -> None:
        self.weights: Weights = {}
        self._random = torch.Generator().manual_seed(seed)

    def conv(self, name: str, before: int, after: int, side: int, bias: bool) -> None:
        spread = (1.0 / (before * side * side)) ** 0.5
        shape = (after, before, side, side)
        self.weights[f"{name}.weight"] = torch.randn(shape, generator=self._random) * spread
        if bias:
            self.weights[f"{name}.bias"] = torch.randn(after, generator=self._random) * 0.1

    def norm(self, name: str, size: int) -> None:
        def some(low: float, high: float) -> Any:
            return torch.rand(size, generator=self._random) * (high - low) + low

        self.weights[f"{name}.weight"], self.weights[f"{name}.bias"] = (
            some(0.7, 1.3),
            some(-0.3, 0.3),
        )
        self.weights[f"{name}.running_mean"] = some(-0.3, 0.3)
        self.weights[f"{name}.running_var"] = some(0.5, 1.5)
        self.weights[f"{name}.num_batches_tracked"] = torch.tensor(9)

    def inverted(self, name: str, before: int, after: int) -> None:
        wide = 2 * before
        self.conv(f"{name}.conv.0", before, wide, 1, False)
        self.norm(f"{name}.conv.1", wide)
        self.conv(f"{name}.conv.3", 1, wide, 3, False)
        self.norm(f"{name}.conv.4", wide)
        self.conv(f"{name}.conv.6", wide, after, 1, False)
        self.norm(f"{name}.conv.7", after)

    def pair(self, name: str, before: int, after: int) -> None:
        self.inverted(f"{name}.double_conv.0", before, after)
        self.inverted(f"{name}.double_conv.1", after, after)


def unet_weights(
    seed: int, ch: tuple[int, int, int, int, int], *, calibrated: bool = True
) -> Weights:
    """The state_dict of a U-Net with random weights; ``ch`` are its channels. One that is not
    ``calibrated`` hears hardly anything, and is made at once."""
    made = Maker(seed)
    made.inverted("inc.inconv.0", 6, ch[0])
    for level, (before, after) in enumerate(zip((ch[0], *ch), ch, strict=False), 1):
        made.pair(f"down{level}.maxpool_conv.0", before, after)
    made.inverted("audio_model.conv1", 32, ch[1])
    made.inverted("audio_model.conv2", ch[1], ch[2])
    made.conv("audio_model.conv3", ch[2], ch[3], 3, True)
    made.norm("audio_model.bn3", ch[3])
    made.inverted("audio_model.conv4", ch[3], ch[3])
    made.conv("audio_model.conv5", ch[3], ch[4], 3, True)
    made.norm("audio_model.bn5", ch[4])
    made.inverted("audio_model.conv6", ch[4], ch[4])
    made.inverted("audio_model.conv7", ch[4], ch[4])
    made.pair("fuse_conv.0", ch[4] * 2, ch[4])
    made.pair("fuse_conv.1", ch[4], ch[3])
    ups = (ch[4], ch[3] // 2), (ch[3], ch[2] // 2), (ch[2], ch[1] // 2), (ch[1], ch[0])
    for level, (before, after) in enumerate((*ups, (ch[1], ch[0] // 2)), 1):
        made.pair(f"up{level}.conv", before, after)
    made.conv("outc.conv", ch[0] // 2, 3, 1, True)
    if not calibrated:
        return made.weights
    random = torch.Generator().manual_seed(seed)
    crop = torch.rand((1, 6, 320, 320), generator=random)
    unet(made.weights, crop, torch.randn((1, 32, 16, 16), generator=random), calibrate=True)
    return made.weights


def encoder_weights(seed: int) -> Weights:
    """What audio_visual_encoder.pth holds, with random weights."""
    made, before = Maker(seed), 1
    for place, (after, side, _, _, _) in enumerate(ENCODER):
        made.conv(f"{place}.conv_block.0", before, after, side, True)
        made.norm(f"{place}.conv_block.1", after)
        before = after
    mel = torch.rand((8, 1, 80, 16), generator=torch.Generator().manual_seed(seed)) * 8 - 4
    encode(made.weights, mel, calibrate=True)
    return made.weights


def normed(w: Weights, x: Any, name: str, calibrate: bool) -> Any:
    """Batch normalisation with what was stored, or with the statistics of ``x``, which are then
    stored: without them random weights let the speech fade."""
    if calibrate:
        w[f"{name}.running_mean"] = x.mean((0, 2, 3))
        w[f"{name}.running_var"] = x.var((0, 2, 3))
    stored = (w[f"{name}.{each}"] for each in ("running_mean", "running_var", "weight", "bias"))
    return functional.batch_norm(x, *stored)


def unet(w: Weights, crop: Any, audio: Any, *, calibrate: bool = False) -> Any:
    """(N, 6, 320, 320) and (N, 32, 16, 16) to (N, 3, 320, 320)."""

    def norm(x: Any, name: str) -> Any:
        return normed(w, x, name, calibrate)

    def inverted(x: Any, name: str, stride: int = 1, residual: bool = False) -> Any:
        y = functional.conv2d(x, w[f"{name}.conv.0.weight"])
        y = functional.relu(norm(y, f"{name}.conv.1"))
        y = functional.conv2d(
            y, w[f"{name}.conv.3.weight"], stride=stride, padding=1, groups=y.shape[1]
        )
        y = functional.relu(norm(y, f"{name}.conv.4"))
        y = norm(functional.conv2d(y, w[f"{name}.conv.6.weight"]), f"{name}.conv.7")
        return x + y if residual else y

    def pair(x: Any, name: str, stride: int = 1) -> Any:
        y = inverted(x, f"{name}.double_conv.0", stride)
        return inverted(y, f"{name}.double_conv.1", residual=True)

    def plain(x: Any, number: int, **options: int) -> Any:
        name = f"audio_model.conv{number}"
        y = functional.conv2d(x, w[f"{name}.weight"], w[f"{name}.bias"], **options)
        return functional.relu(norm(y, f"audio_model.bn{number}"))

    skips = [inverted(crop, "inc.inconv.0")]
    for level in range(1, 6):
        skips.append(pair(skips[-1], f"down{level}.maxpool_conv.0", 2))
    heard = inverted(inverted(audio, "audio_model.conv1"), "audio_model.conv2")
    heard = inverted(plain(heard, 3, padding=1), "audio_model.conv4", residual=True)
    heard = inverted(plain(heard, 5, stride=2, padding=3), "audio_model.conv6", residual=True)
    heard = inverted(heard, "audio_model.conv7", residual=True)
    x = torch.cat([skips.pop(), heard], 1)
    x = pair(pair(x, "fuse_conv.0"), "fuse_conv.1")
    for level in range(1, 6):
        size = (2 * x.shape[2], 2 * x.shape[3])
        x = functional.interpolate(x, size, mode="bilinear", align_corners=True)
        x = pair(torch.cat([x, skips.pop()], 1), f"up{level}.conv")
    return torch.sigmoid(functional.conv2d(x, w["outc.conv.weight"], w["outc.conv.bias"]))


def encode(w: Weights, mel: Any, *, calibrate: bool = False) -> Any:
    """(N, 1, 80, 16) to (N, 512)."""
    x = mel
    for place, (_, _, stride, padding, residual) in enumerate(ENCODER):
        name = f"{place}.conv_block"
        y = functional.conv2d(
            x, w[f"{name}.0.weight"], w[f"{name}.0.bias"], stride=stride, padding=padding
        )
        y = normed(w, y, f"{name}.1", calibrate)
        x = functional.relu(y + x if residual else y)
    return x.flatten(1)


def features(w: Weights, pcm: Float32Array) -> Any:
    """The audio features of a recording: a row a frame, the first and the last once more."""
    mel = mel_spectrogram(pcm)
    pieces = []
    for frame in range(int((len(mel) - 16) / 80.0 * 25.0) + 2):
        start = min(int(80.0 * (frame / 25.0)), len(mel) - 16)
        pieces.append(torch.from_numpy(mel[start : start + 16].T.copy())[None])
    rows = encode(w, torch.stack(pieces))
    return torch.cat([rows[:1], rows, rows[-1:]])


def inference(
    data: Path, network: Weights, encoder: Weights, pcm: Float32Array
) -> Iterator[tuple[Float32Array, UInt8Array]]:
    """Yield (mouth, frame) as the original's inference makes them from its data folder: (320, 320,
    3) float32 in 0 to 255 before it is cut to integers, and (height, width, 3) uint8 BGR."""
    rows = features(encoder, pcm)
    last = len(list((data / "full_body_img").iterdir())) - 1
    at, step = 0, 0
    for frame in range(len(rows)):
        if at > last - 1:
            step = -1
        if at < 1:
            step = 1
        at += step
        picture = cv2.imread(str(data / "full_body_img" / f"{at}.jpg"))
        assert picture is not None
        lines = (data / "landmarks" / f"{at}.lms").read_text().splitlines()
        points = np.array([line.split(" ") for line in lines], np.float32).astype(np.int32)
        x1, y1, x2 = points[1][0], points[52][1], points[31][0]
        y2 = y1 + x2 - x1
        region = picture[y1:y2, x1:x2]
        crop = cv2.resize(region, (328, 328), interpolation=cv2.INTER_CUBIC)
        real = crop[4:324, 4:324].copy()
        masked = cv2.rectangle(real.copy(), (5, 5, 310, 305), (0, 0, 0), -1)
        both = np.concatenate([real, np.asarray(masked)], 2).transpose(2, 0, 1)
        window = torch.zeros(16, 512)
        for place in range(16):
            if 0 <= frame - 8 + place < len(rows):
                window[place] = rows[frame - 8 + place]
        crops = torch.from_numpy(both.astype(np.float32) / 255)[None]
        mouth = unet(network, crops, window.reshape(1, 32, 16, 16))[0]
        made = np.asarray(mouth.numpy().transpose(1, 2, 0) * 255, np.float32)
        crop[4:324, 4:324] = made.astype(np.uint8)
        size = (region.shape[1], region.shape[0])
        picture[y1:y2, x1:x2] = cv2.resize(crop, size, interpolation=cv2.INTER_CUBIC)
        yield made, np.asarray(picture, np.uint8)
