"""Networks: checked, compiled once, and run for many avatars through shared sessions.

``compile_model`` turns an avatar's ONNX file into a graph without weights and one file of weights,
and ``compile_for_gpu`` into those that a GPU takes;
``Engine.load`` maps the weights and finds the session that every avatar of the architecture shares.
On a GPU the weights come and go between its memory, pinned memory and the disk (``Tuning``). What
runs there is in ``lipwire.engine.gpu``, which is imported when a GPU is asked for. On a processor
that computes bfloat16, networks that are used much are specialised (``HotTier``).
"""

from lipwire.engine.compile.compilation import compile_model
from lipwire.engine.compile.inspection import ModelInfo, inspect_model
from lipwire.engine.compile.sourcemodel import external_files
from lipwire.engine.compile.trial import NetworkTrial
from lipwire.engine.device import Device, DeviceLost
from lipwire.engine.facade import Engine, compile_for_gpu, kernels_problem
from lipwire.engine.model import Model, Request
from lipwire.engine.nvml import Driver, GpuInfo, GpuState, NoDriver, open_driver
from lipwire.engine.runner import Frames
from lipwire.engine.runtime import cuda_problem
from lipwire.engine.special.hot import HotStats, HotTier
from lipwire.engine.special.store import folders_made_of, special_folder
from lipwire.engine.store.runtimekey import FORMAT_VERSION, gpu_runtime_key, runtime_key
from lipwire.engine.tuning import MOST_FRAMES, Tuning
from lipwire.engine.usage import CropStats, GpuMemoryUse

__all__ = [
    "FORMAT_VERSION",
    "MOST_FRAMES",
    "CropStats",
    "Device",
    "DeviceLost",
    "Driver",
    "Engine",
    "Frames",
    "GpuInfo",
    "GpuMemoryUse",
    "GpuState",
    "HotStats",
    "HotTier",
    "Model",
    "ModelInfo",
    "NetworkTrial",
    "NoDriver",
    "Request",
    "Tuning",
    "compile_for_gpu",
    "compile_model",
    "cuda_problem",
    "external_files",
    "folders_made_of",
    "gpu_runtime_key",
    "inspect_model",
    "kernels_problem",
    "open_driver",
    "runtime_key",
    "special_folder",
]
