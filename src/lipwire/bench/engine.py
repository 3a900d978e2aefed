"""The engine against plain ONNX Runtime on the same network, one thread, one frame at a time.

Three questions: what feeding the weights to a shared graph costs (the guide's form on both sides);
what a frame costs from the avatar's pixels to the mouth's pixels, where the plain way scales, masks
and rounds with NumPy; and what it costs specialised, in bfloat16, where the processor computes
that. The last is in processor time, and of the demo avatar's network, too.
"""

import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime

from lipwire.avatars import find_avatar
from lipwire.bench.harness import Comparison, compare
from lipwire.bench.randomnetworks import FULL_WIDTHS, MOBILE_WIDTHS, write_unet
from lipwire.domain import MASK_COLUMNS, MASK_ROWS, Float32Array, UInt8Array
from lipwire.engine import Engine, compile_model
from lipwire.engine.compile.inspection import describe
from lipwire.engine.compile.sourcemodel import read_model
from lipwire.engine.compile.wrapping import wrap
from lipwire.engine.forms import FACE, SPEECH
from lipwire.engine.special.openvino import SpecialisedNetwork, specialise, why_not


def run(rounds: int = 15) -> list[Comparison]:
    """Compare Lipwire's engine with plain ONNX Runtime, one frame at a time in one thread, in
    ``rounds`` rounds; takes about a minute on one core.

    Returns two results for each of two networks with random weights, of mobile and of published
    widths: with float32 arrays in and out, and with pixels in and out. Where this processor
    computes bfloat16, a third result for each, and for the demo avatar's network, compares the
    processor time of a network specialised in bfloat16, with pixels in and out.
    """
    with tempfile.TemporaryDirectory(prefix="lipwire-bench-") as folder:
        sources = {
            "mobile widths": Path(folder, "mobile"),
            "published widths": Path(folder, "full"),
        }
        for source, widths in zip(sources.values(), (MOBILE_WIDTHS, FULL_WIDTHS), strict=True):
            write_unet(source, seed=0, widths=widths)
        compared = [
            comparison
            for name, source in sources.items()
            for comparison in _compare_at(name, source, rounds)
        ]
        if why_not() is None:
            demo = find_avatar("demo") / "checkpoint" / "model_best.onnx"
            compared += (
                _compare_special(name, source, rounds)
                for name, source in {"the demo avatar": demo, **sources}.items()
            )
        return compared


def _compare_at(name: str, source: Path, rounds: int) -> list[Comparison]:
    random = np.random.default_rng(0)
    crops = random.integers(0, 256, (1, 320, 320, 3), np.uint8)
    windows = random.standard_normal((1, 32, 16, 16), np.float32)
    visual = _visual(crops)
    with (
        tempfile.TemporaryDirectory(prefix="lipwire-bench-") as folder,
        Engine(threads=1) as engine,
    ):
        compiled = Path(folder)
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


def _compare_special(name: str, source: Path, rounds: int) -> Comparison:
    """Whether the mouths are as good is not asked here: these networks have never learned any, but
    for the demo avatar's."""
    random = np.random.default_rng(0)
    crops = random.integers(0, 256, (1, 320, 320, 3), np.uint8)
    windows = random.standard_normal((1, 32, 16, 16), np.float32)
    mouths = np.empty_like(crops)
    read = read_model(source)
    info = describe(read, source.name)
    model = wrap(read.proto, info, "pixels", 1).SerializeToString()
    special = SpecialisedNetwork(specialise(model, 1), 1)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options)
    return compare(
        f"one frame, pixels in and out, specialised, {name}",
        lambda: special.run(crops, windows, mouths),
        lambda: session.run(None, {FACE: crops, SPEECH: windows}),
        rounds=rounds,
        label_a="OpenVINO, bfloat16",
        label_b="plain ONNX Runtime",
        notes="processor time",
        clock_s=time.process_time,
    )


def _visual(crops: UInt8Array) -> Float32Array:
    """(N, 320, 320, 3) uint8 -> (N, 6, 320, 320) float32 in [0, 1]: the crop, and it masked."""
    real = crops.transpose(0, 3, 1, 2)
    masked = real.copy()
    masked[:, :, MASK_ROWS, MASK_COLUMNS] = 0
    both: Float32Array = np.concatenate([real, masked], axis=1).astype(np.float32)
    return both / np.float32(255)
