"""What went wrong on a GPU, by what ONNX Runtime says: it has no errors of its own for that."""

import re
from typing import Final

_OUT_OF_MEMORY: Final = re.compile(
    r"out of memory|OutOfMemory|bad_alloc|Failed to allocate memory|CUD(A|NN)\w*_ALLOC_FAILED"
    r"|CUBLAS_STATUS_ALLOC_FAILED|Available memory of \d+ is smaller than requested",
    re.IGNORECASE,
)
_DEVICE_LOST: Final = re.compile(
    r"CUDA (failure|error) (4|46|100|101|2\d\d|7(00|02|14|16|17|18|19|20)|999)\b"
    r"|unspecified launch failure|illegal memory access|device-side assert",
    re.IGNORECASE,
)
"""Errors after which nothing works any more in this process on that device (cudaError_t)."""


def is_out_of_memory(error: Exception) -> bool:
    """Return whether ``error``, which ONNX Runtime raised, says that the memory of the device was
    full."""
    return _OUT_OF_MEMORY.search(str(error)) is not None


def is_device_lost(error: Exception) -> bool:
    """Return whether ``error``, which ONNX Runtime raised, says that this process cannot use the
    device any more."""
    return _DEVICE_LOST.search(str(error)) is not None
