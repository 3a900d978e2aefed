"""Sessions of ONNX Runtime for the streams of a GPU."""

from dataclasses import replace
from typing import Any

from lipwire.domain import AvatarInvalid, Form
from lipwire.engine.forms import BATCH
from lipwire.engine.gpu.memory.devicememory import Memory
from lipwire.engine.gpu.onnx.architectures import Architecture, OpenSession
from lipwire.engine.runtime import (
    CudaOptions,
    Optimisation,
    open_session,
    read_on_processor,
    session_options,
)


def session_opener(memory: Memory, cuda: CudaOptions, *, threads: int | None) -> OpenSession:
    """Return a function that opens ONNX Runtime sessions on the device of ``memory``.

    ``cuda`` says how the sessions use the GPU, ``threads`` how many threads a run may use for the
    parts of a network that are computed on the processor (None: one for each core). The function
    takes ``(architecture, form, batch, stream)``: the ``Architecture`` to run, its form ("pixels"
    or "floats"), the number of frames of each run, and the handle of the stream to run in. It
    returns an ``onnxruntime.InferenceSession``. It raises AvatarInvalid where an input would be
    read on the processor, DependencyMissing where the GPU cannot be used, and one of
    ``RUNTIME_ERRORS`` where ONNX Runtime cannot load the graph.
    """
    level: Optimisation = "full" if cuda.fuse else "basic"

    def opened(architecture: Architecture, form: Form, batch: int, stream: int) -> Any:
        options = session_options(threads=threads, optimisation=level)
        options.add_free_dimension_override_by_name(BATCH, batch)
        tf32 = cuda.tf32 or architecture.precision == "half"
        own = replace(cuda, stream=stream, tf32=tf32)
        with memory.allocation_lock.shared():
            session = open_session(architecture.graphs[form], options, memory.device, own)
        elsewhere = read_on_processor(session) if memory.device.kind == "cuda" else ()
        if elsewhere:
            raise AvatarInvalid(
                f"{memory.device} cannot run this network: ONNX Runtime reads"
                f" {', '.join(elsewhere[:4])} ({len(elsewhere)} inputs) on the processor"
            )
        return session

    return opened
