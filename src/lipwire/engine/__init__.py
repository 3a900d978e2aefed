"""Networks: checked, compiled once, and run for many avatars through shared sessions.

``compile_model`` turns an avatar's ONNX file into a graph without weights and one file of weights;
``Engine.load`` maps the weights and finds the session that every avatar of the architecture shares.
On a GPU the weights come and go between its memory, pinned memory and the disk (``Tuning``).
``Scheduler`` puts the requests of many callers in order and runs them on a few threads.
"""

from lipwire.engine.compiling import compile_model
from lipwire.engine.crops import CropStats
from lipwire.engine.devices import Device, cuda_problem
from lipwire.engine.driver import Driver, GpuInfo, GpuState, NoDriver, open_driver
from lipwire.engine.engine import Engine, Model, Request
from lipwire.engine.faces import Frames
from lipwire.engine.gpu import GpuMemoryUse
from lipwire.engine.inspection import ModelInfo, inspect_model
from lipwire.engine.jobs import Job
from lipwire.engine.memory import DeviceLost
from lipwire.engine.optimising import runtime_key
from lipwire.engine.scheduler import Scheduler
from lipwire.engine.schedulerstats import Quantiles, SchedulerStats
from lipwire.engine.tuning import Tuning

__all__ = [
    "CropStats",
    "Device",
    "DeviceLost",
    "Driver",
    "Engine",
    "Frames",
    "GpuInfo",
    "GpuMemoryUse",
    "GpuState",
    "Job",
    "Model",
    "ModelInfo",
    "NoDriver",
    "Quantiles",
    "Request",
    "Scheduler",
    "SchedulerStats",
    "Tuning",
    "compile_model",
    "cuda_problem",
    "inspect_model",
    "open_driver",
    "runtime_key",
]
