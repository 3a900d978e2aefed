"""The backend that asks inference servers for mouths, over gRPC."""

from lipwire.rpc.backends.remote import RemoteBackend
from lipwire.rpc.backends.retries import RetryPolicy

__all__ = ["RemoteBackend", "RetryPolicy"]
