"""Networks in kernels of our own, from the avatar's folder to the mouths.

The kernels are those of a GPU, run by the emulator over memory of the processor; what they make is
compared with plain ONNX Runtime.
"""

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.engine.emulated import EmulatedPrograms
from tests.engine.emulator import compiler_problem

from lipwire.bench.models import write_unet
from lipwire.engine import Engine, compile_model
from lipwire.engine.memory import HostMemory

pytestmark = pytest.mark.skipif(compiler_problem() is not None, reason=str(compiler_problem()))

WIDTHS = (16, 16, 16, 16, 16)
PLENTY = 1 << 30


@pytest.fixture(scope="session")
def avatars(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Path, Path]]:
    """(network, compiled) of three avatars of one architecture."""
    root = tmp_path_factory.mktemp("unets")
    made = []
    for seed in range(3):
        source, folder = root / f"{seed}.onnx", root / str(seed)
        write_unet(source, seed=seed, widths=WIDTHS)
        folder.mkdir()
        compile_model(source, folder)
        made.append((source, folder))
    return made


@pytest.fixture
def programs(tmp_path_factory: pytest.TempPathFactory) -> EmulatedPrograms:
    folder = tmp_path_factory.getbasetemp() / "kernels"
    folder.mkdir(exist_ok=True)
    return EmulatedPrograms(folder)


@pytest.fixture
def memory(programs: EmulatedPrograms) -> Iterator[HostMemory]:
    """All of it has to be given back."""
    memory = HostMemory(PLENTY, programs=programs)
    yield memory
    gc.collect()
    assert (memory.regions, memory.host_blocks, programs.loaded) == (0, 0, 0)


def _near(made: Any, wanted: Any) -> bool:
    apart = np.abs(made.astype(int) - wanted)
    return bool(apart.max() <= 2 and apart.mean() <= 0.2)


def test_kernels_make_what_the_network_makes(
    memory: HostMemory, programs: EmulatedPrograms, avatars: Any, oracle: Any, make_inputs: Any
) -> None:
    with Engine(threads=1, memory=memory) as engine:
        models = [engine.load(folder) for _, folder in avatars]
        for frames in (1, 3, 2):
            inputs = make_inputs(frames, seed=frames)
            for (source, _), model in zip(avatars, models, strict=True):
                made = engine.infer(model, inputs.crops, inputs.windows)
                assert _near(made, oracle(source).pixels(inputs))
        assert programs.runs == 1 + 3 * 3  # the trial, and every batch
