"""Speech-like sound and small encoders, made on the spot."""

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import set_external_data

from lipwire.audio import AudioEncoder
from lipwire.domain import Float32Array

RATE_HZ = 16_000


@cache
def speech_like(seconds: float, rate_hz: int = RATE_HZ, seed: int = 0) -> Float32Array:
    """(samples,) float32: vowels (a pulse train through three moving formants), hiss as of
    fricatives, pauses of true silence, and noise at -60 dB under some of it."""
    rng = np.random.default_rng(seed)
    count = int(seconds * rate_hz)
    time_s = np.arange(count) / rate_hz
    pitch_hz = 120 + 20 * np.sin(2 * np.pi * 0.7 * time_s)
    phase = 2 * np.pi * np.cumsum(pitch_hz) / rate_hz
    voiced = np.zeros(count)
    formants = [
        (centre_hz * (1 + 0.3 * np.sin(2 * np.pi * (1.1 + number) * time_s)), width_hz)
        for number, (centre_hz, width_hz) in enumerate([(500, 90), (1500, 140), (2600, 200)])
    ]
    for harmonic in range(1, 40):
        hz = harmonic * pitch_hz
        gain = np.zeros(count)
        for formant, (moving_hz, width_hz) in enumerate(formants):
            gain += 1 / (1 + ((hz - moving_hz) / width_hz) ** 2) / (1 + formant)
        voiced += np.where(hz < 0.45 * rate_hz, gain, 0) * np.sin(harmonic * phase)
    syllable = np.clip(np.sin(2 * np.pi * 2.3 * time_s), 0, 1)
    hiss = rng.standard_normal(count) * (np.sin(2 * np.pi * 0.9 * time_s + 2) > 0.8) * 0.1
    floor = rng.standard_normal(count) * 1e-3 * (time_s % 1.9 < 1.2)
    mixed: Float32Array = (0.15 * voiced * syllable + hiss + floor).astype(np.float32)
    limited = np.clip(mixed, np.float32(-0.95), np.float32(0.95))
    limited.flags.writeable = False  # everybody gets the same
    return limited


def save_encoder(
    path: Path,
    *,
    batch: int | str = "n",
    input_shape: Sequence[int | str] = (1, 80, 16),
    features: int = 512,
    output_rank: int = 2,
    names: tuple[str, str] = ("mel", "features"),
    inputs: int = 1,
    elem_type: int = TensorProto.FLOAT,
    scale: float = 1.0,
    rows_mix: bool = False,
    external: str | None = None,
) -> Path:
    """A two-layer network with fixed random weights: convolution over bands, then a matrix.

    With ``rows_mix`` a row also depends on the other rows of its batch, as no encoder should;
    with ``external`` the matrix is kept in that file, beside the model or wherever it points.
    """
    rng = np.random.default_rng(7)
    dtype = helper.tensor_dtype_to_np_dtype(elem_type)
    bands = 40  # of the 80, so that the bits of a row depend on all its columns
    flat = 4 * 2 * 16
    weights = {
        "conv": rng.standard_normal((4, 1, bands, 1)) * 0.1,
        "matrix": rng.standard_normal((flat, features)) * 0.1 * scale,
    }
    nodes = [
        helper.make_node("Conv", [names[0], "conv"], ["hidden"], strides=[bands, 1]),
        helper.make_node("Sub", ["hidden", "mean" if rows_mix else "zero"], ["centred"]),
        helper.make_node("Relu", ["centred"], ["active"]),
        helper.make_node("Flatten", ["active"], ["flat"], axis=1),
        helper.make_node(
            "MatMul", ["flat", "matrix"], ["product" if output_rank == 4 else names[1]]
        ),
    ]
    if rows_mix:
        nodes.insert(1, helper.make_node("ReduceMean", ["hidden"], ["mean"], axes=[0]))
    else:
        weights["zero"] = np.zeros(1)
    initializers = [numpy_helper.from_array(w.astype(dtype), n) for n, w in weights.items()]
    if output_rank == 4:
        initializers.append(numpy_helper.from_array(np.array([-1, features, 1, 1]), "shape"))
        nodes.append(helper.make_node("Reshape", ["product", "shape"], [names[1]]))
    sockets = [helper.make_tensor_value_info(names[0], elem_type, [batch, *input_shape])]
    sockets += [
        helper.make_tensor_value_info(f"extra{extra}", elem_type, [1]) for extra in range(1, inputs)
    ]
    result = helper.make_tensor_value_info(names[1], elem_type, None)
    graph = helper.make_graph(nodes, "encoder", sockets, [result], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    if external is not None:
        set_external_data(model.graph.initializer[1], external)
        (path.parent / external).write_bytes(model.graph.initializer[1].raw_data)
        model.graph.initializer[1].ClearField("raw_data")
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture(scope="session")
def speech() -> Float32Array:
    """6.3 s at 16 kHz."""
    return speech_like(6.3)


@pytest.fixture(scope="session")
def make_speech() -> Callable[..., Float32Array]:
    return speech_like


@pytest.fixture(scope="session")
def make_encoder() -> Callable[..., Path]:
    return save_encoder


@pytest.fixture(scope="session")
def encoder_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_encoder(tmp_path_factory.mktemp("encoder") / "encoder.onnx")


@pytest.fixture(scope="session")
def encoder(encoder_path: Path) -> AudioEncoder:
    return AudioEncoder.open(encoder_path)
