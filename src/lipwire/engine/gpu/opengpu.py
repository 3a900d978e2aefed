"""Opening a GPU, where ONNX Runtime or kernels of Lipwire's own run on it."""

import logging
from contextlib import suppress
from typing import Final

from lipwire.domain import DependencyMissing
from lipwire.engine.device import Device
from lipwire.engine.gpu.gpurunner import Gpu
from lipwire.engine.gpu.kernels.cuda.cudaprograms import kernels_problem, open_cuda
from lipwire.engine.gpu.memory.devicememory import Memory
from lipwire.engine.runtime import cuda_problem
from lipwire.engine.tuning import Tuning

_LOG: Final = logging.getLogger(__name__)


def open_gpu(
    device: Device, tuning: Tuning, memory: Memory | None = None, *, threads: int | None = None
) -> Gpu:
    """Return a ``Gpu``, which runs networks on GPU ``device`` in the way that ``tuning`` says; the
    caller closes it.

    ``memory`` replaces the GPU's own memory, and ``device`` is not opened then; None for the GPU's
    own. ``threads`` is how many threads a run may use for the parts of a network that are computed
    on the processor (None: one for each core). Raises DependencyMissing where CUDA cannot be used,
    neither by ONNX Runtime nor by Lipwire's own kernels, DeviceLost where there is no such GPU,
    DeviceOutOfMemory where its memory is full.
    """
    if memory is None:
        memory = _cuda_memory(device, tuning)
    return Gpu(memory, tuning, threads=threads)


def _cuda_memory(device: Device, tuning: Tuning) -> Memory:
    problem = cuda_problem(device)
    if problem is None:
        return open_cuda(device)
    if tuning.kernels and tuning.precision == "half" and kernels_problem(device) is None:
        _LOG.warning(
            "%s: networks that kernels of Lipwire's own do not run, and floats instead of pixels,"
            " run on the processor: %s",
            device,
            problem,
        )
        return open_cuda(device)
    with suppress(DependencyMissing):
        open_cuda(device)  # raises DeviceLost where it is this GPU alone
    raise DependencyMissing(f"{device} cannot be used: {problem}")
