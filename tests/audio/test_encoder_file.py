from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from lipwire.audio import AudioEncoder
from lipwire.audio.encoder_file import MAX_GRAPH_DEPTH, MAX_NODES, read_encoder_file
from lipwire.domain import AvatarInvalid

MakeEncoder = Callable[..., Path]


def refusal(path: Path) -> str:
    with pytest.raises(AvatarInvalid) as caught:
        AudioEncoder.open(path)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    assert "missing or not a file" in refusal(tmp_path / "none.onnx")
    assert "missing or not a file" in refusal(tmp_path)


@pytest.mark.parametrize("content", [b"", b"hello, world\n" * 40, b"\x08\x07", b"\0" * 1000])
def test_other_files_are_no_models(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "e.onnx"
    path.write_bytes(content)
    message = refusal(path)
    assert "no ONNX model" in message or "0 bytes" in message


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_truncated_model_is_refused(encoder_path: Path, tmp_path: Path, share: float) -> None:
    path = tmp_path / "e.onnx"
    data = encoder_path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    assert str(path) in refusal(path)


def test_an_unknown_operator_is_refused(tmp_path: Path) -> None:
    mel = helper.make_tensor_value_info("mel", TensorProto.FLOAT, ["n", 1, 80, 16])
    node = helper.make_node("Teleport", ["mel"], ["out"])
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, None)
    model = helper.make_model(helper.make_graph([node], "g", [mel], [out]), ir_version=9)
    path = tmp_path / "e.onnx"
    path.write_bytes(model.SerializeToString())
    assert "does not run" in refusal(path)


@pytest.mark.parametrize(("kind", "told"), [(11, "double"), (57, "57, which is none")])
def test_an_input_of_another_type_is_refused(
    encoder_path: Path, tmp_path: Path, kind: int, told: str
) -> None:
    model = onnx.load(encoder_path)
    model.graph.input[0].type.tensor_type.elem_type = kind
    path = tmp_path / "e.onnx"
    path.write_bytes(model.SerializeToString())
    assert f"of type {told}; allowed: one input" in refusal(path)


def test_weights_beside_the_model_are_used(
    tmp_path: Path, make_encoder: MakeEncoder, encoder: AudioEncoder
) -> None:
    path = make_encoder(tmp_path / "e.onnx", external="weights.bin")
    mels = np.ones((3, 1, 80, 16), np.float32)
    np.testing.assert_array_equal(AudioEncoder.open(path).encode(mels), encoder.encode(mels))


def test_weights_outside_the_folder_are_refused(tmp_path: Path, make_encoder: MakeEncoder) -> None:
    (folder := tmp_path / "model").mkdir()
    path = make_encoder(folder / "e.onnx", external="../weights.bin")
    assert "'../weights.bin'; allowed: files inside the model's folder" in refusal(path)
    path = make_encoder(folder / "f.onnx", external=str(tmp_path / "weights.bin"))
    assert "allowed: files inside the model's folder" in refusal(path)


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path, make_encoder: MakeEncoder) -> None:
    (folder := tmp_path / "model").mkdir()
    (folder / "weights.bin").symlink_to(tmp_path / "elsewhere.bin")
    path = make_encoder(folder / "e.onnx", external="weights.bin")
    assert "'weights.bin', a link that leads out of the model's folder" in refusal(path)


def test_missing_weights_are_named(tmp_path: Path, make_encoder: MakeEncoder) -> None:
    path = make_encoder(tmp_path / "e.onnx", external="weights.bin")
    (tmp_path / "weights.bin").unlink()
    assert "'weights.bin', which is missing" in refusal(path)


def test_weights_outside_are_found_in_nested_graphs(tmp_path: Path) -> None:
    """A branch of an If node is a graph of its own."""
    tensor = onnx.TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")
    constant = helper.make_node("Constant", [], ["w"], value=tensor)
    out = helper.make_tensor_value_info("w", TensorProto.FLOAT, None)
    branch = helper.make_graph([constant], "branch", [], [out])
    node = helper.make_node("If", ["c"], ["out"], then_branch=branch, else_branch=branch)
    model = helper.make_model(helper.make_graph([node], "g", [], []), ir_version=9)
    path = tmp_path / "e.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(AvatarInvalid, match=r"'\.\./\.\./etc/passwd'; allowed"):
        read_encoder_file(path)


def _write_layers(path: Path, *nodes: onnx.NodeProto, functions: bool = False) -> Path:
    mel = helper.make_tensor_value_info("mel", TensorProto.FLOAT, ["n", 1, 80, 16])
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, None)
    model = helper.make_model(helper.make_graph(nodes, "g", [mel], [out]), ir_version=9)
    if functions:
        model.functions.add(name="f", domain="d")
    path.write_bytes(model.SerializeToString())
    return path


def _nested(depth: int) -> onnx.NodeProto:
    node = helper.make_node("Identity", ["mel"], ["out"])
    for _ in range(depth):
        branch = helper.make_graph([node], "branch", [], [])
        node = helper.make_node("If", ["c"], ["out"], then_branch=branch, else_branch=branch)
    return node


def test_loops_which_may_have_no_end_are_refused(tmp_path: Path) -> None:
    for name in ("Loop", "Scan", "SequenceMap"):
        inner = helper.make_graph([helper.make_node(name, ["mel"], ["out"])], "branch", [], [])
        outer = helper.make_node("If", ["c"], ["out"], then_branch=inner, else_branch=inner)
        for node in (inner.node[0], outer):
            path = _write_layers(tmp_path / "e.onnx", node)
            assert f"has the operator {name}; allowed: no loops" in refusal(path)


def test_operators_of_others_and_functions_are_refused(tmp_path: Path) -> None:
    node = helper.make_node("Run", ["mel"], ["out"], domain="com.example")
    path = _write_layers(tmp_path / "e.onnx", node)
    assert "'Run' of domain 'com.example'; allowed: those of ai.onnx" in refusal(path)
    sound = helper.make_node("Identity", ["mel"], ["out"])
    assert "has functions" in refusal(_write_layers(tmp_path / "e.onnx", sound, functions=True))


def test_a_network_has_so_many_layers_and_levels(tmp_path: Path) -> None:
    sound = helper.make_node("Identity", ["mel"], ["out"])
    path = _write_layers(tmp_path / "e.onnx", *[sound] * (MAX_NODES + 1))
    assert f"allowed: {MAX_NODES}" in refusal(path)
    path = _write_layers(tmp_path / "e.onnx", _nested(MAX_GRAPH_DEPTH + 1))
    assert f"nested deeper than {MAX_GRAPH_DEPTH} levels" in refusal(path)
