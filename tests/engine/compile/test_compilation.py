"""Whatever was exported, what is compiled computes what plain ONNX Runtime computes."""

import errno
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from lipwire.bench.randomnetworks import write_tiny_unet
from lipwire.domain import AvatarInvalid, Form, NotFound, StorageFailed
from lipwire.engine import Engine, compile_model
from lipwire.engine.compile import compilation, lifting, optimising, wrapping
from lipwire.engine.graphs import Weight
from lipwire.engine.store import modelfiles
from lipwire.engine.store.modelfiles import read_manifest


def _model(path: Path, nodes: list[Any], weights: dict[str, Any], batch: int | str = "N") -> Path:
    """A network of the guide's shapes from its nodes and weights."""

    def value(name: str, *shape: int) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, *shape])

    graph = helper.make_graph(
        nodes,
        "test",
        [value("input", 6, 320, 320), value("audio", 32, 16, 16)],
        [value("output", 3, 320, 320)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


def _check_equal(source: Path, folder: Path, oracle: Any, inputs: Any) -> Any:
    plain = oracle(source)
    with Engine(threads=1) as engine:
        model = engine.load(folder)
        made = engine.infer_float(model, inputs.visual, inputs.windows)
        if model.fixed_batch is None:
            wanted = plain.floats(inputs.visual, inputs.windows)
            assert made.tobytes() == wanted.tobytes()
            pixels = engine.infer(model, inputs.crops, inputs.windows)
            assert (pixels == plain.pixels(inputs)).all()
        else:
            step = model.fixed_batch
            for start in range(0, len(inputs.crops) // step * step, step):
                piece = slice(start, start + step)
                wanted = plain.floats(inputs.visual[piece], inputs.windows[piece])
                assert made[piece].tobytes() == wanted.tobytes()
        return model


@pytest.mark.slow
@pytest.mark.parametrize("opset", [11, 13, 18, 21])
@pytest.mark.parametrize("ending", ["sigmoid", "clip", "none"])
def test_opsets_and_endings(
    tmp_path: Path, oracle: Any, make_inputs: Any, compiled: Any, opset: int, ending: Any
) -> None:
    source = tmp_path / "model.onnx"
    write_tiny_unet(source, seed=3, opset=opset, ending=ending, constant_nodes=opset == 13)
    assert _check_equal(source, compiled(source), oracle, make_inputs(2)).shared


@pytest.mark.slow
@pytest.mark.parametrize("fixed_batch", [1, 4])
def test_fixed_batches(
    tmp_path: Path, oracle: Any, make_inputs: Any, compiled: Any, fixed_batch: int
) -> None:
    source = tmp_path / "model.onnx"
    write_tiny_unet(source, seed=3, fixed_batch=fixed_batch)
    model = _check_equal(source, compiled(source), oracle, make_inputs(2 * fixed_batch))
    assert model.fixed_batch == fixed_batch
    assert model.shared


def test_a_network_that_says_any_batch_and_takes_one(
    tmp_path: Path, oracle: Any, make_inputs: Any, compiled: Any
) -> None:
    nodes = [
        helper.make_node("Reshape", ["input", "shape"], ["flat"]),
        helper.make_node("Conv", ["flat", "w"], ["seen"]),
        helper.make_node("ReduceMean", ["audio"], ["heard"], axes=[1, 2, 3], keepdims=1),
        helper.make_node("Add", ["seen", "heard"], ["output"]),
    ]
    weights = {
        "shape": np.array([1, 6, 320, 320]),
        "w": np.random.default_rng(0).random((3, 6, 1, 1), np.float32),
    }
    source = _model(tmp_path / "model.onnx", nodes, weights)
    model = _check_equal(source, compiled(source), oracle, make_inputs(3))
    assert model.fixed_batch == 1


def test_a_network_with_a_branch(
    tmp_path: Path, oracle: Any, make_inputs: Any, compiled: Any
) -> None:
    branches = {}
    for name, amount in (("then_branch", 0.25), ("else_branch", 0.75)):
        value = helper.make_tensor("", TensorProto.FLOAT, [1], [amount])
        inner = [
            helper.make_node("Constant", [], [f"{name}_c"], value=value),
            helper.make_node("Mul", ["seen", f"{name}_c"], [f"{name}_o"]),
        ]
        out = helper.make_tensor_value_info(f"{name}_o", TensorProto.FLOAT, None)
        branches[name] = helper.make_graph(inner, name, [], [out])
    nodes = [
        helper.make_node("Conv", ["input", "w"], ["seen"]),
        helper.make_node("ReduceMean", ["audio"], ["mean"], keepdims=0),
        helper.make_node("Greater", ["mean", "zero"], ["loud"]),
        helper.make_node("If", ["loud"], ["output"], **branches),
    ]
    weights = {
        "w": np.random.default_rng(0).random((3, 6, 1, 1), np.float32),
        "zero": np.float32(0),
    }
    source = _model(tmp_path / "model.onnx", nodes, weights, batch=1)
    folder = compiled(source)
    for seed in range(4):
        _check_equal(source, folder, oracle, make_inputs(1, seed))
    graph = onnx.load(folder / "floats.onnx").graph
    assert not [t for t in graph.initializer if t.data_type == TensorProto.FLOAT]


def test_a_network_in_half_precision(
    tmp_path: Path, oracle: Any, make_inputs: Any, compiled: Any
) -> None:
    source = tmp_path / "model.onnx"
    write_tiny_unet(source, seed=3)
    proto = onnx.load(source)
    for tensor in proto.graph.initializer:
        half = numpy_helper.to_array(tensor).astype(np.float16)
        tensor.CopyFrom(numpy_helper.from_array(half, tensor.name))
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    source.write_bytes(proto.SerializeToString())
    inputs = make_inputs(2)
    wanted = oracle(source).floats(
        inputs.visual.astype(np.float16), inputs.windows.astype(np.float16)
    )
    with Engine(threads=1) as engine:
        model = engine.load(compiled(source))
        made = engine.infer_float(model, inputs.visual, inputs.windows)
        # ONNX Runtime computes in float32 here, and now does not round in between either.
        assert np.abs(made - wanted).max() < 2e-3
        pixels = engine.infer(model, inputs.crops, inputs.windows)
    rounded = np.rint(np.clip(made * np.float32(255), 0, 255)).transpose(0, 2, 3, 1)
    assert (pixels == rounded).all()


@pytest.mark.slow
def test_a_network_that_cannot_be_shared_runs_in_a_session_of_its_own(
    tmp_path: Path, oracle: Any, make_inputs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifting, "MAX_CONSTANT_BYTES", -1)
    inputs = make_inputs(2)
    with Engine(threads=1) as engine:
        models = []
        for seed in (1, 2):
            source, target = tmp_path / f"{seed}.onnx", tmp_path / str(seed)
            write_tiny_unet(source, seed=seed)
            target.mkdir()
            compile_model(source, target)
            assert "stay in the graph" in read_manifest(target).graphs["floats"].reason
            models.append(engine.load(target))
            made = engine.infer_float(models[-1], inputs.visual, inputs.windows)
            assert made.tobytes() == oracle(source).floats(inputs.visual, inputs.windows).tobytes()
            pixels = engine.infer(models[-1], inputs.crops, inputs.windows)
            assert (pixels == oracle(source).pixels(inputs)).all()
        assert not any(model.shared for model in models)
        assert engine.session_count == 4


def test_a_graph_that_differs_by_one_bit_is_not_shared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lift_and_spoil(model: Any, kept: Any = frozenset()) -> Any:
        graph, weights = lifting.lift(model, kept)
        # Of the network's last layer: all that it makes is seen.
        place = max(place for place, weight in enumerate(weights) if weight.values.ndim)
        values = np.array(weights[place].values)
        values.view(np.uint32)[0] ^= 1 << 22
        weights[place] = Weight(weights[place].name, values)
        return graph, weights

    monkeypatch.setattr(optimising, "lift", lift_and_spoil)
    write_tiny_unet(tmp_path / "model.onnx", seed=1)
    compile_model(tmp_path / "model.onnx", _folder(tmp_path))
    graphs = read_manifest(tmp_path / "target").graphs
    assert "differs" in graphs["floats"].reason
    assert "differs" in graphs["pixels"].reason


@pytest.mark.slow
@pytest.mark.parametrize("fixed_batch", [None, 3])
def test_the_mouths_of_one_form_are_those_that_the_other_is_compared_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fixed_batch: int | None
) -> None:
    """What the layers round a network compute is computed in NumPy, bit for bit."""
    tried = []

    def try_out(session: Any, form: Form, *more: Any) -> Any:
        tried.append(form)
        return optimising.try_out(session, form, *more)

    monkeypatch.setattr(compilation, "try_out", try_out)
    write_tiny_unet(tmp_path / "model.onnx", seed=1, fixed_batch=fixed_batch)
    compile_model(tmp_path / "model.onnx", _folder(tmp_path))
    graphs = read_manifest(tmp_path / "target").graphs
    assert graphs["pixels"].shared
    assert tried == ["floats"]


def test_forms_that_are_optimised_in_different_ways_are_both_shared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other_pixels(mouths: Any) -> Any:
        return wrapping.pixels_of(mouths) ^ 1

    monkeypatch.setattr(compilation, "pixels_of", other_pixels)
    write_tiny_unet(tmp_path / "model.onnx", seed=1)
    compile_model(tmp_path / "model.onnx", _folder(tmp_path))
    assert all(each.shared for each in read_manifest(tmp_path / "target").graphs.values())


def test_compiling_twice_gives_the_same_files(tmp_path: Path, pair: Any) -> None:
    target = _folder(tmp_path)
    compile_model(pair.sources[0], target)
    files = {path.name: path.read_bytes() for path in target.iterdir()}
    assert files == {name: (pair.folders[0] / name).read_bytes() for name in files}
    assert set(files) == {"model.json", "weights.bin", "pixels.onnx", "floats.onnx"}


def test_the_weights_of_both_forms_are_stored_once(pair: Any) -> None:
    parameters = read_manifest(pair.folders[0]).parameters
    assert (pair.folders[0] / "weights.bin").stat().st_size < 4 * parameters + 64 * 20


def _folder(tmp_path: Path) -> Path:
    target = tmp_path / "target"
    target.mkdir()
    return target


def _refused(tmp_path: Path, source: Path, kind: type[Exception] = AvatarInvalid) -> str:
    target = _folder(tmp_path)
    with pytest.raises(kind) as caught:
        compile_model(source, target)
    assert not list(target.iterdir())
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_missing_network(tmp_path: Path) -> None:
    _refused(tmp_path, tmp_path / "none.onnx", NotFound)


def test_a_missing_target(tmp_path: Path) -> None:
    write_tiny_unet(tmp_path / "model.onnx", seed=1)
    with pytest.raises(StorageFailed, match="nowhere"):
        compile_model(tmp_path / "model.onnx", tmp_path / "nowhere")


def test_layers_that_do_not_fit(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    weights = {"w": np.ones((3, 5, 1, 1), np.float32)}
    nodes = [helper.make_node("Conv", ["input", "w"], ["output"])]
    _refused(tmp_path, _model(tmp_path / "model.onnx", nodes, weights))
    assert capfd.readouterr().err == ""


def test_an_output_that_is_smaller_than_declared(tmp_path: Path) -> None:
    weights = {"w": np.ones((3, 6, 3, 3), np.float32)}
    nodes = [helper.make_node("Conv", ["input", "w"], ["output"])]
    assert "318" in _refused(tmp_path, _model(tmp_path / "model.onnx", nodes, weights))


def test_a_network_that_makes_nan(tmp_path: Path) -> None:
    weights = {"w": -np.ones((3, 6, 1, 1), np.float32)}
    nodes = [
        helper.make_node("Conv", ["input", "w"], ["below"]),
        helper.make_node("Log", ["below"], ["output"]),
    ]
    assert "finite" in _refused(tmp_path, _model(tmp_path / "model.onnx", nodes, weights))


def test_a_layer_that_asks_for_all_memory(tmp_path: Path) -> None:
    weights = {
        "w": np.ones((3, 6, 1, 1), np.float32),
        "shape": np.array([1 << 40]),
        "axes": np.array([0]),
    }
    nodes = [
        helper.make_node("ConstantOfShape", ["shape"], ["zeros"]),
        helper.make_node("ReduceMax", ["zeros"], ["zero"], keepdims=0),
        helper.make_node("Conv", ["input", "w"], ["seen"]),
        helper.make_node("Add", ["seen", "zero"], ["output"]),
    ]
    message = _refused(tmp_path, _model(tmp_path / "model.onnx", nodes, weights))
    assert str(1 << 40) in message


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    write_tiny_unet(tmp_path / "model.onnx", seed=1)
    monkeypatch.setattr(Path, "write_text", full)
    assert "No space left" in _refused(tmp_path, tmp_path / "model.onnx", StorageFailed)


@pytest.mark.slow
def test_a_file_that_may_not_grow_leaves_nothing(tmp_path: Path) -> None:
    """The limit meets ONNX Runtime itself, while it writes its optimised graph."""
    write_tiny_unet(tmp_path / "model.onnx", seed=1)
    target = _folder(tmp_path)
    program = (
        "import sys; from pathlib import Path; from lipwire.engine import compile_model\n"
        "from lipwire.domain import StorageFailed\n"
        "try: compile_model(Path(sys.argv[1]), Path(sys.argv[2]))\n"
        "except StorageFailed as error: print(error)\n"
    )

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "model.onnx"), str(target)],
        preexec_fn=limit,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "cannot be" in done.stdout
    assert len(done.stdout.splitlines()) == 1
    assert not list(target.iterdir())


def test_an_interruption_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tiny_unet(tmp_path / "model.onnx", seed=1)
    whole: Callable[..., None] = modelfiles.write_compiled

    def interrupted(*arguments: Any, **named: Any) -> None:
        whole(*arguments, **named)
        raise KeyboardInterrupt

    monkeypatch.setattr(compilation, "write_compiled", interrupted)
    target = _folder(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        compile_model(tmp_path / "model.onnx", target)
    assert not list(target.iterdir())
