"""Networks of the neighbourhood are named as what they are, by whoever opens them."""

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from lipwire.domain import AvatarInvalid
from lipwire.engine import compile_model, inspect_model

Shape = tuple[int | str, ...]
SERVED = "; served are 'ave' features 32x16x16"


def network(path: Path, crops: Shape, speech: Shape | None, mouth: Shape) -> Path:
    def value(name: str, shape: Shape) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", *shape])

    inputs = [value("input", crops)] + ([value("audio", speech)] if speech else [])
    node = helper.make_node("Relu", ["input"], ["output"])
    graph = helper.make_graph([node], "g", inputs, [value("output", mouth)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize(
    ("crops", "speech", "told"),
    [
        (
            (6, 320, 320),
            (32, 32, 32),
            "; its audio input is (N, 32, 32, 32): that is the family's hubert variant" + SERVED,
        ),
        ((6, 320, 320), (16, 32, 32), "(N, 16, 32, 32): that is the family's hubert variant"),
        ((6, 320, 320), (16, 1024), "(N, 16, 1024): that is the family's hubert variant"),
        ((6, 320, 320), ("T", 1024), "(N, T, 1024): that is the family's hubert variant"),
        ((6, 320, 320), (256, 16, 32), "(N, 256, 16, 32): that is the family's wenet variant"),
        ((6, 320, 320), (128, 16, 32), "(N, 128, 16, 32): that is the family's wenet variant"),
        ((6, 320, 320), (16, 512), "(N, 16, 512): that is 'ave' features in another shape"),
        ((6, 320, 320), (16, 29), "(N, 16, 29): that is DeepSpeech's features"),
        (
            (6, 160, 160),
            (32, 16, 16),
            "; its crops are (N, 6, 160, 160): that is a network of 160 pixels as"
            " Ultralight-Digital-Human's; served are networks of 320 pixels; wanted is",
        ),
        ((6, 256, 256), (32, 16, 16), "(N, 6, 256, 256): that is a network of 256 pixels; served"),
        ((6, 96, 96), (1, 80, 16), "a network of 96 pixels as Wav2Lip's"),
        ((6, 96, 96), (1, 80, 16), "that is a mel spectrogram, as Wav2Lip hears it"),
        ((6, 160, 160), (32, 32, 32), "a network of 160 pixels"),
        ((6, 160, 160), (32, 32, 32), "the family's hubert variant"),
        ((320, 320, 6), (32, 16, 16), "(N, 320, 320, 6): the channels have to come first"),
        ((8, 32, 32), (50, 384), "that is Whisper's features, as MuseTalk hears them"),
        ((1, 80, 16), None, "that is an audio encoder, which belongs to checkpoint/audio_encoder"),
    ],
)
def test_a_network_of_another_kind_is_named(
    tmp_path: Path, crops: Shape, speech: Shape | None, told: str
) -> None:
    path = network(tmp_path / "model.onnx", crops, speech, (3, *crops[1:]))
    (tmp_path / "compiled").mkdir()
    messages = []
    for look in (lambda: inspect_model(path), lambda: compile_model(path, tmp_path / "compiled")):
        with pytest.raises(AvatarInvalid) as caught:
            look()
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
    assert told in messages[0]
    assert "wanted is Nx6x320x320 (the crops) and Nx32x16x16 (the speech) in" in messages[0]
    assert "\n" not in messages[0]


def test_what_is_not_known_is_not_named(tmp_path: Path) -> None:
    path = network(tmp_path / "model.onnx", (7, 11), (5,), (7, 11))
    with pytest.raises(AvatarInvalid) as caught:
        inspect_model(path)
    assert "that is" not in str(caught.value)
