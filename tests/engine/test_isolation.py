"""One avatar's face never shows in another's: the first thing that sharing a graph must keep."""

import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from lipwire.bench.randomnetworks import write_tiny_unet, write_unet
from lipwire.domain import Form
from lipwire.engine import Engine, compile_model
from lipwire.engine.compile import lifting, optimising
from lipwire.engine.store.modelfiles import map_weights, read_manifest, weight_views

NARROW_WIDTHS = (8, 16, 32, 64, 128)
"""The published layers at a sixteenth of their cost."""


@pytest.mark.slow
def test_interleaved_avatars_equal_plain_sessions_bit_for_bit(
    pair: Any, oracle: Any, make_inputs: Any
) -> None:
    oracles = [oracle(source) for source in pair.sources]
    with Engine(threads=1) as engine:
        models = [engine.load(folder) for folder in pair.folders]
        for turn in range(6):
            inputs = make_inputs(1 + turn % 3, seed=turn)
            for model, plain in zip(models, oracles, strict=True):
                made = engine.infer_float(model, inputs.visual, inputs.windows)
                assert made.tobytes() == plain.floats(inputs.visual, inputs.windows).tobytes()
                assert (
                    engine.infer(model, inputs.crops, inputs.windows) == plain.pixels(inputs)
                ).all()
        assert engine.session_count == 2  # one for each form, not for each avatar


@pytest.mark.slow
def test_avatars_in_several_threads_equal_plain_sessions_bit_for_bit(
    pair: Any, oracle: Any, make_inputs: Any
) -> None:
    jobs = [(which, make_inputs(1, seed=turn)) for turn in range(12) for which in (0, 1)]
    oracles = [oracle(source) for source in pair.sources]
    wanted = [oracles[which].pixels(inputs) for which, inputs in jobs]
    with Engine(threads=1) as engine:
        models = [engine.load(folder) for folder in pair.folders]

        def work(job: tuple[int, Any]) -> Any:
            which, inputs = job
            return engine.infer(models[which], inputs.crops, inputs.windows)

        with ThreadPoolExecutor(6) as threads:
            for _ in range(3):
                for made, right in zip(threads.map(work, jobs), wanted, strict=True):
                    assert (made == right).all()


@pytest.mark.slow
def test_the_published_architecture_is_shared_and_equal(
    tmp_path: Path, oracle: Any, make_inputs: Any, compiled: Callable[[Path], Path]
) -> None:
    sources = [tmp_path / "one.onnx", tmp_path / "two.onnx"]
    write_unet(sources[0], seed=1, widths=NARROW_WIDTHS)
    write_unet(sources[1], seed=2, widths=NARROW_WIDTHS, prefix="other.")
    inputs = make_inputs(2)
    with Engine(threads=1) as engine:
        models = [engine.load(compiled(source)) for source in sources]
        for model, source in zip(models, sources, strict=True):
            plain = oracle(source)
            made = engine.infer_float(model, inputs.visual, inputs.windows)
            assert made.tobytes() == plain.floats(inputs.visual, inputs.windows).tobytes()
            assert (engine.infer(model, inputs.crops, inputs.windows) == plain.pixels(inputs)).all()
        assert engine.session_count == 2
        assert all(model.shared for model in models)


def test_no_floating_constant_stays_in_a_graph(pair: Any) -> None:
    for source, folder in zip(pair.sources, pair.folders, strict=True):
        exported = _exported_weights(source)
        assert len(exported) == 8
        for form in ("pixels", "floats"):
            graph = onnx.load(folder / f"{form}.onnx").graph
            kinds = {tensor.data_type for tensor in graph.initializer}
            assert not kinds & {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16}
            assert "Constant" not in {node.op_type for node in graph.node}
            # Every weight is fed instead. ONNX Runtime lays them out for the processor: in another
            # order, and with channels of zeros up to a multiple of 4, 8 or 16.
            weights = _weights(folder, form)
            assert set(weights) <= {value.name for value in graph.input}
            fed = {_sorted_without_zeros(values) for values in weights.values()}
            assert {_sorted_without_zeros(values) for values in exported} <= fed


def test_a_bias_left_in_the_graph_would_be_seen(pair: Any, oracle: Any, make_inputs: Any) -> None:
    """That the comparisons above can fail: with one avatar's bias inside, the other's is wrong."""
    inputs = make_inputs(1)
    wanted = [oracle(s).floats(inputs.visual, inputs.windows) for s in pair.sources]
    weights = [_weights(f) for f in pair.folders]
    model = onnx.load(pair.folders[0] / "floats.onnx")
    biases = [name for name, values in weights[0].items() if values.ndim == 1]
    assert len(biases) == 4
    for bias in biases:
        leaking = onnx.ModelProto()
        leaking.CopyFrom(model)
        leaking.graph.initializer.append(numpy_helper.from_array(weights[0][bias].copy(), bias))
        inputs_left = [value for value in leaking.graph.input if value.name != bias]
        del leaking.graph.input[:]
        leaking.graph.input.extend(inputs_left)
        session = onnxruntime.InferenceSession(leaking.SerializeToString())
        for which, right in enumerate(wanted):
            feeds = {name: values for name, values in weights[which].items() if name != bias}
            feeds |= {"face": inputs.visual, "speech": inputs.windows}
            made = session.run(["mouth"], feeds)[0]
            assert np.allclose(made, right, atol=1e-5) == (which == 0)


def test_a_constant_that_stays_costs_a_session_and_never_shows_in_another_face(
    tmp_path: Path, oracle: Any, make_inputs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lift_all_but_the_last(model: Any, kept: Any = frozenset()) -> Any:
        graph, weights = lifting.lift(model, kept)
        left = weights.pop()
        graph.graph.input.pop()
        graph.graph.initializer.append(numpy_helper.from_array(np.array(left.values), left.name))
        return graph, weights

    monkeypatch.setattr(optimising, "lift", lift_all_but_the_last)
    monkeypatch.setattr(optimising, "why_not_shared", lambda graph: None)
    inputs = make_inputs(1)
    with Engine(threads=1) as engine:
        for seed in (1, 2):
            source, target = tmp_path / f"{seed}.onnx", tmp_path / str(seed)
            write_tiny_unet(source, seed=seed)
            target.mkdir()
            compile_model(source, target)
            model = engine.load(target)
            made = engine.infer_float(model, inputs.visual, inputs.windows)
            assert made.tobytes() == oracle(source).floats(inputs.visual, inputs.windows).tobytes()


# A process of its own: what other tests leave, and give back just then, is not in its memory.
_SECOND_AVATAR = """
import gc, json, os, sys
from pathlib import Path
import numpy as np
from lipwire.bench.footprint import footprint
from lipwire.engine import Engine

def own_bytes():
    gc.collect()
    return footprint(os.getpid()).own_bytes

crops = np.zeros((1, 320, 320, 3), np.uint8)
windows = np.zeros((1, 32, 16, 16), np.float32)
with Engine(threads=1) as engine:
    first = engine.load(Path(sys.argv[1]))
    for _ in range(3):  # until the session has the memory that it works in
        engine.infer(first, crops, windows)
    sessions, before = engine.session_count, own_bytes()
    second = engine.load(Path(sys.argv[2]))
    engine.infer(second, crops, windows)
    print(json.dumps({
        "grown": own_bytes() - before,
        "sessions": engine.session_count - sessions,
        "weights": second.weights_bytes,
    }))
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_second_avatar_adds_no_session_and_no_copy_of_its_weights(
    tmp_path: Path, compiled: Callable[[Path], Path]
) -> None:
    folders = []
    for seed in (1, 2):
        source = tmp_path / f"{seed}.onnx"
        _write_heavy(source, seed)
        folders.append(str(compiled(source)))
    ran = subprocess.run(
        [sys.executable, "-c", _SECOND_AVATAR, *folders], capture_output=True, text=True, check=True
    )
    found = json.loads(ran.stdout)
    assert found["sessions"] == 0
    assert found["weights"] > 8e6
    assert found["grown"] < 2e6


def _weights(folder: Path, form: Form = "floats") -> dict[str, npt.NDArray[np.generic]]:
    manifest = read_manifest(folder)
    mapped = map_weights(folder, manifest)
    assert mapped is not None
    return weight_views(mapped, manifest.graphs[form])


def _exported_weights(source: Path) -> list[npt.NDArray[np.generic]]:
    """The numbers of a network's file, be they initialisers or nodes."""
    graph = onnx.load(source).graph
    nodes = [node.attribute[0].t for node in graph.node if node.op_type == "Constant"]
    arrays = (numpy_helper.to_array(tensor) for tensor in [*graph.initializer, *nodes])
    return [array for array in arrays if array.dtype == np.float32]


def _sorted_without_zeros(values: npt.NDArray[np.generic]) -> bytes:
    return np.sort(values[values != 0], axis=None).tobytes()


def _write_heavy(path: Path, seed: int) -> None:
    """A network with 8 MB of weights that runs in milliseconds: one wide layer for the speech."""
    random = np.random.default_rng(seed)
    weights: dict[str, Any] = {
        "hear": random.standard_normal((256, 32, 16, 16), np.float32) / 90,
        "speak": random.standard_normal((3, 256, 1, 1), np.float32) / 16,
        "see": random.standard_normal((3, 6, 1, 1), np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["audio", "hear"], ["heard"]),
        helper.make_node("Conv", ["heard", "speak"], ["spoken"]),
        helper.make_node("Conv", ["input", "see"], ["seen"]),
        helper.make_node("Add", ["seen", "spoken"], ["sum"]),
        helper.make_node("Sigmoid", ["sum"], ["output"]),
    ]
    shapes = {"input": [6, 320, 320], "audio": [32, 16, 16], "output": [3, 320, 320]}
    values = {
        name: helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", *shape])
        for name, shape in shapes.items()
    }
    graph = helper.make_graph(
        nodes,
        "heavy",
        [values["input"], values["audio"]],
        [values["output"]],
        [
            numpy_helper.from_array(array.astype(np.float32), name)
            for name, array in weights.items()
        ],
    )
    opsets = [helper.make_opsetid("", 17)]
    path.write_bytes(
        helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
    )
