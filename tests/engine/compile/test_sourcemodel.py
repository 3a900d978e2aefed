"""What is refused before anything is run, each with one line that says what was seen."""

import contextlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from lipwire.bench.randomnetworks import write_tiny_unet
from lipwire.domain import AvatarInvalid, LipwireError, NotFound
from lipwire.engine.compile.sourcemodel import MAX_NODES, external_files, read_model


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    write_tiny_unet(path, seed=1)
    return path


def _refusal(path: Path, kind: type[LipwireError] = AvatarInvalid) -> str:
    with pytest.raises(kind) as caught:
        read_model(path)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 500
    assert str(path.parent) not in message
    return message


def _changed(path: Path, change: Any) -> Path:
    proto = onnx.load(path, load_external_data=False)
    change(proto)
    path.write_bytes(proto.SerializeToString())
    return path


def test_a_sound_network_is_read_whole(model: Path) -> None:
    source = read_model(model)
    assert source.opset == 17
    assert len(source.sha256) == 64
    assert source.sha256 == read_model(model).sha256


@pytest.mark.parametrize("data", [b"", b"\x00" * 64, b"not a network\n" * 99, b"\xff" * 4096])
def test_files_that_are_not_onnx(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    assert f"{len(data)} bytes" in _refusal(path)


@pytest.mark.slow
def test_files_cut_short_anywhere(model: Path) -> None:
    data = model.read_bytes()
    for kept in (1, 100, 5000, len(data) // 2, len(data) - 1):
        model.write_bytes(data[:kept])
        _refusal(model)


def test_a_missing_file_a_folder_and_a_pipe(tmp_path: Path) -> None:
    _refusal(tmp_path / "none.onnx", NotFound)
    assert "regular" in _refusal(tmp_path)
    os.mkfifo(tmp_path / "pipe.onnx")
    assert "regular" in _refusal(tmp_path / "pipe.onnx")


def test_a_file_too_large_is_refused_without_reading_it(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # sparse
    assert str(1 << 40) in _refusal(path)


def _custom(proto: onnx.ModelProto) -> None:
    proto.opset_import.append(helper.make_opsetid("evil\ndomain", 1))
    proto.graph.node[0].domain = "evil\ndomain"


def _functions(proto: onnx.ModelProto) -> None:
    node = helper.make_node("Relu", ["x"], ["y"])
    opset = helper.make_opsetid("", 17)
    proto.functions.append(helper.make_function("own", "f", ["x"], ["y"], [node], [opset]))


def _loop(proto: onnx.ModelProto) -> None:
    body = helper.make_graph([], "body", [], [])
    proto.graph.node.append(helper.make_node("Loop", [], ["z"], body=body))


def _deep(proto: onnx.ModelProto) -> None:
    graph = helper.make_graph([], "inner", [], [])
    for _ in range(12):
        node = helper.make_node("If", ["c"], [], then_branch=graph, else_branch=graph)
        graph = helper.make_graph([node], "outer", [], [])
        if len(graph.SerializeToString()) > 1 << 20:
            break
    proto.graph.node.extend(graph.node)


def _many(proto: onnx.ModelProto) -> None:
    proto.graph.node.extend([helper.make_node("Relu", ["x"], ["y"])] * (MAX_NODES + 1))


def _old(proto: onnx.ModelProto) -> None:
    proto.opset_import[0].version = 9


def _huge_shape(proto: onnx.ModelProto) -> None:
    del proto.graph.initializer[0].dims[:]
    proto.graph.initializer[0].dims.extend([1 << 40, 1 << 40])


def _negative_shape(proto: onnx.ModelProto) -> None:
    proto.graph.initializer[0].dims[0] = -3


def _other_shape(proto: onnx.ModelProto) -> None:
    proto.graph.initializer[0].dims[0] += 1


def _strings(proto: onnx.ModelProto) -> None:
    proto.graph.initializer.append(helper.make_tensor("s", TensorProto.STRING, [1], [b"x"]))


def _sparse(proto: onnx.ModelProto) -> None:
    proto.graph.sparse_initializer.add()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_custom, "evil"),
        (_functions, "own.f"),
        (_loop, "'Loop'"),
        (_deep, "deeper than 8"),
        (_many, "20000"),
        (_old, "opset 9"),
        (_huge_shape, str(1 << 40)),
        (_negative_shape, "-3"),
        (_other_shape, "their shape"),
        (_strings, "STRING"),
        (_sparse, "sparse"),
    ],
)
def test_what_a_network_may_not_hold(model: Path, change: Any, says: str) -> None:
    assert says in _refusal(_changed(model, change))


def _external(model: Path, location: str, **entries: int) -> Path:
    def change(proto: onnx.ModelProto) -> None:
        tensor = proto.graph.initializer[0]
        (model.parent / "weights.data").write_bytes(b"\0" * 64 + tensor.raw_data)
        fields = {"location": location, "offset": 64, "length": len(tensor.raw_data)} | entries
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in fields.items():
            tensor.external_data.add(key=key, value=str(value))

    return _changed(model, change)


def test_external_data_in_the_models_folder_is_taken_in(model: Path) -> None:
    wanted = numpy_helper.to_array(onnx.load(model).graph.initializer[0])
    before = read_model(model).sha256
    source = read_model(_external(model, "weights.data"))
    assert (numpy_helper.to_array(source.proto.graph.initializer[0]) == wanted).all()
    assert source.sha256 != before
    data = bytearray((model.parent / "weights.data").read_bytes())
    data[100] ^= 1
    (model.parent / "weights.data").write_bytes(data)
    assert read_model(model).sha256 != source.sha256


@pytest.mark.parametrize(
    "location",
    ["/etc/passwd", "../secret", "a/../../secret", "", "..\\secret", "x\0y", "link", "."],
)
def test_external_data_outside_the_folder_is_refused(model: Path, location: str) -> None:
    secret = model.parent.parent / "secret"
    secret.write_bytes(b"\0" * (1 << 20))
    (model.parent / "link").symlink_to(secret)
    (model.parent / "a").mkdir()
    assert "weights 'w" in _refusal(_external(model, location)) or location == "."


@pytest.mark.parametrize(
    ("location", "entries"),
    [
        ("none.data", {}),
        ("weights.data", {"offset": 65}),
        ("weights.data", {"offset": 1 << 70}),
        ("weights.data", {"offset": -1}),
        ("weights.data", {"length": 1 << 40}),
    ],
)
def test_external_data_that_is_missing_or_short(
    model: Path, location: str, entries: dict[str, int]
) -> None:
    _refusal(_external(model, location, **entries))


def test_random_damage_never_escapes_the_error_tree(model: Path) -> None:
    data = bytearray(model.read_bytes())
    random = np.random.default_rng(5)
    # The structure lies around the weights; most of the damage goes there.
    for _ in range(80):
        broken = bytearray(data)
        for place in random.integers(0, 6000, 3):
            broken[-int(place) if random.random() < 0.7 else int(place) % 300] = random.integers(
                256
            )
        model.write_bytes(broken)
        with contextlib.suppress(LipwireError):
            read_model(model)


def test_files_of_weights_are_known_without_reading_them(model: Path) -> None:
    assert external_files(model) == ()
    _external(model, "weights.data")
    (model.parent / "weights.data").unlink()
    assert external_files(model) == ("weights.data",)
    model.write_bytes(b"location" * 20)
    assert external_files(model) == ()
    assert external_files(model.parent / "gone.onnx") == ()
