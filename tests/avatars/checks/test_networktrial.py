"""What is wrong with a network's answers is seen, and a sound one is left alone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from lipwire.avatars import validate_package
from lipwire.avatars.checks import networktrial
from lipwire.bench.randomnetworks import write_tiny_unet

Nodes = list[tuple[str, list[str | float], dict[str, Any]]]
"""Operator, inputs (numbers are constants; x is what the network made), attributes."""


def ending_in(package: Path, nodes: Nodes, **options: Any) -> None:
    """Give the package a network that ends in ``nodes``, each taking what the last one made as
    x."""
    path = package / "checkpoint" / "model_best.onnx"
    write_tiny_unet(path, seed=5, **options)
    proto = onnx.load(path)
    graph = proto.graph
    last = "made"
    for node in graph.node:
        node.output[:] = [last if name == "output" else name for name in node.output]
    for number, (operator, inputs, attributes) in enumerate(nodes):
        names = []
        for place, name in enumerate(inputs):
            if isinstance(name, float):
                constant = numpy_helper.from_array(np.float32(name), f"c{number}_{place}")
                graph.initializer.append(constant)
                names.append(constant.name)
            else:
                names.append(last if name == "x" else name)
        last = f"x{number}" if number < len(nodes) - 1 else "output"
        graph.node.append(helper.make_node(operator, names, [last], **attributes))
    path.write_bytes(proto.SerializeToString())


def told(package: Path) -> list[tuple[str, str]]:
    return [(problem.severity, problem.message) for problem in validate_package(package)]


IDENTITY: Nodes = [("Identity", ["x"], {})]


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["sigmoid", "clip"])
@pytest.mark.parametrize("fixed_batch", [None, 3, 1])
def test_a_sound_network_has_nothing_wrong(
    avatar_package: Path, ending: str, fixed_batch: int | None
) -> None:
    ending_in(avatar_package, IDENTITY, ending=ending, fixed_batch=fixed_batch)
    assert told(avatar_package) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([("Mul", ["x", 255.0], {})], "seems to answer in 0 to 255, which its last layer has to"),
        (
            [("Mul", ["x", 255.0], {}), ("Round", ["x"], {})],
            "for the first frame, allowed is 0 to 1: it seems to answer in 0 to 255",
        ),
        (
            [("Mul", ["x", 2.0], {}), ("Sub", ["x", 1.0], {})],
            "for the first frame, allowed is 0 to 1: it seems to answer in -1 to 1, of which",
        ),
        (
            [("Mul", ["x", 0.2], {}), ("Sub", ["x", 0.1], {})],
            "for the first frame, allowed is 0 to 1: it seems to answer in -1 to 1, of which",
        ),
        ([("Mul", ["x", -30.0], {})], "for the first frame, allowed is 0 to 1"),
        ([("Mul", ["x", 0.0], {}), ("Add", ["x", 0.5], {})], "answers one colour for the first"),
        ([("Mul", ["x", 0.0], {})], "answers one colour for the first frame (0 on average)"),
        (
            [("Sub", ["x", 0.7], {}), ("Log", ["x"], {}), ("Clip", ["x", 0.0, 1.0], {})],
            "answers NaN or infinity for the first frame (",
        ),
    ],
)
@pytest.mark.parametrize("settings", ["", "crop_border: 0\ncolour_order: rgb\n"])
def test_answers_that_are_no_pictures_are_errors(
    avatar_package: Path, nodes: Nodes, message: str, settings: str
) -> None:
    (avatar_package / "avatar.yaml").write_text(settings)
    ending_in(avatar_package, nodes)
    ((severity, line),) = told(avatar_package)
    assert severity == "error"
    assert line.startswith("model_best.onnx: answers ")
    assert message in line
    assert "\n" not in line


def test_in_half_precision_too(avatar_package: Path) -> None:
    ending_in(avatar_package, [("Mul", ["x", 255.0], {})])
    path = avatar_package / "checkpoint" / "model_best.onnx"
    proto = onnx.load(path)
    for tensor in proto.graph.initializer:
        half = numpy_helper.to_array(tensor).astype(np.float16)
        tensor.CopyFrom(numpy_helper.from_array(half, tensor.name))
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    path.write_bytes(proto.SerializeToString())
    ((_, line),) = told(avatar_package)
    assert "it seems to answer in 0 to 255" in line


@pytest.mark.slow
@pytest.mark.parametrize("encoder", [True, False])
def test_a_network_that_does_not_listen_is_a_warning(avatar_package: Path, encoder: bool) -> None:
    if not encoder:
        (avatar_package / "checkpoint" / "audio_encoder.onnx").unlink()
    ending_in(avatar_package, IDENTITY)
    path = avatar_package / "checkpoint" / "model_best.onnx"
    proto = onnx.load(path)
    (heard,) = (node for node in proto.graph.node if "audio" in node.input)
    for tensor in proto.graph.initializer:
        if tensor.name == heard.input[1]:
            silent = np.zeros(tensor.dims, np.float32)
            tensor.CopyFrom(numpy_helper.from_array(silent, tensor.name))
    path.write_bytes(proto.SerializeToString())
    warning = (
        "model_best.onnx: answers the same for silence and for speech: the mouth will not move"
    )
    assert told(avatar_package)[-1] == ("warning", warning)
    assert len(told(avatar_package)) == (1 if encoder else 2)


def spoilt_encoder(package: Path, nodes: list[onnx.NodeProto]) -> None:
    """Give the package an audio encoder whose output ``made`` goes through ``nodes``."""
    path = package / "checkpoint" / "audio_encoder.onnx"
    proto = onnx.load(path)
    for node in proto.graph.node:
        node.output[:] = ["made" if name == "features" else name for name in node.output]
    proto.graph.node.extend(nodes)
    path.write_bytes(proto.SerializeToString())


def test_an_encoder_that_does_not_listen_is_a_warning(avatar_package: Path) -> None:
    nodes = [helper.make_node("Sub", ["made", "made"], ["features"])]
    spoilt_encoder(avatar_package, nodes)
    warning = "the audio encoder gives the same for silence and for speech"
    assert told(avatar_package) == [("warning", warning)]


def test_an_encoder_that_gives_nan_for_speech_is_an_error(avatar_package: Path) -> None:
    """For silence, with which it is opened, all is well."""
    silence = np.full((1, 1, 80, 16), -4, np.float32)
    path = avatar_package / "checkpoint" / "audio_encoder.onnx"
    (quiet,) = ort.InferenceSession(path.read_bytes()).run(None, {"mel": silence})
    proto = onnx.load(path)
    proto.graph.initializer.append(numpy_helper.from_array(quiet, "quiet"))
    path.write_bytes(proto.SerializeToString())
    nodes = [
        helper.make_node("Sub", ["made", "quiet"], ["moved"]),
        helper.make_node("Abs", ["moved"], ["much"]),
        helper.make_node("Neg", ["much"], ["below"]),
        helper.make_node("Sqrt", ["below"], ["features"]),
    ]
    spoilt_encoder(avatar_package, nodes)
    error = "the audio encoder gives NaN or infinity for speech, allowed are numbers"
    assert told(avatar_package) == [("error", error)]


def test_single_values_beyond_the_range_are_usual(avatar_package: Path) -> None:
    """A network without a bound at its end goes beyond it where the picture is white or black."""
    nodes: Nodes = [("Mul", ["x", 1.08], {}), ("Sub", ["x", 0.04], {})]
    ending_in(avatar_package, nodes)
    assert told(avatar_package) == []


def test_a_network_that_fails_when_it_runs(avatar_package: Path) -> None:
    shape = helper.make_tensor("s", TensorProto.INT64, [4], [7, 3, 320, 320])
    ending_in(avatar_package, [("Reshape", ["x", "s"], {})])
    path = avatar_package / "checkpoint" / "model_best.onnx"
    proto = onnx.load(path)
    proto.graph.initializer.append(shape)
    path.write_bytes(proto.SerializeToString())
    ((severity, line),) = told(avatar_package)
    assert severity == "error"
    assert line.startswith("model_best.onnx: ")


@pytest.fixture
def heavy_package(avatar_package: Path) -> Path:
    """With a network that takes several seconds for a frame."""
    layers, channels = 20, 64
    random = np.random.default_rng(0)
    weights = {
        "heavy0": (channels, 3, 3, 3),
        "heavy": (channels, channels, 3, 3),
        "heavy1": (3, channels, 1, 1),
    }
    nodes: Nodes = [("Conv", ["x", "heavy0"], {"pads": [1, 1, 1, 1]})]
    nodes += [("Conv", ["x", "heavy"], {"pads": [1, 1, 1, 1]})] * layers
    nodes += [("Conv", ["x", "heavy1"], {}), ("Sigmoid", ["x"], {})]
    ending_in(avatar_package, nodes)
    path = avatar_package / "checkpoint" / "model_best.onnx"
    proto = onnx.load(path)
    for name, dims in weights.items():
        values = random.standard_normal(dims, np.float32) / np.sqrt(np.prod(dims[1:]))
        proto.graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), name))
    path.write_bytes(proto.SerializeToString())
    return avatar_package


@pytest.mark.slow
def test_a_network_that_takes_too_long_is_ended(
    heavy_package: Path, monkeypatch: pytest.MonkeyPatch, own_threads: Callable[[], list[str]]
) -> None:
    monkeypatch.setattr(networktrial, "_LIMIT_S", 0.2)
    said: list[str] = []
    problems = validate_package(heavy_package, progress=lambda *step: said.append(step[2]))
    assert [(each.severity, each.message) for each in problems] == [
        (
            "warning",
            "model_best.onnx: one frame takes more than 0.2 s; what it answers was not looked at",
        )
    ]
    assert "trying the network" in said
    assert own_threads() == []


@pytest.mark.slow
def test_whoever_loses_patience_gets_away(
    heavy_package: Path, own_threads: Callable[[], list[str]]
) -> None:
    def interrupted(done: int, total: int, what: str) -> None:
        if what == "trying the network":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        validate_package(heavy_package, progress=interrupted)
    assert own_threads() == []
