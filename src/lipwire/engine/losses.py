"""Which errors of a GPU say that it can run nothing any more, for this process at least."""

import re
from typing import Final

_FATAL: Final = frozenset(
    (
        *(4, 46, 100, 101),  # shutting down, unavailable, not there
        *(214, 220, 226),  # memory or NVLink errors that cannot be corrected
        *(700, 709, 710, 714, 715, 716, 717, 718, 719),  # the context broke
        *(802, 999),  # the system is not ready; nobody knows
    )
)
"""Numbers of cudaError after which a process has no use of the device: it is not there, or every
later call fails as well and "the process must be terminated and relaunched"
(https://docs.nvidia.com/cuda/cuda-runtime-api/group__CUDART__TYPES.html)."""

_CUDA: Final = re.compile(r"CUDA failure (\d+): [^;\n]*")
_LIBRARY: Final = re.compile(r"(?:CUBLAS|CUDNN) failure \d+: \w+_STATUS_EXECUTION_FAILED\b")


def why_lost(error: BaseException) -> str | None:
    """What ONNX Runtime's ``error`` says of a GPU that is lost, on one line; None of any other.

    Its texts are like ``CUDA failure 700: an illegal memory access was encountered ; GPU=0 ; ...``.
    Libraries on top of CUDA report the same as an execution that failed. Out of memory is no loss.
    """
    text = str(error)
    for found in _CUDA.finditer(text):
        if int(found[1]) in _FATAL:
            return found[0].strip()
    library = _LIBRARY.search(text)
    return None if library is None else library[0]
