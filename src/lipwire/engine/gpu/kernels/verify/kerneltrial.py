"""Whether kernels of our own make the mouths of a network, found out by running them.

Kernels are written for GPUs that are not at hand when they are tested. So a device's first run of
an architecture is a trial: what its kernels make of common and extreme inputs is compared with what
ONNX Runtime makes of them on the processor, under the rule for half precision (``halfprecision``).
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from lipwire.engine.forms import FACE, MOUTH, SPEECH
from lipwire.engine.gpu.compile.gpugraphs import hard_inputs
from lipwire.engine.gpu.compile.halfprecision import why_not_half
from lipwire.engine.gpu.kernels.planning.plan import Plan
from lipwire.engine.gpu.kernels.running.kernelruns import KernelRuns, Part, Program
from lipwire.engine.gpu.memory.devicememory import Bytes, Memory, Region
from lipwire.engine.runtime import open_session, session_options
from lipwire.engine.store.files import StoredWeight

_MULTIPROCESSORS: Final = (1, 1 << 16)
"""Of devices that few frames are much work for, and hardly any."""


def why_not_planned(plan: Plan, weights: Sequence[StoredWeight], image: Bytes) -> str | None:
    """Return in one line which of the numbers that are built into ``plan`` (``Plan.constants``) has
    another value in an avatar's weights; None where all are the same, and kernels of the plan may
    run with these weights.

    ``image`` is the avatar's weights as they are stored, (bytes,) uint8; ``weights`` says where
    each lies in it.
    """
    of_name = {weight.name: weight for weight in weights}
    for name, wanted in plan.constants:
        value = float(_values(image, of_name[name]).reshape(()))
        if value != wanted:
            return f"{name} is {value}, planned is {wanted}"
    return None


def why_not_the_same(
    memory: Memory,
    program: Program,
    graph: bytes,
    fixed_batch: int | None,
    weights: Sequence[StoredWeight],
    image: Bytes,
) -> str | None:
    """Run the kernels of ``program`` and ONNX Runtime on the same frames; return in one line how
    their mouths differ; None where they differ by no more than ``why_not_half`` allows.

    ``memory`` is that of the device. ``graph`` is the bytes of the network that ONNX Runtime runs
    (pixels-half.onnx), and ``fixed_batch`` the only batch size that it takes (None: any). ``image``
    is the weights for both, (bytes,) uint8, and ``weights`` says where each lies in it. Takes three
    inferences on the processor. The kernels run twice, once launched in the way of large batches
    and once in that of small ones, because these use different kernels. Raises DeviceOutOfMemory
    where the device has no room for the trial, DeviceLost where it has failed, KernelsUnavailable
    where the kernels cannot run on it, and one of ``RUNTIME_ERRORS`` where ONNX Runtime fails.
    """
    batches = hard_inputs(fixed_batch)
    faces = np.concatenate([batch[FACE] for batch in batches])
    speech = np.concatenate([batch[SPEECH] for batch in batches])
    made = [np.empty_like(faces) for _ in _MULTIPROCESSORS]
    with ExitStack() as stack:
        stream = memory.open_stream()
        stack.callback(memory.close_stream, stream)
        region = stack.enter_context(_allocated(memory, image.nbytes))
        memory.upload(stream, region.address, image)
        for multiprocessors, mouths in zip(_MULTIPROCESSORS, made, strict=True):
            lowered = program.lowered.launched_for(multiprocessors)
            runs = KernelRuns(memory, replace(program, lowered=lowered), stream)
            stack.callback(runs.close)
            stack.callback(_settle, memory, stream)
            runs.run([Part(region.address, faces, speech, mouths)])
    session = open_session(graph, session_options(threads=None, optimisation="basic"))
    feeds = {weight.name: _values(image, weight) for weight in weights}
    wanted = np.concatenate([session.run([MOUTH], {**batch, **feeds})[0] for batch in batches])
    reasons = (why_not_half(wanted, mouths) for mouths in made)
    return next((reason for reason in reasons if reason is not None), None)


def _settle(memory: Memory, stream: int) -> None:
    """A run that fails may leave copies under way, to and from memory that is freed next."""
    with suppress(RuntimeError):  # of a recording that broke off: the first error says why
        memory.wait(stream)


@contextmanager
def _allocated(memory: Memory, size_bytes: int) -> Iterator[Region]:
    with memory.allocation_lock.shared():
        region = memory.allocate(size_bytes)
    try:
        yield region
    finally:
        with memory.allocation_lock.shared():
            memory.free(region)


def _values(image: Bytes, weight: StoredWeight) -> npt.NDArray[Any]:
    dtype = np.dtype(weight.element_type)
    size_bytes = int(np.prod(weight.shape)) * dtype.itemsize
    found = image[weight.offset_bytes : weight.offset_bytes + size_bytes]
    return found.view(dtype).reshape(weight.shape)
