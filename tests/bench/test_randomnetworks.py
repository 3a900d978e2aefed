"""The stand-in networks have the guide's shapes, and their outputs depend on everything."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from lipwire.bench.randomnetworks import (
    FULL_WIDTHS,
    MOBILE_WIDTHS,
    write_tiny_audio_encoder,
    write_tiny_unet,
    write_unet,
)


def _run(path: Path, *arrays: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(path.read_bytes())
    names = [value.name for value in session.get_inputs()]
    made: np.ndarray = session.run(None, dict(zip(names, arrays, strict=True)))[0]
    return made


@pytest.mark.slow
@pytest.mark.parametrize(("widths", "parameters"), [(FULL_WIDTHS, 12.15), (MOBILE_WIDTHS, 3.08)])
def test_the_unet_has_the_published_size(
    tmp_path: Path, widths: tuple[int, int, int, int, int], parameters: float
) -> None:
    write_unet(tmp_path / "unet.onnx", seed=0, widths=widths)
    graph = onnx.load(tmp_path / "unet.onnx").graph
    count = sum(int(np.prod(tensor.dims)) for tensor in graph.initializer)
    assert count / 1e6 == pytest.approx(parameters, abs=0.01)


@pytest.mark.slow
def test_outputs_depend_on_both_inputs_and_the_seed(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    face = random.random((2, 6, 320, 320), np.float32)
    speech = random.standard_normal((2, 32, 16, 16), np.float32)
    small = (2, 4, 8, 16, 32)
    for write in (write_tiny_unet, lambda p, seed: write_unet(p, seed=seed, widths=small)):
        path = tmp_path / "unet.onnx"
        write(path, seed=1)
        made = _run(path, face, speech)
        assert made.shape == (2, 3, 320, 320)
        assert 0 <= made.min() < made.max() <= 1
        assert (_run(path, 1 - face, speech) != made).any()
        assert (_run(path, face, -speech) != made).any()
        assert (_run(path, face, speech) == made).all()
        write(path, seed=2)
        assert (_run(path, face, speech) != made).any()


def test_an_encoders_row_does_not_depend_on_its_batch(tmp_path: Path) -> None:
    write_tiny_audio_encoder(tmp_path / "audio.onnx", 1)
    mels = np.random.default_rng(0).standard_normal((5, 1, 80, 16), np.float32)
    together = _run(tmp_path / "audio.onnx", mels)
    assert together.shape == (5, 512)
    for row in range(5):
        assert (_run(tmp_path / "audio.onnx", mels[row : row + 1]) == together[row]).all()
