from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto

from lipwire.audio import AudioEncoder
from lipwire.domain import AvatarInvalid, Float32Array, InvalidInput

MakeEncoder = Callable[..., Path]


def mel_rows(count: int) -> Float32Array:
    """(count, 1, 80, 16) float32 in [-4, 4]."""
    return np.random.default_rng(count).uniform(-4, 4, (count, 1, 80, 16)).astype(np.float32)


@pytest.mark.parametrize("count", [0, 1, 2, 15, 16, 17, 40])
def test_rows_are_those_of_a_plain_session(
    encoder: AudioEncoder, encoder_path: Path, count: int
) -> None:
    session = ort.InferenceSession(encoder_path, providers=["CPUExecutionProvider"])
    mels = mel_rows(count)
    features = encoder.encode(mels)
    assert features.dtype == np.float32
    assert features.shape == (count, 512)
    for row, mel in zip(features, mels, strict=True):
        np.testing.assert_array_equal(row, session.run(None, {"mel": mel[None]})[0][0])


@pytest.mark.parametrize("batch", ["n", 1, 3, 16])
@pytest.mark.parametrize("output_rank", [2, 4])
def test_any_names_and_batches_give_the_same_features(
    tmp_path: Path, make_encoder: MakeEncoder, encoder: AudioEncoder, batch: Any, output_rank: int
) -> None:
    path = make_encoder(
        tmp_path / "e.onnx", batch=batch, output_rank=output_rank, names=("input.1", "197")
    )
    mels = mel_rows(20)
    np.testing.assert_allclose(
        AudioEncoder.open(path).encode(mels), encoder.encode(mels), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    "options", [{}, {"batch": 5}, {"rows_mix": True}, {"rows_mix": True, "batch": 5}]
)
def test_a_row_has_the_same_bits_in_every_company(
    tmp_path: Path, make_encoder: MakeEncoder, options: dict[str, Any], threads: int
) -> None:
    """Also for a network that mixes the rows of a batch: it is then given one row at a time."""
    encoder = AudioEncoder.open(make_encoder(tmp_path / "e.onnx", **options), threads)
    mels = mel_rows(37)
    alone = np.concatenate([encoder.encode(mels[index : index + 1]) for index in range(37)])
    for start, stop in [(0, 37), (1, 37), (3, 9), (5, 21), (20, 37)]:
        np.testing.assert_array_equal(encoder.encode(mels[start:stop]), alone[start:stop])


def test_threads_may_share_an_encoder(encoder_path: Path) -> None:
    encoder = AudioEncoder.open(encoder_path)
    mels = mel_rows(48)
    expected = AudioEncoder.open(encoder_path).encode(mels)
    with ThreadPoolExecutor(4) as pool:
        for features in pool.map(encoder.encode, [mels] * 12):
            np.testing.assert_array_equal(features, expected)


def test_strided_rows_are_taken_as_they_look(encoder: AudioEncoder) -> None:
    mels = mel_rows(8)
    turned = np.ascontiguousarray(mels.transpose(0, 1, 3, 2)).transpose(0, 1, 3, 2)
    np.testing.assert_array_equal(encoder.encode(turned), encoder.encode(mels))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_shape": (1, 60, 16)}, r"input mel \(N, 1, 60, 16\) of type float; allowed"),
        ({"input_shape": (80, 16)}, r"input mel \(N, 80, 16\)"),
        ({"inputs": 2}, r"2 inputs; allowed: one input \(N, 1, 80, 16\) float32"),
        ({"elem_type": TensorProto.DOUBLE}, "of type double; allowed"),
        ({"features": 256}, r"features \(1, 256\) float32; allowed: \(N, 512\)"),
        ({"batch": 1000}, "fixed batch of 1000; allowed: 1 to 256"),
        ({"input_shape": (1, "h", "w"), "features": 300}, r"outputs features \(1, 300\)"),
        ({"scale": float("nan")}, "NaN or infinity for silence"),
    ],
)
def test_other_networks_are_refused_with_what_they_are(
    tmp_path: Path, make_encoder: MakeEncoder, options: dict[str, Any], message: str
) -> None:
    path = make_encoder(tmp_path / "e.onnx", **options)
    with pytest.raises(AvatarInvalid, match=message) as caught:
        AudioEncoder.open(path)
    assert "\n" not in str(caught.value)


def test_free_sides_are_accepted_where_the_network_takes_the_family_s(
    tmp_path: Path, make_encoder: MakeEncoder
) -> None:
    path = make_encoder(tmp_path / "e.onnx", input_shape=("c", "h", "w"))
    assert AudioEncoder.open(path).encode(mel_rows(2)).shape == (2, 512)


@pytest.mark.parametrize(
    ("mels", "seen"),
    [
        (np.zeros((2, 80, 16), np.float32), r"\(2, 80, 16\)"),
        (np.zeros((2, 1, 16, 80), np.float32), r"\(2, 1, 16, 80\)"),
        (np.zeros((2, 1, 80, 16)), "float64"),
    ],
)
def test_other_rows_are_refused(encoder: AudioEncoder, mels: Float32Array, seen: str) -> None:
    with pytest.raises(InvalidInput, match=f"{seen}.*allowed: \\(N, 1, 80, 16\\) float32"):
        encoder.encode(mels)


def test_no_threads_are_refused(encoder_path: Path) -> None:
    with pytest.raises(InvalidInput, match="0 threads"):
        AudioEncoder.open(encoder_path, threads=0)
