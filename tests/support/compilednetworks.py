"""Networks compiled for the processor and for GPUs: the second lies in a folder in the first."""

from pathlib import Path

from lipwire.engine import Engine, Model, compile_model
from lipwire.engine.gpu.compile.gpucompilation import compile_for_gpu
from lipwire.engine.graphs import PRECISIONS
from lipwire.engine.runner import Frames


def compile_both(source: Path, folder: Path) -> Path:
    """Compile the network in the file ``source`` into the new folder ``folder``, for GPUs in every
    precision that it is fit for."""
    folder.mkdir()
    compile_model(source, folder)
    gpu_folder(folder).mkdir()
    compile_for_gpu(source, folder, gpu_folder(folder), PRECISIONS)
    return folder


def gpu_folder(folder: Path) -> Path:
    """What ``compile_both`` made for GPUs."""
    return folder / "gpu"


def load_both(engine: Engine, folder: Path, frames: Frames | None = None) -> Model:
    """A network of ``compile_both``: on a GPU where ``engine`` has one."""
    return engine.load(folder, frames, for_gpu=gpu_folder(folder))
