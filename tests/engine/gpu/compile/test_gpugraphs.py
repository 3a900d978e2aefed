"""What a compiled model holds for GPUs, looked at on the processor."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from tests.support.compilednetworks import gpu_folder

from lipwire.bench.randomnetworks import MOBILE_WIDTHS, write_tiny_unet, write_unet
from lipwire.domain import AvatarInvalid, NotFound, StorageFailed
from lipwire.engine import compile_for_gpu, compile_model
from lipwire.engine.gpu.compile import gpucompilation, gpugraphs
from lipwire.engine.gpu.store.gpufiles import (
    GpuManifest,
    ImageFile,
    read_gpu_graph,
    read_gpu_manifest,
)
from lipwire.engine.store.modelfiles import read_manifest


def _manifest(folder: Path) -> GpuManifest:
    return read_gpu_manifest(gpu_folder(folder))


def _feeds(folder: Path, precision: Any, form: Any) -> tuple[bytes, dict[str, Any]]:
    """A graph and the weights of its image."""
    model = _manifest(folder).models[precision]
    folder = gpu_folder(folder)
    image = np.full(model.image_bytes, 0xFF, np.uint8)
    ImageFile(folder, model).write(image)
    graph = model.graphs[form]
    feeds = {}
    for weight in graph.weights:
        dtype = np.dtype(weight.element_type)
        end = weight.offset_bytes + int(np.prod(weight.shape)) * dtype.itemsize
        feeds[weight.name] = image[weight.offset_bytes : end].view(dtype).reshape(weight.shape)
    return read_gpu_graph(folder, graph), feeds


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["half", "single"])
def test_the_graphs_make_the_networks_mouths(
    pair: Any, oracle: Any, make_inputs: Any, precision: str
) -> None:
    inputs = make_inputs(2)
    for source, folder in zip(pair.sources, pair.folders, strict=True):
        plain = oracle(source)
        graph, feeds = _feeds(folder, precision, "pixels")
        session = onnxruntime.InferenceSession(graph)
        made = session.run(["mouth"], {"face": inputs.crops, "speech": inputs.windows, **feeds})[0]
        apart = np.abs(made.astype(int) - plain.pixels(inputs))
        assert apart.max() <= 1
        assert apart.mean() < (1e-3 if precision == "single" else 0.1)
        graph, feeds = _feeds(folder, precision, "floats")
        session = onnxruntime.InferenceSession(graph)
        made = session.run(["mouth"], {"face": inputs.visual, "speech": inputs.windows, **feeds})[0]
        assert made.dtype == np.float32
        wanted = plain.floats(inputs.visual, inputs.windows)
        assert np.abs(made - wanted).max() < (1e-5 if precision == "single" else 5e-3)


def test_avatars_of_one_architecture_have_equal_graphs_and_other_weights(pair: Any) -> None:
    one, two = (_manifest(folder) for folder in pair.folders)
    for precision in ("single", "half"):
        for form in ("pixels", "floats"):
            first, second = (m.models[precision].graphs[form] for m in (one, two))
            assert first.sha256 == second.sha256
            assert first.weights == second.weights
    images = []
    for folder in pair.folders:
        model = _manifest(folder).models["half"]
        images.append(np.zeros(model.image_bytes, np.uint8))
        ImageFile(gpu_folder(folder), model).write(images[-1])
    assert (images[0] != images[1]).any()


def test_only_what_kernels_read_on_the_host_stays_inside(pair: Any) -> None:
    for precision in ("single", "half"):
        graph = onnx.load(gpu_folder(pair.folders[0]) / f"pixels-{precision}.onnx").graph
        inside = [t for t in graph.initializer if t.data_type != TensorProto.UINT8]
        used_by = {name: node.op_type for node in graph.node for name in node.input}
        floats = [t for t in inside if t.data_type in (TensorProto.FLOAT, TensorProto.FLOAT16)]
        assert {used_by[t.name] for t in floats} <= {"Clip", "Resize"}


@pytest.mark.slow
def test_half_precision_takes_half_the_disk_and_single_is_not_written(tmp_path: Path) -> None:
    write_unet(tmp_path / "model.onnx", seed=0, widths=MOBILE_WIDTHS)
    for name in ("compiled", "gpu"):
        (tmp_path / name).mkdir()
    compile_model(tmp_path / "model.onnx", tmp_path / "compiled")
    compile_for_gpu(tmp_path / "model.onnx", tmp_path / "compiled", tmp_path / "gpu")
    of_processor, of_gpu = (
        sum(path.stat().st_size for path in (tmp_path / name).iterdir())
        for name in ("compiled", "gpu")
    )
    assert of_gpu < 0.52 * of_processor
    assert of_processor < 1.02 * 4 * read_manifest(tmp_path / "compiled").parameters
    assert set(read_gpu_manifest(tmp_path / "gpu").models) == {"half"}


def test_what_was_compiled_from_another_file_is_refused(pair: Any, tmp_path: Path) -> None:
    with pytest.raises(AvatarInvalid, match="changed after it was compiled"):
        compile_for_gpu(pair.sources[1], pair.folders[0], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_behind_where_it_cannot_be_written(
    pair: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(folder: Path, *_: Any, **__: Any) -> None:
        (folder / "half.bin").write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(gpucompilation, "write_gpu", refuse)
    with pytest.raises(StorageFailed, match="No space left"):
        compile_for_gpu(pair.sources[0], pair.folders[0], tmp_path)
    assert list(tmp_path.iterdir()) == []


def _scaled(path: Path, scale: float) -> Path:
    """A network whose first layer makes large numbers that the next one makes small again."""
    random = np.random.default_rng(0)
    weights = {
        "up": (random.standard_normal((8, 6, 1, 1)) * scale).astype(np.float32),
        "down": (random.standard_normal((3, 8, 1, 1)) / scale / 3).astype(np.float32),
        "hear": random.standard_normal((3, 32, 16, 16)).astype(np.float32) / 90,
    }
    nodes = [
        helper.make_node("Conv", ["input", "up"], ["large"]),
        helper.make_node("Conv", ["large", "down"], ["seen"]),
        helper.make_node("Conv", ["audio", "hear"], ["heard"]),
        helper.make_node("Add", ["seen", "heard"], ["sum"]),
        helper.make_node("Sigmoid", ["sum"], ["output"]),
    ]
    shapes = {"input": [6, 320, 320], "audio": [32, 16, 16], "output": [3, 320, 320]}
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", *shape])
        for name, shape in shapes.items()
    ]
    graph = helper.make_graph(
        nodes,
        "scaled",
        values[:2],
        values[2:],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.slow
@pytest.mark.parametrize(("scale", "says"), [(1.0, None), (1e5, "weight"), (2e4, "differ")])
def test_a_network_that_half_precision_would_spoil_stays_in_single(
    tmp_path: Path, compiled_for_gpu: Any, scale: float, says: str | None
) -> None:
    folder = compiled_for_gpu(_scaled(tmp_path / "model.onnx", scale))
    manifest = _manifest(folder)
    assert "single" in manifest.models
    assert ("half" in manifest.models) == (says is None)
    assert (gpu_folder(folder) / "half.bin").exists() == (says is None)
    assert (says or "") in manifest.reasons["half"]
    assert manifest.reasons["single"] == ""


def test_a_network_of_which_no_shared_graph_can_be_made_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiled_for_gpu: Any
) -> None:
    monkeypatch.setattr(gpugraphs, "why_not_shared", lambda graph, kept: "it is too odd")
    write_tiny_unet(tmp_path / "model.onnx", seed=1)
    folder = compiled_for_gpu(tmp_path / "model.onnx")
    manifest = _manifest(folder)
    assert manifest.models == {}
    assert set(manifest.reasons.values()) == {"it is too odd"}
    assert [p.name for p in gpu_folder(folder).iterdir()] == ["gpu.json"]


@pytest.mark.slow
@pytest.mark.parametrize("fixed_batch", [4, 1])
def test_a_fixed_batch_stays_fixed(tmp_path: Path, compiled_for_gpu: Any, fixed_batch: int) -> None:
    write_tiny_unet(tmp_path / "model.onnx", seed=3, fixed_batch=fixed_batch)
    folder = compiled_for_gpu(tmp_path / "model.onnx")
    assert set(_manifest(folder).models) == {"single", "half"}
    graph = onnx.load(gpu_folder(folder) / "pixels-half.onnx").graph
    assert graph.input[0].type.tensor_type.shape.dim[0].dim_value == fixed_batch


DAMAGE = {
    "not JSON": lambda fields: "{",
    "no models": lambda fields: json.dumps({"runtime": "3"}),
    "a batch of none": lambda fields: json.dumps(fields | {"fixed_batch": 0}),
    "another file": lambda fields: json.dumps(fields).replace("pixels-half.onnx", "../x.onnx"),
    "an odd place": lambda fields: json.dumps(fields).replace('half.onnx", ', 'half.onnx", "q": [')[
        :200
    ],
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_manifest_is_refused(pair: Any, tmp_path: Path, damage: Any) -> None:
    folder = shutil.copytree(pair.folders[0], tmp_path / "copy")
    path = gpu_folder(folder) / "gpu.json"
    path.write_text(damage(json.loads(path.read_text())))
    with pytest.raises(AvatarInvalid, match=r"gpu\.json is damaged"):
        _manifest(folder)


@pytest.mark.parametrize(
    ("column", "value"),
    [(3, 8), (3, 1 << 30), (3, -64), (2, [1 << 50]), (1, "int8")],
)
def test_a_weight_outside_its_file_is_refused(
    pair: Any, tmp_path: Path, column: int, value: Any
) -> None:
    folder = shutil.copytree(pair.folders[0], tmp_path / "copy")
    path = gpu_folder(folder) / "gpu.json"
    fields = json.loads(path.read_text())
    fields["models"]["half"]["graphs"]["pixels"]["weights"][1][column] = value
    path.write_text(json.dumps(fields))
    with pytest.raises(AvatarInvalid, match=r"gpu\.json is damaged"):
        _manifest(folder)


def test_damaged_files_are_refused(pair: Any, tmp_path: Path) -> None:
    folder = shutil.copytree(pair.folders[0], tmp_path / "copy")
    model = _manifest(folder).models["half"]
    folder = gpu_folder(folder)
    graph = model.graphs["pixels"]
    path = folder / graph.file
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(AvatarInvalid, match=r"is not what gpu\.json says"):
        read_gpu_graph(folder, graph)
    (folder / "half.bin").write_bytes(b"short")
    with pytest.raises(AvatarInvalid, match=r"half\.bin has 5 bytes"):
        ImageFile(folder, model)
    (folder / "half.bin").unlink()
    with pytest.raises(AvatarInvalid, match=r"half\.bin is missing"):
        ImageFile(folder, model)
    (folder / "gpu.json").unlink()
    with pytest.raises(NotFound, match=r"gpu\.json is missing"):
        read_gpu_manifest(folder)


def test_a_network_that_cannot_be_tried_says_why(
    pair: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> Any:
        raise AvatarInvalid("model.onnx: cannot be loaded: too odd")

    monkeypatch.setattr(gpucompilation, "optimise", refuse)
    compile_for_gpu(pair.sources[0], pair.folders[0], tmp_path)
    manifest = read_gpu_manifest(tmp_path)
    assert manifest.models == {}
    assert manifest.reasons["half"] == "model.onnx: cannot be loaded: too odd"
