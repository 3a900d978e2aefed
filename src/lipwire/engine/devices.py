"""Where networks run. The only module that names an execution provider.

Another device is another branch here: its provider is named when it is asked for, and nothing of
it is loaded before.
"""

from typing import Any, Final, Literal, get_args

import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as _state

from lipwire.domain import InvalidInput

Device = Literal["cpu"]
Optimisation = Literal["full", "none"]

_QUIET: Final = 4
"""Log level: what ends the process. The rest is raised as well, and becomes one line there."""

RUNTIME_ERRORS: Final[tuple[type[Exception], ...]] = (
    *(e for e in vars(_state).values() if isinstance(e, type) and issubclass(e, Exception)),
    RuntimeError,
    ValueError,
    MemoryError,
)
"""What ONNX Runtime raises for a network that it cannot load or run; they have no common base."""


def providers(device: Device) -> list[str]:
    """Execution providers for ``device``, the preferred one first. Raises InvalidInput."""
    if device not in get_args(Device):
        raise InvalidInput(f"device is {device!r}, allowed is 'cpu'")
    return ["CPUExecutionProvider"]


def session_options(*, threads: int | None, optimisation: Optimisation) -> Any:
    """Options of a session: ``threads`` (None: as many as there are cores) inside one call.

    The memory arena is on (its default): without it every call would fault its activations in
    again (twice the time). It belongs to a session, and sessions are shared by all avatars of an
    architecture. Threads that wait do not spin: at 25 frames a second and two threads, spinning
    took 56 ms of processor time a frame where sleeping takes 34.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _QUIET
    options.intra_op_num_threads = threads or 0
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = (
        levels.ORT_ENABLE_ALL if optimisation == "full" else levels.ORT_DISABLE_ALL
    )
    return options


def memory_returned() -> Any:
    """Options of a run after which the session's arena gives back what is free."""
    options = onnxruntime.RunOptions()
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    return options


def open_session(model: bytes, options: Any, device: Device = "cpu") -> Any:
    """An ``onnxruntime.InferenceSession`` of serialised ``model``."""
    return onnxruntime.InferenceSession(model, options, providers=providers(device))
