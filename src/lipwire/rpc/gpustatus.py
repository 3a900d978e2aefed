"""A GPU's status as both services tell it."""

from typing import TypeVar

from lipwire.rpc.backends import GpuStatus
from lipwire.rpc.generated import compositing_pb2, inference_pb2

M = TypeVar("M", compositing_pb2.GpuStatus, inference_pb2.GpuStatus)


def gpu_message(kind: type[M], gpu: GpuStatus) -> M:
    """``gpu`` in the fields that ``kind`` has: they are named as there."""
    return kind(**{name: getattr(gpu, name) for name in kind.DESCRIPTOR.fields_by_name})
