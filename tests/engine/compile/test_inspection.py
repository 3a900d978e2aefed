"""Inputs and outputs are known by their shape."""

from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from lipwire.bench.randomnetworks import write_tiny_audio_encoder, write_tiny_unet
from lipwire.domain import AvatarInvalid
from lipwire.engine import inspect_model


def _changed(tmp_path: Path, change: Any, **options: Any) -> Path:
    path = tmp_path / "model.onnx"
    write_tiny_unet(path, seed=1, **options)
    proto = onnx.load(path)
    change(proto.graph)
    path.write_bytes(proto.SerializeToString())
    return path


def _dims(graph: onnx.GraphProto, place: int) -> Any:
    values = [*graph.input, *graph.output]
    return values[place].type.tensor_type.shape.dim


def test_names_batch_and_size_of_a_network(tmp_path: Path) -> None:
    info = inspect_model(_changed(tmp_path, lambda graph: None, prefix="a/"))
    assert (info.input_name, info.audio_name, info.output_name) == (
        "a/input",
        "a/audio",
        "a/output",
    )
    assert info.fixed_batch is None
    assert info.opset == 17
    assert info.element_types == ("float32",) * 3
    # 16 layers of 6x8x8, 16 of 32x16x16, 192 of 16 and 3 of 6 weights, and as many biases.
    assert info.parameters == 16 * 384 + 16 * 8192 + 192 * 16 + 18 + 16 + 16 + 192 + 3


def test_a_fixed_batch_is_found(tmp_path: Path) -> None:
    assert inspect_model(_changed(tmp_path, lambda graph: None, fixed_batch=24)).fixed_batch == 24


def test_weights_in_constant_nodes_are_counted(tmp_path: Path) -> None:
    plain = inspect_model(_changed(tmp_path, lambda graph: None)).parameters
    nodes = inspect_model(_changed(tmp_path, lambda graph: None, constant_nodes=True)).parameters
    assert nodes == plain


def test_weights_listed_among_the_inputs_are_not_inputs(tmp_path: Path) -> None:
    def list_them(graph: onnx.GraphProto) -> None:
        for tensor in graph.initializer:
            dims = list(tensor.dims)
            graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, dims))

    assert inspect_model(_changed(tmp_path, list_them)).input_name == "input"


def test_the_order_of_inputs_does_not_matter(tmp_path: Path) -> None:
    def swap(graph: onnx.GraphProto) -> None:
        inputs = list(graph.input)[::-1]
        del graph.input[:]
        graph.input.extend(inputs)

    assert inspect_model(_changed(tmp_path, swap)).audio_name == "audio"


def test_open_height_and_width_are_accepted(tmp_path: Path) -> None:
    def open_them(graph: onnx.GraphProto) -> None:
        for place in (0, 2):
            for dim in list(_dims(graph, place))[2:]:
                dim.dim_param = "pixels"

    assert inspect_model(_changed(tmp_path, open_them)).input_name == "input"


def _smaller(graph: onnx.GraphProto) -> None:
    _dims(graph, 0)[2].dim_value = 256


def _colourless(graph: onnx.GraphProto) -> None:
    _dims(graph, 2)[1].dim_value = 1


def _whole(graph: onnx.GraphProto) -> None:
    graph.input[0].type.tensor_type.elem_type = TensorProto.INT32


def _third(graph: onnx.GraphProto) -> None:
    graph.input.append(helper.make_tensor_value_info("third", TensorProto.FLOAT, [1]))


def _two_batches(graph: onnx.GraphProto) -> None:
    _dims(graph, 0)[0].dim_value = 24
    _dims(graph, 1)[0].dim_value = 1


def _zero_batch(graph: onnx.GraphProto) -> None:
    _dims(graph, 0)[0].dim_value = 0


def _shapeless(graph: onnx.GraphProto) -> None:
    graph.input[0].type.tensor_type.ClearField("shape")


def _bad_name(graph: onnx.GraphProto) -> None:
    graph.input.append(helper.make_tensor_value_info("line\nbreak" * 99, TensorProto.FLOAT, [1]))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_smaller, "6x256x320"),
        (_colourless, "x1x320x320"),
        (_whole, "INT32"),
        (_third, "'third'"),
        (_two_batches, "24x6x320x320"),
        (_zero_batch, "0x6x320x320"),
        (_shapeless, "shape"),
        (_bad_name, "line"),
    ],
)
def test_other_shapes_are_refused_with_what_was_seen(
    tmp_path: Path, change: Any, says: str
) -> None:
    with pytest.raises(AvatarInvalid) as caught:
        inspect_model(_changed(tmp_path, change))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_audio_encoder_is_not_an_avatars_network(tmp_path: Path) -> None:
    path = tmp_path / "audio.onnx"
    write_tiny_audio_encoder(path, 1)
    with pytest.raises(AvatarInvalid, match="1x80x16"):
        inspect_model(path)


def test_external_weights_are_found(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    write_tiny_unet(path, seed=1)
    proto = onnx.load(path)
    wanted = numpy_helper.to_array(proto.graph.initializer[0])
    onnx.save(proto, path, save_as_external_data=True, location="all.data", size_threshold=0)
    assert wanted.size > 0
    assert inspect_model(path).parameters == 140533
