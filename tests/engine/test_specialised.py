"""Specialised networks through the engine: exact, apart, and gone when they fail."""

import threading
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from tests.support.bfloat16 import demo_inputs, demo_source, needs_bfloat16
from tests.support.waiting import until

from lipwire.engine import Engine, HotTier, compile_model
from lipwire.engine.model import Model
from lipwire.engine.special.openvino import OpenVinoFailed, SpecialisedNetwork
from lipwire.engine.special.store import SpecialStore
from lipwire.engine.store.modelfiles import read_manifest

pytestmark = [needs_bfloat16, pytest.mark.slow]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The demo avatar's network, and one that makes other mouths."""
    folder = tmp_path_factory.mktemp("sources")
    model = onnx.load(str(demo_source()))
    for weight in model.graph.initializer:
        values = numpy_helper.to_array(weight)
        if values.ndim == 1:  # biases
            weight.CopyFrom(numpy_helper.from_array(values * np.float32(1.2), weight.name))
    other = folder / "other.onnx"
    onnx.save(model, str(other))
    return [demo_source(), other]


@pytest.fixture(scope="module")
def compiled(sources: list[Path], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folders = []
    for source in sources:
        folders.append(tmp_path_factory.mktemp("compiled"))
        compile_model(source, folders[-1])
    return folders


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def load(engine: Engine, compiled: list[Path], sources: list[Path]) -> list[Model]:
    return [
        engine.load(folder, source=source) for folder, source in zip(compiled, sources, strict=True)
    ]


def precision(model: Model) -> str:
    return model.precision


def test_a_network_runs_specialised_when_it_is_asked_for(
    compiled: list[Path], sources: list[Path], cache: Path
) -> None:
    crops, windows = demo_inputs()
    with Engine(threads=1) as engine:
        model = engine.load(compiled[0], source=sources[0])
        exact = engine.infer(model, crops, windows)
        assert precision(model) == "single"
        assert engine.specialise(model, crops, windows) is None
        assert precision(model) == "bfloat16"
        made = engine.infer(model, crops, windows)
        assert (made != exact).any()
        assert np.abs(made.astype(int) - exact).mean() < 0.2
        np.testing.assert_array_equal(engine.infer(model, crops, windows), made)
        plain = engine.load(compiled[0], source=sources[0])
        np.testing.assert_array_equal(engine.infer(plain, crops, windows), exact)
        engine.unload(model)
    with Engine(threads=1) as engine:  # from the disk
        model = engine.load(compiled[0], source=sources[0])
        assert engine.specialise(model, crops, windows) is None
        np.testing.assert_array_equal(engine.infer(model, crops, windows), made)


def test_without_its_source_a_network_stays_where_it_is(compiled: list[Path], cache: Path) -> None:
    crops, windows = demo_inputs()
    with Engine(threads=1) as engine:
        model = engine.load(compiled[0])
        assert engine.specialise(model, crops, windows) == "its ONNX file is not known"
        assert model.precision == "single"


def test_avatars_stay_apart_while_their_networks_change(
    compiled: list[Path], sources: list[Path], cache: Path
) -> None:
    """Each mouth is one of the two exact results of its own avatar, and at last the second."""
    crops, windows = demo_inputs()
    store = SpecialStore()
    with Engine(threads=1) as engine:
        exact = [engine.infer(model, crops, windows) for model in load(engine, compiled, sources)]
        models = load(engine, compiled, sources)
        assert [engine.specialise(model, crops, windows, lanes=2) for model in models] == [None] * 2
        special = [engine.infer(model, crops, windows) for model in models]
    for source, folder in zip(sources, compiled, strict=True):  # what it has been tried with
        store.make(source, read_manifest(folder).source_sha256, crops, windows, 2)
    wrong: list[int] = []
    with Engine(threads=1, hot=HotTier(2**30, 2, store=store)) as engine:
        models = load(engine, compiled, sources)
        for model in models:
            engine.prefetch(model)
        over = threading.Event()

        def ask(number: int) -> None:
            while not over.is_set():
                made = engine.infer(models[number], crops, windows)
                for frame, (one, other) in enumerate(
                    zip(exact[number], special[number], strict=True)
                ):
                    if not (np.array_equal(made[frame], one) or np.array_equal(made[frame], other)):
                        wrong.append(number)

        threads = [threading.Thread(target=ask, args=(number % 2,)) for number in range(4)]
        for thread in threads:
            thread.start()
        try:
            until(lambda: engine.hot.networks == 2)
        finally:
            over.set()
            for thread in threads:
                thread.join()
        for number, model in enumerate(models):
            assert model.precision == "bfloat16"
            np.testing.assert_array_equal(engine.infer(model, crops, windows), special[number])
        assert engine.hot.memory_bytes > 0
        engine.unload(models[0])
        assert engine.hot.networks == 1
    assert wrong == []


def test_a_network_that_fails_goes_on_in_float32(
    compiled: list[Path],
    sources: list[Path],
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    crops, windows = demo_inputs()

    def fail(*_: object, **__: object) -> bool:
        raise OpenVinoFailed("out of memory")

    with Engine(threads=1) as engine:
        model = engine.load(compiled[0], source=sources[0])
        exact = engine.infer(model, crops, windows)
        engine.specialise(model, crops, windows)
        monkeypatch.setattr(SpecialisedNetwork, "run", fail)
        for _ in range(3):
            np.testing.assert_array_equal(engine.infer(model, crops, windows), exact)
        assert model.precision == "single"
    said = [record.message for record in caplog.records if "float32 again" in record.message]
    assert len(said) == 1
    assert "out of memory" in said[0]
