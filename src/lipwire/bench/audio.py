"""What hearing speech in pieces costs against hearing it whole, and against the time it lasts."""

import dataclasses
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from lipwire.audio import (
    MEL_BANDS,
    ROW_COLUMNS,
    SAMPLES_PER_FRAME,
    AudioEncoder,
    MelStream,
    StreamResampler,
    WindowStream,
    extract_windows,
    mel_spectrogram,
)
from lipwire.bench.harness import Comparison, compare
from lipwire.domain import FPS, Float32Array

_SECONDS: Final = 4
_SOURCE_RATE_HZ: Final = 48_000

# (channels, kernel, strides, padding, residual): the encoder of
# https://github.com/ZiqiaoPeng/SyncTalk_2D, 180 MFLOP a row.
_LAYERS: Final = (
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


def run(rounds: int = 20, encoder: AudioEncoder | None = None) -> list[Comparison]:
    """Compare hearing speech in pieces of one video frame (40 ms) with hearing the same audio
    whole, in ``rounds`` rounds. Returns one result each for the mel spectrogram, for the audio
    windows (what a network gets for each frame), and for resampling from 48 to 16 kHz.

    ``encoder`` is the audio encoder; with None, one of the published size with random weights is
    used. Raises RuntimeError when pieces and whole do not give the same bits.
    """
    encoder = encoder or _published_encoder()
    source = audio_like_speech(_SECONDS * _SOURCE_RATE_HZ)
    pcm = _resample(source, len(source))
    jobs: dict[str, tuple[Callable[[], Float32Array], Callable[[], Float32Array]]] = {
        "mel spectrogram": (lambda: _stream_mel(pcm), lambda: mel_spectrogram(pcm)),
        "audio windows": (
            lambda: _stream_windows(pcm, encoder),
            lambda: extract_windows(pcm, encoder),
        ),
        "48 kHz to 16 kHz": (
            lambda: _resample(source, _SOURCE_RATE_HZ // FPS),
            lambda: _resample(source, len(source)),
        ),
    }
    results = []
    for name, (pieces, whole) in jobs.items():
        if not np.array_equal(pieces(), whole()):
            raise RuntimeError(f"{name}: pieces and whole differ")
        result = compare(
            name, pieces, whole, label_a="pieces of 40 ms", label_b="the whole", rounds=rounds
        )
        frame_ms = result.median_a_ms / (_SECONDS * FPS)
        notes = f"{frame_ms:.3f} ms a frame in pieces, {1000 / FPS / frame_ms:.0f} times real time"
        results.append(dataclasses.replace(result, notes=notes))
    return results


def audio_like_speech(samples: int) -> Float32Array:
    """Return ``samples`` (1 or more) samples that are like speech for measurements: noise in 12
    bursts with silence between them, (samples,) float32 in [-0.5, 0.5], always the same."""
    loudness = np.clip(np.sin(np.arange(samples) * (2 * np.pi * 12 / samples)), 0, 1)
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, samples)
    speech: Float32Array = (noise * loudness).astype(np.float32)
    return speech


def _stream_mel(pcm: Float32Array) -> Float32Array:
    stream = MelStream()
    return np.concatenate([*map(stream.push, _pieces(pcm, SAMPLES_PER_FRAME)), stream.flush()])


def _stream_windows(pcm: Float32Array, encoder: AudioEncoder) -> Float32Array:
    stream = WindowStream(encoder)
    return np.concatenate([*map(stream.push, _pieces(pcm, SAMPLES_PER_FRAME)), stream.flush()])


def _resample(pcm: Float32Array, step: int) -> Float32Array:
    resampler = StreamResampler(_SOURCE_RATE_HZ)
    return np.concatenate([*map(resampler.push, _pieces(pcm, step)), resampler.flush()])


def _pieces(pcm: Float32Array, step: int) -> list[Float32Array]:
    return [pcm[start : start + step] for start in range(0, len(pcm), step)]


def _published_encoder() -> AudioEncoder:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "audio_encoder.onnx"
        path.write_bytes(_published_model().SerializeToString())
        return AudioEncoder.open(path)


def _published_model() -> onnx.ModelProto:
    """The published layers, batch normalisation folded in, with random weights of fixed seed."""
    rng = np.random.default_rng(0)
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []
    value, channels = "mel", 1
    for index, (width, kernel, strides, padding, residual) in enumerate(_LAYERS):
        shape = (width, channels, kernel, kernel)
        scale = np.sqrt(2.0 / (channels * kernel * kernel))
        weight = (rng.standard_normal(shape) * scale).astype(np.float32)
        weights.append(numpy_helper.from_array(weight, f"weight{index}"))
        convolved = f"convolved{index}"
        nodes.append(
            helper.make_node(
                "Conv", [value, f"weight{index}"], [convolved], strides=strides, pads=[padding] * 4
            )
        )
        if residual:
            nodes.append(helper.make_node("Add", [convolved, value], [f"added{index}"]))
            convolved = f"added{index}"
        value, channels = f"active{index}", width
        nodes.append(helper.make_node("Relu", [convolved], [value]))
    nodes.append(helper.make_node("Flatten", [value], ["features"], axis=1))
    mel = helper.make_tensor_value_info("mel", TensorProto.FLOAT, ["n", 1, MEL_BANDS, ROW_COLUMNS])
    features = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", channels])
    graph = helper.make_graph(nodes, "audio_encoder", [mel], [features], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
