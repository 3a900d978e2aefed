"""The networks that hear: mel columns to 512 numbers a row, and a window of rows to mouth controls.

Both are convolutions only. An ONNX Runtime convolution computes each item of a batch by itself, so
that a row's bits do not depend on which rows are computed with it; a matrix product does not
promise that.
"""

import warnings
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

from lipwire.audio import (
    MEL_BANDS,
    ROW_COLUMNS,
    ROWS_BEFORE,
    WINDOW_ROWS,
    row_columns,
    row_count,
)
from lipwire.domain import FEATURE_SIZE, AvatarInvalid
from lipwire.domain.newfiles import new_path, storage_errors
from lipwire.training.visemes import CONTROLS

OPSET: Final = 17
ENCODER: Final = "audio_encoder.onnx"
HEAD: Final = "audio_head.pt"
"""Files that a trained model of speech consists of."""


_CONTRACTION: Final = 12
"""Columns by which the encoder's unpadded convolutions shorten what they are given."""


def _block(before: int, after: int, stride: int = 1) -> nn.Sequential:
    """Padded over the bands and not over the columns: see `AudioEncoder.listen`."""
    return nn.Sequential(
        nn.Conv2d(before, after, 3, (stride, 1), (1, 0), bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU(),
    )


class _Residual(nn.Module):
    """x + two convolutions of x, at one width; four columns shorter."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = _block(width, width)
        self.second = nn.Conv2d(width, width, 3, 1, (1, 0), bias=False)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x[..., 2:-2] + self.norm(self.second(self.first(x))))


class AudioEncoder(nn.Module):
    """The network that makes 512 numbers (a row) of 16 columns of a mel spectrogram: (N, 1, 80, 16)
    float32 in [-4, 4] to (N, 512) float32.

    About 0.8 M parameters and 17 MFLOP a row. No column is skipped, so that a closure of the lips
    (four columns) stays visible.
    """

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _block(1, 16, 2),  # 40 bands x 14 columns
            _block(16, 32, 2),  # 20 x 12
            _block(32, 56, 2),  # 10 x 10
            _Residual(56),  # 10 x 6
            _block(56, 96, 2),  # 5 x 4
            nn.Conv2d(96, 64, 1, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(),
        )
        self.out = nn.Conv2d(64, FEATURE_SIZE, (5, ROW_COLUMNS - _CONTRACTION))

    def forward(self, mel: Tensor) -> Tensor:
        """Return the rows of ``mel``: (N, 1, 80, 16) float32 in [-4, 4] to (N, 512) float32."""
        return torch.flatten(self.out(self.body(mel * 0.5)), 1)

    def listen(self, mel: Tensor, starts: Tensor) -> Tensor:
        """Return the rows of whole recordings that begin at the mel columns ``starts``, (B, rows,
        512) float32: row r is made of the 16 columns from ``starts[r]`` on.

        ``mel`` is (B, columns, 80) float32 in [-4, 4], ``starts`` (rows,) int64, the same for all
        B, each from 0 to columns - 16. Rows overlap five times over. Since no convolution pads the
        columns, what two rows share has the same value in both, and is computed once: training is
        four times as fast.
        """
        heard = self.body(mel.transpose(1, 2).unsqueeze(1) * 0.5)  # (B, 64, 5, columns - 12)
        width = ROW_COLUMNS - _CONTRACTION
        rows = heard[..., starts[:, None] + torch.arange(width)]  # (B, 64, 5, rows, 4)
        rows = rows.permute(0, 3, 1, 2, 4).flatten(0, 1)
        return self.out(rows).reshape(len(mel), len(starts), FEATURE_SIZE)


def _rows(before: int, after: int, rows: int = 3) -> nn.Sequential:
    """A convolution over rows that pads nothing."""
    return nn.Sequential(
        nn.Conv2d(before, after, (rows, 1), bias=False), nn.BatchNorm2d(after), nn.ReLU()
    )


class _Glance(nn.Module):
    """x + two convolutions of x over the rows, at one width; four rows shorter."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = _rows(width, width)
        self.second = nn.Conv2d(width, width, (3, 1), bias=False)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x[:, :, 2:-2] + self.norm(self.second(self.first(x))))


class AudioHead(nn.Module):
    """The network that makes mouth controls of what a frame hears: a window, (N, 32, 16, 16)
    float32, to (N, 6) in [0, 1], in the order of `visemes.CONTROLS`.

    The window is 16 rows of 512 numbers, laid out flat. About 0.6 M parameters and 9 MFLOP.
    """

    def __init__(self) -> None:
        super().__init__()
        self.look = nn.Sequential(
            _rows(FEATURE_SIZE, 96, 1),
            _rows(96, 160),  # 14 rows
            _Glance(160),  # 10
            _Glance(160),  # 6
            _rows(160, 192, 6),
            nn.Conv2d(192, len(CONTROLS), 1),
        )

    def forward(self, window: Tensor) -> Tensor:
        """Return the mouth controls, (N, 6) in [0, 1], of ``window``, (N, 32, 16, 16) float32."""
        rows = window.reshape(-1, WINDOW_ROWS, FEATURE_SIZE).transpose(1, 2).unsqueeze(3)
        return torch.sigmoid(torch.flatten(self.read(rows), 1))

    def read(self, rows: Tensor) -> Tensor:
        """Return the logits of the mouth controls (their values before the sigmoid) for every
        window of 16 rows among ``rows``, (N, 6, rows - 15, 1) float32.

        ``rows`` is (N, 512, rows, 1) float32, 16 rows or more. No convolution pads the rows, so
        that windows share what they have in common: training on whole recordings computes each row
        once and not in sixteen windows.
        """
        logits: Tensor = self.look(rows)
        return logits


class AudioModel(nn.Module):
    """Audio encoder and head together: makes mouth controls of mel spectrograms, for training on
    recordings of one length."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = AudioEncoder()
        self.head = AudioHead()

    def forward(self, mel: Tensor, frames: int) -> Tensor:
        """Return the logits of the mouth controls of B recordings of one length, (B, frames, 6)
        float32, in the order of ``visemes.CONTROLS``; a sigmoid makes controls of them.

        ``mel`` is their mel spectrograms, (B, columns, 80) float32 in [-4, 4], 16 columns or more;
        ``frames`` is how many video frames each has.

        The encoder makes rows of 512 numbers of the recording, 25 for each second; the first and
        the last of these are repeated once. The head makes the controls of frame i from its window:
        the rows i - 8 to i + 7, counted from 0, where missing ones are zeros.
        """
        columns = mel.shape[1]
        starts = [row_columns(index, columns).start for index in range(row_count(columns))]
        features = self.encoder.listen(mel, torch.tensor(starts))
        entries = torch.cat([features[:, :1], features, features[:, -1:]], 1)
        wanted = frames + WINDOW_ROWS - 1 - ROWS_BEFORE
        entries = entries[:, :wanted]
        entries = nn.functional.pad(entries, (0, 0, ROWS_BEFORE, wanted - entries.shape[1]))
        logits = self.head.read(entries.transpose(1, 2).unsqueeze(3))  # (B, 6, frames, 1)
        return logits.squeeze(3).transpose(1, 2)


def export_encoder(encoder: nn.Module, path: Path) -> None:
    """Write ``encoder``, an ``AudioEncoder`` or a module that takes and makes the same shapes, as
    the ONNX file ``path``, with the input ``mel`` (N, 1, 80, 16) and the output ``features`` (N,
    512), float32, any N. The encoder is exported in evaluation mode and then set back to the mode,
    evaluation or training, that it had.

    Raises StorageFailed where it cannot be written; a file that was there stays until the new one
    is whole.
    """
    example = torch.zeros(2, 1, MEL_BANDS, ROW_COLUMNS)
    training = encoder.training
    encoder.eval()
    try:
        with storage_errors(path), new_path(path) as part, warnings.catch_warnings():
            # The exporter that replaces this one needs onnxscript, which nothing else here does.
            warnings.simplefilter("ignore", DeprecationWarning)
            torch.onnx.export(
                encoder,
                (example,),
                str(part),
                input_names=["mel"],
                output_names=["features"],
                dynamic_axes={"mel": {0: "rows"}, "features": {0: "rows"}},
                opset_version=OPSET,
                dynamo=False,
            )
    finally:
        encoder.train(training)


def load_head(path: Path) -> AudioHead:
    """Return the trained head in the file ``path`` (``audio_head.pt``), in evaluation mode. Raises
    `AvatarInvalid` where the file is missing, damaged, or holds something else."""
    head = AudioHead()
    try:
        head.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # torch raises many kinds for a damaged file
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise AvatarInvalid(f"{path} is not an audio head: {reason}") from error
    return head.eval()
