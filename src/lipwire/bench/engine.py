"""The engine against plain ONNX Runtime on the same network, one thread, one frame at a time.

Two questions: what feeding the weights to a shared graph costs (the guide's form on both sides),
and what a frame costs from the avatar's pixels to the mouth's pixels, where the plain way scales,
masks and rounds with NumPy.
"""

import tempfile
from pathlib import Path

import numpy as np
import onnxruntime

from lipwire.bench.harness import Comparison, compare
from lipwire.bench.randomnetworks import FULL_WIDTHS, MOBILE_WIDTHS, Widths, write_unet
from lipwire.domain import MASK_COLUMNS, MASK_ROWS, Float32Array, UInt8Array
from lipwire.engine import Engine, compile_model


def run(rounds: int = 15) -> list[Comparison]:
    """Compare the engine with plain ONNX Runtime, at the published and at the mobile widths,
    ``rounds`` rounds each; takes about 20 seconds on one core."""
    return [
        comparison
        for name, widths in (("mobile widths", MOBILE_WIDTHS), ("published widths", FULL_WIDTHS))
        for comparison in _compare_at(name, widths, rounds)
    ]


def _compare_at(name: str, widths: Widths, rounds: int) -> list[Comparison]:
    random = np.random.default_rng(0)
    crops = random.integers(0, 256, (1, 320, 320, 3), np.uint8)
    windows = random.standard_normal((1, 32, 16, 16), np.float32)
    visual = _visual(crops)
    with (
        tempfile.TemporaryDirectory(prefix="lipwire-bench-") as folder,
        Engine(threads=1) as engine,
    ):
        source, compiled = Path(folder, "unet.onnx"), Path(folder, "compiled")
        write_unet(source, seed=0, widths=widths)
        compiled.mkdir()
        compile_model(source, compiled)
        model = engine.load(compiled)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(str(source), options)

        def plain_floats() -> Float32Array:
            made: Float32Array = session.run(None, {"input": visual, "audio": windows})[0]
            return made

        def plain_pixels() -> UInt8Array:
            made = session.run(None, {"input": _visual(crops), "audio": windows})[0]
            rounded: UInt8Array = np.rint(np.clip(made * np.float32(255), 0, 255)).astype(np.uint8)
            return np.ascontiguousarray(rounded.transpose(0, 2, 3, 1))

        return [
            compare(
                f"one frame, float32 in and out, {name}",
                lambda: engine.infer_float(model, visual, windows),
                plain_floats,
                rounds=rounds,
                label_a="engine, weights fed",
                label_b="plain ONNX Runtime",
            ),
            compare(
                f"one frame, pixels in and out, {name}",
                lambda: engine.infer(model, crops, windows),
                plain_pixels,
                rounds=rounds,
                label_a="engine, weights fed",
                label_b="plain ONNX Runtime",
            ),
        ]


def _visual(crops: UInt8Array) -> Float32Array:
    """(N, 320, 320, 3) uint8 -> (N, 6, 320, 320) float32 in [0, 1]: the crop, and it masked."""
    real = crops.transpose(0, 3, 1, 2)
    masked = real.copy()
    masked[:, :, MASK_ROWS, MASK_COLUMNS] = 0
    both: Float32Array = np.concatenate([real, masked], axis=1).astype(np.float32)
    return both / np.float32(255)
