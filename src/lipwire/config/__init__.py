"""What Lipwire finds out about the machine that it runs on, and the configurations of the servers.

The configurations need pydantic and YAML, which are imported when one is asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from lipwire.config.machine import Machine, describe_machine, usable_cores
from lipwire.config.memory import usable_memory_bytes

if TYPE_CHECKING:
    from lipwire.config.compositing import CompositingConfig
    from lipwire.config.inference import InferenceConfig
    from lipwire.config.loading import (
        Checked,
        check_config,
        detect_kind,
        load_compositing_config,
        load_inference_config,
    )
    from lipwire.config.schema import Kind
    from lipwire.config.settings import ModelEntry, ServerConfig

__all__ = [
    "Checked",
    "CompositingConfig",
    "InferenceConfig",
    "Kind",
    "Machine",
    "ModelEntry",
    "ServerConfig",
    "check_config",
    "describe_machine",
    "detect_kind",
    "load_compositing_config",
    "load_inference_config",
    "usable_cores",
    "usable_memory_bytes",
]

_NEEDING_PYDANTIC: Final = ("loading", "settings")
"""Modules that have the names that are not imported above."""


def __getattr__(name: str) -> Any:
    for module in _NEEDING_PYDANTIC if name in __all__ else ():
        if hasattr(found := import_module(f"{__name__}.{module}"), name):
            return getattr(found, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
