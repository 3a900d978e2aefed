"""Where mouths come from: networks in this process, or inference servers."""

from lipwire.rpc.backends.devices import DevicesBackend, ServerDevice, placed
from lipwire.rpc.backends.local import (
    LocalBackend,
    Network,
    NetworkKey,
    load_network,
    run_across,
    run_on,
)
from lipwire.rpc.backends.placement import Placement
from lipwire.rpc.backends.protocol import (
    Backend,
    BackendHealth,
    FloatMouths,
    GpuStatus,
    ModelStatus,
    Mouths,
)
from lipwire.rpc.backends.remote import RemoteBackend
from lipwire.rpc.backends.retries import RetryPolicy

__all__ = [
    "Backend",
    "BackendHealth",
    "DevicesBackend",
    "FloatMouths",
    "GpuStatus",
    "LocalBackend",
    "ModelStatus",
    "Mouths",
    "Network",
    "NetworkKey",
    "Placement",
    "RemoteBackend",
    "RetryPolicy",
    "ServerDevice",
    "load_network",
    "placed",
    "run_across",
    "run_on",
]
