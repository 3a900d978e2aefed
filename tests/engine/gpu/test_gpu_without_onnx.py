"""A GPU on which ONNX Runtime does not run has kernels of our own; the rest is the processor's.

The GPU is the processor's memory, and its kernels are imitated.
"""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.engine.cudadriver import Declared, Driver
from tests.engine.imitated import ImitatedPrograms, half_of, played
from tests.support.compilednetworks import compile_both, gpu_folder, load_both
from tests.support.hostmemory import HostMemory

from lipwire.bench.randomnetworks import write_tiny_unet
from lipwire.domain import DependencyMissing
from lipwire.engine import Device, Engine, Tuning
from lipwire.engine.gpu import opengpu
from lipwire.engine.gpu.memory import cudamemory
from lipwire.engine.gpu.memory.cudamemory import CudaMemory
from lipwire.engine.gpu.store.gpufiles import read_gpu_graph


@pytest.mark.slow
def test_what_kernels_do_not_run_the_processor_does(
    guides: Any, tmp_path: Path, oracle: Any, make_inputs: Any
) -> None:
    _, graph, image = half_of(guides.folders[0])
    make = played(read_gpu_graph(gpu_folder(guides.folders[0]), graph), graph.weights)
    programs = ImitatedPrograms(make, image.nbytes)
    memory = HostMemory(1 << 30, programs=programs, onnx_problem="it is not built for it")
    inputs = make_inputs(2)
    known, other, folder = guides.folders[0], tmp_path / "other.onnx", tmp_path / "other"
    write_tiny_unet(other, seed=0)
    compile_both(other, folder)
    with Engine(threads=1, memory=memory) as engine:
        for source, compiled, on_gpu in (
            (guides.sources[0], known, True),
            (other, folder, False),
        ):
            model = load_both(engine, compiled)
            assert model.on_gpu == on_gpu
            wanted = oracle(source).pixels(inputs)
            apart = np.abs(engine.infer(model, inputs.crops, inputs.windows).astype(int) - wanted)
            assert apart.max() <= (2 if on_gpu else 1)
            assert len(programs.runs) == 3  # two of the trial, and one
            # The guide's form: kernels only know pixels.
            floats = engine.infer_float(model, inputs.visual, inputs.windows)
            wanted = oracle(source).floats(inputs.visual, inputs.windows)
            assert np.abs(floats - wanted).max() < 1e-4
            use = engine.memory_use
            assert use is not None
            assert (use.weights, use.slots) == (model.device_bytes, 0)
    with Engine(threads=1, memory=memory, tuning=Tuning(kernels=False)) as engine:
        assert not load_both(engine, known).on_gpu
        assert engine.weights_bytes == 0
    assert (memory.regions, memory.host_blocks, programs.loaded) == (0, 0, 0)


@pytest.fixture
def gpu_without_onnx(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU with a driver, for which ONNX Runtime is not built."""
    driver = Declared(Driver())
    monkeypatch.setattr(opengpu, "cuda_problem", lambda device: "it is not built for it")
    monkeypatch.setattr(cudamemory, "cuda_problem", lambda device: "it is not built for it")
    monkeypatch.setattr(cudamemory, "_open_driver", lambda device: driver)


def test_an_engine_opens_with_kernels_alone_and_says_what_that_leaves_out(
    gpu_without_onnx: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(opengpu, "kernels_problem", lambda device: None)
    with caplog.at_level(logging.WARNING), Engine(device=Device.cuda(0)) as opened:
        assert opened.on_gpu
    assert "run on the processor: it is not built for it" in caplog.text
    for tuning in (Tuning(kernels=False), Tuning(precision="single")):
        with pytest.raises(DependencyMissing, match="it is not built for it"):
            Engine(device=Device.cuda(0), tuning=tuning)


def test_without_either_an_engine_says_why(
    gpu_without_onnx: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opengpu, "kernels_problem", lambda device: "no NVRTC")
    with pytest.raises(DependencyMissing, match="cuda:0 cannot be used: it is not built for it"):
        Engine(device=Device.cuda(0))


def test_a_gpus_memory_knows_whether_onnx_runtime_runs_there(gpu_without_onnx: None) -> None:
    assert CudaMemory(Device.cuda(0)).onnx_problem() == "it is not built for it"
