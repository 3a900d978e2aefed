"""Where mouths come from: networks in this process, or inference servers."""

from lipwire.rpc.backends.protocol import (
    Backend,
    BackendHealth,
    FloatMouths,
    ModelStatus,
    Mouths,
)

__all__ = ["Backend", "BackendHealth", "FloatMouths", "ModelStatus", "Mouths"]
