"""What Lipwire finds out about, or is told of, the place it runs in.

The configurations need pydantic and YAML, which are imported when one is asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from lipwire.config.machine import Machine, describe_machine, usable_cores

if TYPE_CHECKING:
    from lipwire.config.compositing import CompositingConfig
    from lipwire.config.environment import Kind
    from lipwire.config.inference import InferenceConfig
    from lipwire.config.loading import (
        Checked,
        check_config,
        detect_kind,
        load_compositing_config,
        load_inference_config,
    )
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
]

_MODULES: Final = {
    "Checked": "loading",
    "CompositingConfig": "compositing",
    "InferenceConfig": "inference",
    "Kind": "environment",
    "ModelEntry": "settings",
    "ServerConfig": "settings",
    "check_config": "loading",
    "detect_kind": "loading",
    "load_compositing_config": "loading",
    "load_inference_config": "loading",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
