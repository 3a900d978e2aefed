"""The audio encoder of the SyncTalk_2D family: 16 mel columns to 512 numbers, by ONNX Runtime.

**Bits.** The streaming form encodes rows as they come and the offline form many at once, and both
must give the same bits. A network does not promise that: a matrix kernel may sum in another order
for another batch size or another place in the batch. So only two shapes are ever run: one row, and
a full block; and blocks only if, when the first one comes, a trial shows that every place in a
block gives the bits of that row alone. Models of convolutions pass it with ONNX Runtime 1.32 on
x86-64; one that fails is run row by row, which is slower and nothing else.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import onnxruntime as ort

from lipwire.audio.encoder_file import EncoderFile, read_encoder_file
from lipwire.audio.mel import MEL_BANDS
from lipwire.audio.rows import ROW_COLUMNS
from lipwire.domain import FEATURE_SIZE, AvatarInvalid, Float32Array, InvalidInput

_BLOCK_ROWS: Final = 16
_SILENCE: Final = -4.0
_ERROR_LEVEL: Final = 4  # ONNX Runtime's own lines on stderr: fatal ones only, the rest is raised


class AudioEncoder:
    """An avatar's audio encoder, a network that makes a row, 512 numbers, of each piece of 16 mel
    columns (200 ms) of speech; the network that draws the mouths takes 16 rows for each frame.
    Opened by ``AudioEncoder.open``. Safe to use from several threads.

        encoder = AudioEncoder.open(Path("audio_encoder.onnx"))
        rows = encoder.encode(rows_from_mel(mel)[:, None])  # (rows, 512)
    """

    __slots__ = ("_block_rows", "_blocks_are_exact", "_input", "_output", "_session", "_single")

    _session: ort.InferenceSession
    _input: str
    _output: str
    _single: int  # rows of the smallest run: 1, or the model's fixed batch
    _block_rows: int
    _blocks_are_exact: bool | None  # None until the first block; threads that try at once agree

    def __init__(self, session: ort.InferenceSession, file: EncoderFile, path: Path) -> None:
        self._session = session
        self._input = file.input_name
        self._single = file.fixed_batch or 1
        self._block_rows = file.fixed_batch or _BLOCK_ROWS
        self._blocks_are_exact = True if self._block_rows == 1 else None
        self._output = self._checked_output(path)

    @classmethod
    def open(cls, path: Path, threads: int = 1) -> "AudioEncoder":
        """Open the audio encoder in the ONNX file ``path``; one call of ``encode`` runs on
        ``threads`` threads (1 or more). The encoder need not be closed.

        The file has one float32 input (N, 1, 80, 16) and an output (N, 512) or (N, 512, 1, 1), N
        fixed or free, whatever their names. Raises AvatarInvalid where the file is missing, is no
        ONNX model, keeps weights outside its folder, has other shapes, or gives NaN or infinity for
        silence; InvalidInput for fewer threads than 1.
        """
        if threads < 1:
            raise InvalidInput(f"{threads} threads for the audio encoder; allowed: 1 or more")
        file = read_encoder_file(path)
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _ERROR_LEVEL
        with _runtime_errors(path):
            session = ort.InferenceSession(file.source, options, providers=["CPUExecutionProvider"])
        return cls(session, file, path)

    def encode(self, mels: Float32Array) -> Float32Array:
        """Run the network and return the rows (512 numbers each) that it makes of ``mels``, (N,
        512) float32; each row depends on its own piece alone.

        ``mels`` is N pieces of a mel spectrogram, (N, 1, 80, 16) float32 in [-4, 4]: 80 bands and
        16 columns each. Raises InvalidInput for another shape or type.
        """
        wanted = (1, MEL_BANDS, ROW_COLUMNS)
        if mels.shape[1:] != wanted or mels.dtype != np.float32:
            raise InvalidInput(
                f"mel rows of shape {mels.shape} and type {mels.dtype}; "
                f"allowed: (N, 1, {MEL_BANDS}, {ROW_COLUMNS}) float32"
            )
        features = np.empty((len(mels), FEATURE_SIZE), np.float32)
        for part in self._parts(len(mels)):
            features[part] = self._run(mels[part])
        return features

    def _parts(self, count: int) -> Iterator[slice]:
        """Blocks as far as they go, then single rows; only single rows where blocks differ.

        A free batch is never padded; a fixed one always has the same cost, so its last block is.
        """
        stop = count - count % self._block_rows if self._single == 1 else count
        if stop <= 1 or not self._may_use_blocks():
            stop = 0
        for start in range(0, stop, self._block_rows):
            yield slice(start, min(start + self._block_rows, stop))
        for index in range(stop, count):
            yield slice(index, index + 1)

    def _may_use_blocks(self) -> bool:
        if self._blocks_are_exact is None:
            shape = (self._block_rows, 1, MEL_BANDS, ROW_COLUMNS)
            trial = np.random.default_rng(0).uniform(-4, 4, shape).astype(np.float32)
            singles = [self._run(trial[index : index + 1]) for index in range(len(trial))]
            self._blocks_are_exact = np.array_equal(self._run(trial), np.concatenate(singles))
        return self._blocks_are_exact

    def _run(self, mels: Float32Array) -> Float32Array:
        """One run: (k, 1, 80, 16) -> (k, 512), padded with silence to a fixed batch."""
        rows = len(mels)
        if rows < self._single:
            padded = np.full((self._single, *mels.shape[1:]), _SILENCE, np.float32)
            padded[:rows] = mels
            mels = padded
        (features,) = self._session.run([self._output], {self._input: np.ascontiguousarray(mels)})
        result: Float32Array = features.reshape(-1, FEATURE_SIZE)[:rows]
        return result

    def _checked_output(self, path: Path) -> str:
        """Name of the output that holds the features, found by encoding one row of silence."""
        shape = (self._single, 1, MEL_BANDS, ROW_COLUMNS)
        names = [output.name for output in self._session.get_outputs()]
        with _runtime_errors(path):
            outputs = self._session.run(None, {self._input: np.full(shape, _SILENCE, np.float32)})
        allowed = ((self._single, FEATURE_SIZE), (self._single, FEATURE_SIZE, 1, 1))
        for name, output in zip(names, outputs, strict=True):
            if getattr(output, "shape", None) in allowed and output.dtype == np.float32:
                if not np.isfinite(output).all():
                    raise AvatarInvalid(f"audio encoder {path} gives NaN or infinity for silence")
                return str(name)
        seen = ", ".join(
            f"{name} {getattr(output, 'shape', '?')} {getattr(output, 'dtype', '?')}"
            for name, output in zip(names, outputs, strict=True)
        )
        raise AvatarInvalid(
            f"audio encoder {path} has outputs {seen}; "
            f"allowed: (N, {FEATURE_SIZE}) or (N, {FEATURE_SIZE}, 1, 1) float32"
        )


@contextlib.contextmanager
def _runtime_errors(path: Path) -> Iterator[None]:
    """ONNX Runtime's exceptions, which share no base class but Exception, as one AvatarInvalid."""
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise AvatarInvalid(f"audio encoder {path} does not run: {reason}") from error
