"""Networks: checked, compiled once, and run for many avatars through shared sessions.

``compile_model`` turns an avatar's ONNX file into a graph without weights and one file of weights;
``Engine.load`` maps the weights and finds the session that every avatar of the architecture shares.
"""

from lipwire.engine.compiling import compile_model
from lipwire.engine.devices import Device
from lipwire.engine.engine import Engine, Model
from lipwire.engine.inspection import ModelInfo, inspect_model
from lipwire.engine.optimising import runtime_key

__all__ = [
    "Device",
    "Engine",
    "Model",
    "ModelInfo",
    "compile_model",
    "inspect_model",
    "runtime_key",
]
