"""Loading, running and closing: what callers rely on."""

import gc
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.waiting import until

from lipwire.bench.randomnetworks import write_tiny_unet
from lipwire.domain import AvatarInvalid, InvalidInput, NotFound
from lipwire.engine import Engine, Model, runtime
from lipwire.engine.cpu import processor


@pytest.fixture
def engine() -> Any:
    with Engine(threads=1) as running:
        yield running


def test_a_mouth_depends_on_the_face_inside_and_outside_the_mask_and_on_the_speech(
    engine: Engine, pair: Any, make_inputs: Any
) -> None:
    model = engine.load(pair.folders[0])
    inputs = make_inputs(1)
    before = engine.infer(model, inputs.crops, inputs.windows)
    assert before.shape == (1, 320, 320, 3)
    assert before.dtype == np.uint8
    for row in (2, 160):
        crops = inputs.crops.copy()
        crops[:, row] ^= 255
        assert (engine.infer(model, crops, inputs.windows) != before).any()
    assert (engine.infer(model, inputs.crops, -inputs.windows) != before).any()
    assert (engine.infer(model, inputs.crops, inputs.windows) == before).all()


def test_frames_of_a_batch_are_what_they_are_alone(
    engine: Engine, pair: Any, make_inputs: Any
) -> None:
    model = engine.load(pair.folders[0])
    inputs = make_inputs(5)
    together = engine.infer(model, inputs.crops, inputs.windows)
    for frame in range(5):
        one = slice(frame, frame + 1)
        assert (engine.infer(model, inputs.crops[one], inputs.windows[one]) == together[one]).all()


@pytest.mark.slow
@pytest.mark.parametrize("frames", [3, 1, 4, 5, 9])
def test_a_fixed_batch_takes_any_number_of_frames(
    engine: Engine, tmp_path: Path, make_inputs: Any, compiled: Any, frames: int
) -> None:
    for name, fixed_batch in (("open", None), ("four", 4)):
        write_tiny_unet(tmp_path / f"{name}.onnx", seed=1, fixed_batch=fixed_batch)
    models = [engine.load(compiled(tmp_path / f"{name}.onnx")) for name in ("open", "four")]
    assert [model.fixed_batch for model in models] == [None, 4]
    inputs = make_inputs(frames)
    wanted, made = (engine.infer(model, inputs.crops, inputs.windows) for model in models)
    assert (made == wanted).all()
    floats = [engine.infer_float(m, inputs.visual, inputs.windows) for m in models]
    assert floats[0].tobytes() == floats[1].tobytes()


def test_arrays_that_are_not_contiguous_are_taken(
    engine: Engine, pair: Any, make_inputs: Any
) -> None:
    model = engine.load(pair.folders[0])
    inputs = make_inputs(4)
    wanted = engine.infer(model, inputs.crops[::2].copy(), inputs.windows[::2].copy())
    assert (engine.infer(model, inputs.crops[::2], inputs.windows[::2]) == wanted).all()
    flipped = inputs.crops[..., ::-1]
    wanted = engine.infer(model, flipped.copy(), inputs.windows)
    assert (engine.infer(model, flipped, inputs.windows) == wanted).all()


def _nan(array: Any) -> Any:
    array = array.copy()
    array.reshape(-1)[1234] = np.nan
    return array


@pytest.mark.parametrize(
    ("crops", "windows", "says"),
    [
        (lambda c: c[0], lambda w: w, r"crops is \(320, 320, 3\) uint8"),
        (lambda c: c[:, :319], lambda w: w, "319"),
        (lambda c: c.astype(np.float32), lambda w: w, "float32"),
        (lambda c: c[:0], lambda w: w[:0], "0 frames"),
        (lambda c: list(c), lambda w: w, "list"),
        (lambda c: c, lambda w: w[:1], "1 frames"),
        (lambda c: c, lambda w: w[0], "windows is"),
        (lambda c: c, lambda w: w.astype(np.float64), "float64"),
        (lambda c: c, _nan, "NaN"),
        (lambda c: c, lambda w: w / np.float32(0), "infinite"),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_inputs_of_another_kind_are_refused(
    engine: Engine, pair: Any, make_inputs: Any, crops: Any, windows: Any, says: str
) -> None:
    model = engine.load(pair.folders[0])
    inputs = make_inputs(2)
    with pytest.raises(InvalidInput, match=says):
        engine.infer(model, crops(inputs.crops), windows(inputs.windows))


@pytest.mark.parametrize(
    "visual", [_nan, lambda v: v[:, :3], lambda v: v[:1], lambda v: v.astype(np.float16)]
)
def test_float_inputs_of_another_kind_are_refused(
    engine: Engine, pair: Any, make_inputs: Any, visual: Any
) -> None:
    model = engine.load(pair.folders[0])
    inputs = make_inputs(2)
    with pytest.raises(InvalidInput):
        engine.infer_float(model, visual(inputs.visual), inputs.windows)


@pytest.mark.parametrize("threads", [0, -1, 10_000, 1.5, "2"])
def test_threads_out_of_range_are_refused(threads: Any) -> None:
    with pytest.raises(InvalidInput, match="threads is"):
        Engine(threads=threads)


def test_a_session_is_made_once_however_many_threads_ask(
    pair: Any, make_inputs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    asking: list[object] = []
    whole = runtime.open_session

    def slow(*arguments: Any) -> Any:
        made.append(threading.get_ident())
        until(lambda: len(asking) >= 8 * len(made))
        return whole(*arguments)

    monkeypatch.setattr(processor, "open_session", slow)
    inputs = make_inputs(1)
    with Engine(threads=1) as engine, ThreadPoolExecutor(8) as threads:

        def load(folder: Path) -> Model:
            asking.append(folder)
            return engine.load(folder)

        def run(model: Model) -> None:
            asking.append(model)
            engine.infer_float(model, inputs.visual, inputs.windows)

        models = list(threads.map(load, pair.folders * 4))
        list(threads.map(run, models))
        assert engine.session_count == len(made) == 2


@pytest.mark.slow
def test_sessions_go_with_the_last_model_that_uses_them(engine: Engine, pair: Any) -> None:
    models = [engine.load(folder) for folder in pair.folders]
    assert engine.session_count == 1
    models.pop()
    gc.collect()
    assert engine.session_count == 1
    models.clear()
    gc.collect()
    assert engine.session_count == 0


def test_use_after_closing_says_so(pair: Any, make_inputs: Any) -> None:
    inputs = make_inputs(1)
    with Engine(threads=1) as engine:
        model = engine.load(pair.folders[0])
    for use in (
        lambda: engine.infer(model, inputs.crops, inputs.windows),
        lambda: engine.infer_float(model, inputs.visual, inputs.windows),
        lambda: engine.load(pair.folders[0]),
    ):
        with pytest.raises(RuntimeError, match="engine is closed"):
            use()
    engine.close()
    gc.collect()
    assert engine.session_count == 0


@pytest.mark.slow
def test_a_call_under_way_survives_closing(
    pair: Any, make_inputs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, closed = threading.Event(), threading.Event()
    run = processor._LoadedForm.run

    def run_late(*arguments: Any) -> None:
        begun.set()
        assert closed.wait(60)
        run(*arguments)

    inputs = make_inputs(40)
    engine = Engine(threads=1)
    model = engine.load(pair.folders[0])
    monkeypatch.setattr(processor._LoadedForm, "run", run_late)
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(engine.infer, model, inputs.crops, inputs.windows)
        assert begun.wait(60)
        engine.close()
        closed.set()
        made = running.result()
    with Engine(threads=1) as other:
        wanted = other.infer(other.load(pair.folders[0]), inputs.crops[-1:], inputs.windows[-1:])
    assert (made[-1:] == wanted).all()


def test_a_model_of_another_engine_is_refused(engine: Engine, pair: Any, make_inputs: Any) -> None:
    inputs = make_inputs(1)
    with Engine(threads=1) as other:
        model = other.load(pair.folders[0])
        with pytest.raises(RuntimeError, match="another engine"):
            engine.infer(model, inputs.crops, inputs.windows)


def test_weights_are_mapped_not_read(engine: Engine, pair: Any, tmp_path: Path) -> None:
    model = engine.load(pair.folders[0])
    network = model._network
    assert isinstance(network, processor.ProcessorNetwork)
    values = network.forms["pixels"]._weights
    mapped = network.mapped
    assert mapped is not None
    first = mapped.ctypes.data
    assert all(first <= value.data_ptr() < first + mapped.size for value in values.values())
    assert not mapped.flags.writeable


def test_a_model_compiled_elsewhere_is_refused(engine: Engine, pair: Any, tmp_path: Path) -> None:
    folder = shutil.copytree(pair.folders[0], tmp_path / "copy")
    manifest = folder / "model.json"
    manifest.write_text(manifest.read_text().replace("x86_64", "riscv").replace("-ort", "-old"))
    with pytest.raises(AvatarInvalid, match="compile the avatar again"):
        engine.load(folder)


def test_an_empty_folder_holds_no_model(engine: Engine, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"model\.json"):
        engine.load(tmp_path)
