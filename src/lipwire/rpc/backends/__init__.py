"""Where mouths come from: networks in this process, or inference servers."""

from lipwire.rpc.backends.local import LocalBackend, Network, NetworkKey, load_network, run_on
from lipwire.rpc.backends.protocol import (
    Backend,
    BackendHealth,
    FloatMouths,
    ModelStatus,
    Mouths,
)
from lipwire.rpc.backends.remote import RemoteBackend
from lipwire.rpc.backends.retries import RetryPolicy

__all__ = [
    "Backend",
    "BackendHealth",
    "FloatMouths",
    "LocalBackend",
    "ModelStatus",
    "Mouths",
    "Network",
    "NetworkKey",
    "RemoteBackend",
    "RetryPolicy",
    "load_network",
    "run_on",
]
