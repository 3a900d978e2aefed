"""What the engine's packages load, and how they are laid out."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from lipwire.bench.randomnetworks import write_tiny_unet

ENGINE = Path(__file__).resolve().parents[2] / "src" / "lipwire" / "engine"
MOST_MODULES = 15


def loaded_after(program: str) -> list[str]:
    """Modules of the engine that a fresh interpreter has loaded when it has run ``program``."""
    shown = subprocess.run(
        [sys.executable, "-c", f"{program}\nimport sys; print(*sorted(sys.modules))"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    return [name for name in shown if name.startswith("lipwire.engine")]


@pytest.mark.slow
def test_importing_the_engine_loads_nothing_of_gpus() -> None:
    loaded = loaded_after("import lipwire.engine")
    assert "lipwire.engine.facade" in loaded
    assert [name for name in loaded if name.startswith("lipwire.engine.gpu")] == []


@pytest.mark.slow
def test_compiling_and_running_on_the_processor_loads_nothing_of_gpus(tmp_path: Path) -> None:
    write_tiny_unet(tmp_path / "model.onnx", seed=1)
    (tmp_path / "compiled").mkdir()
    program = f"""
import pathlib, numpy as np, lipwire.engine as engine
folder = pathlib.Path({str(tmp_path)!r})
engine.compile_model(folder / "model.onnx", folder / "compiled")
with engine.Engine(threads=1) as opened:
    model = opened.load(folder / "compiled")
    crops = np.zeros((1, 320, 320, 3), np.uint8)
    opened.infer(model, crops, np.zeros((1, 32, 16, 16), np.float32))
"""
    loaded = loaded_after(program)
    assert "lipwire.engine.compile.compilation" in loaded
    assert [name for name in loaded if name.startswith("lipwire.engine.gpu")] == []


def test_no_file_name_occurs_twice_in_the_engine() -> None:
    names = Counter(path.name for path in ENGINE.rglob("*.py") if path.name != "__init__.py")
    assert len(names) > 50
    assert [name for name, count in names.items() if count > 1] == []


@pytest.mark.parametrize(
    "folder",
    sorted({path.parent for path in ENGINE.rglob("*.py")}),
    ids=lambda folder: str(folder.relative_to(ENGINE.parent)),
)
def test_no_folder_holds_too_many_modules(folder: Path) -> None:
    assert len(list(folder.glob("*.py"))) <= MOST_MODULES
