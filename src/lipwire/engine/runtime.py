"""ONNX Runtime: sessions on a device, and what it raises.

The only module that names an execution provider.

Nothing of CUDA is loaded before a CUDA device is asked for: ``cuda_problem`` and ``open_session``
load its libraries, importing this module does not.
"""

import contextlib
import ctypes
import functools
import io
import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import onnxruntime
from onnx import TensorProto, helper
from onnxruntime.capi import onnxruntime_pybind11_state as _state

from lipwire.config import usable_cores
from lipwire.domain import DependencyMissing
from lipwire.domain.wording import escaped
from lipwire.engine.device import CPU, FIRST_GPU, Device

Optimisation = Literal["full", "basic", "none"]

_LOG: Final = logging.getLogger(__name__)
_QUIET: Final = 4
"""Log level: what ends the process. The rest is raised as well, and becomes one line there."""
DRIVER: Final = "libcuda.so.1"
"""File name of CUDA's driver, which comes with the GPU's driver."""
_CPU_PROVIDER: Final = "CPUExecutionProvider"
_CUDA_PROVIDER: Final = "CUDAExecutionProvider"

_RUNTIME_CODE: Final = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ")
RUNTIME_ERRORS: Final[tuple[type[Exception], ...]] = (
    *(e for e in vars(_state).values() if isinstance(e, type) and issubclass(e, Exception)),
    RuntimeError,
    ValueError,
    MemoryError,
)
"""What ONNX Runtime raises for a network that it cannot load or run; they have no common base."""


@dataclass(frozen=True, slots=True)
class CudaOptions:
    """How an ONNX Runtime session uses its GPU; the options are those of
    https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html.

    ``stream`` is the handle of the CUDA stream that it computes in; 0 for one of its own.
    ``channels_last`` has convolutions computed in NHWC. ``graphs`` records the kernels of a run and
    launches them together from then on, for which inputs and outputs must stay where they are.
    ``tf32`` lets products use the matrix units, which rounds factors of float32 to 10 bits.
    ``fuse`` joins a convolution and what follows it into one kernel; ``fuse_bias`` has cuDNN add
    the bias while it convolves. ``exhaustive`` looks longer for the quickest convolution on the
    first run.
    """

    stream: int = 0
    """The CUDA stream that it computes on, as a number; 0 for one of its own."""
    channels_last: bool = False
    """Convolutions in NHWC, the layout of the matrix units, with transposes where it is left."""
    graphs: bool = False
    """Record the kernels of a run once and launch them together from then on. Needs inputs and
    outputs that stay where they are, and every node on the GPU."""
    tf32: bool = False
    """Let products use the matrix units. Factors of float32 are rounded to 10 bits there, which are
    not the processor's values any more; float16 loses nothing. Named as ONNX Runtime names it,
    which without it keeps float16 from the matrix units as well."""
    fuse: bool = True
    """Join a convolution and what follows it into one kernel."""
    fuse_bias: bool = False
    """Ask cuDNN to add the bias while it convolves, also where nothing else is joined."""
    exhaustive: bool = True
    """Look longer for the quickest convolution on the first run."""


def first_line(error: BaseException) -> str:
    """Return the first line of the message of ``error``, which a library raised, without ONNX
    Runtime's error code and cut to 240 characters; the name of the error's type where the message
    is empty. Control characters are escaped, because names from a file may contain some."""
    lines = _RUNTIME_CODE.sub("", str(error).strip()).splitlines()
    if not lines:
        return type(error).__name__
    return escaped(lines[0])[:240]


def providers(device: Device, cuda: CudaOptions | None = None) -> list[Any]:
    """Return the execution providers for ``device``, in the form that
    ``onnxruntime.InferenceSession`` takes: names, or (name, options), the preferred one first.
    ``cuda`` says how a GPU is used (None: the defaults of ``CudaOptions``)."""
    if device.kind == "cpu":
        return [_CPU_PROVIDER]
    cuda = cuda or CudaOptions()
    options = {
        "device_id": str(device.index),
        # The arena grows by what is asked for, not to the next power of two: it is kept for good.
        "arena_extend_strategy": "kSameAsRequested",
        "cudnn_conv_algo_search": "EXHAUSTIVE" if cuda.exhaustive else "HEURISTIC",
        "cudnn_conv_use_max_workspace": "1",
        "do_copy_in_default_stream": "1",
        "use_tf32": str(int(cuda.tf32)),
        "prefer_nhwc": str(int(cuda.channels_last)),
        "fuse_conv_bias": str(int(cuda.fuse_bias)),
        "enable_cuda_graph": str(int(cuda.graphs)),
    }
    if cuda.stream:
        options["user_compute_stream"] = str(cuda.stream)
    # What cannot run on the GPU (shapes, mostly) runs on the processor.
    return [(_CUDA_PROVIDER, options), _CPU_PROVIDER]


def session_options(*, threads: int | None, optimisation: Optimisation) -> Any:
    """Return ``onnxruntime.SessionOptions`` for opening a session. Its calls use ``threads``
    threads (None: one for each core); ``optimisation`` says how ONNX Runtime optimises the graph
    when it is opened: "full", "basic" (nothing that depends on the machine), or "none".

    The memory arena is on (its default): without it every call would fault its activations in again
    (twice the time). The arena belongs to a session, and sessions are shared by all avatars of an
    architecture. Threads that wait do not spin: at 25 frames a second and two threads, spinning
    took 56 ms of processor time a frame where sleeping takes 34.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _QUIET
    options.intra_op_num_threads = threads or usable_cores()
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = {
        "full": levels.ORT_ENABLE_ALL,
        "basic": levels.ORT_ENABLE_BASIC,
        "none": levels.ORT_DISABLE_ALL,
    }[optimisation]
    return options


def memory_returned() -> Any:
    """Return ``onnxruntime.RunOptions`` for a run after which the session frees the memory on the
    processor that it does not use."""
    options = onnxruntime.RunOptions()
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    return options


def not_waited_for() -> Any:
    """Return ``onnxruntime.RunOptions`` for a run that returns when its work is in the GPU's
    stream, without waiting for it to be done."""
    options = onnxruntime.RunOptions()
    options.add_run_config_entry("disable_synchronize_execution_providers", "1")
    return options


def open_session(
    model: bytes, options: Any, device: Device = CPU, cuda: CudaOptions | None = None
) -> Any:
    """Return an ``onnxruntime.InferenceSession`` of ``model``, the bytes of an ONNX file, on
    ``device``.

    ``options`` are what ``session_options`` returns; ``cuda`` says how a GPU is used (None: the
    defaults of ``CudaOptions``). Raises DependencyMissing where ``device`` is a GPU that cannot be
    used: ONNX Runtime by itself would run the model on the processor instead. Raises one of
    ``RUNTIME_ERRORS`` for a model that ONNX Runtime cannot load.
    """
    if device.kind == "cuda":
        _load_cuda()
    session = onnxruntime.InferenceSession(
        model, options, providers=providers(device, cuda), enable_fallback=0
    )
    if device.kind == "cuda" and session.get_providers()[0] != _CUDA_PROVIDER:
        raise DependencyMissing(f"{device} cannot be used: {_why_it_does_not_load()}")
    return session


def read_on_processor(session: Any) -> tuple[str, ...]:
    """Return the names of those inputs of ``session`` that it reads from the processor's memory; an
    empty tuple where this version of ONNX Runtime (before 1.23) does not say.

    Such an input, bound to memory of a GPU, would be copied when it is bound, and later changes
    there would not be seen.
    """
    infos = getattr(session, "get_input_memory_infos", None)  # since ONNX Runtime 1.23
    if infos is None:
        return ()
    pairs = zip(session.get_inputs(), infos(), strict=False)
    return tuple(value.name for value, info in pairs if info.name == "Cpu")


def placed_nodes(session: Any) -> dict[str, dict[str, int]]:
    """Return how many nodes of each operator run on each execution provider, as counts by the
    provider's name and then by the operator's.

    ``session`` has to be opened with options that ``note_placement`` has changed. Returns an empty
    dict where this version of ONNX Runtime does not say.
    """
    tell = getattr(session, "get_provider_graph_assignment_info", None)
    found: dict[str, dict[str, int]] = {}
    for part in tell() if tell is not None else ():
        counts = found.setdefault(part.ep_name, {})
        for node in part.get_nodes():
            counts[node.op_type] = counts.get(node.op_type, 0) + 1
    return found


def note_placement(options: Any) -> None:
    """Change ``options``, an ``onnxruntime.SessionOptions``, so that ``placed_nodes`` can say which
    nodes run where in a session that is opened with them."""
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")


def cuda_problem(device: Device = FIRST_GPU) -> str | None:
    """Return why ONNX Runtime cannot run networks on ``device``, a GPU, in one line; None where it
    can.

    The first call loads CUDA's libraries where ONNX Runtime was built for them, starts that GPU and
    no other, and runs a trial there. The answer is kept until the process ends, even if the GPU
    becomes usable meanwhile.
    """
    return _cuda_problem(device)


@functools.cache
def _cuda_problem(device: Device) -> str | None:
    if _CUDA_PROVIDER not in onnxruntime.get_available_providers():
        return (
            f"ONNX Runtime {onnxruntime.__version__} is built without CUDA here"
            " (docs/performance.md says how to install the other build)"
        )
    try:
        ctypes.CDLL(DRIVER)
    except OSError:
        return "there is no NVIDIA driver here"
    _load_cuda()
    try:
        options = session_options(threads=1, optimisation="none")
        session = open_session(_smallest_model(), options, device)
        session.run(None, {"x": np.ones(1, np.float32)})
    except DependencyMissing:
        return _why_it_does_not_load()
    except RUNTIME_ERRORS as error:
        return f"CUDA does not start on {device}: {str(error).splitlines()[0][:200]}"
    return None


@functools.cache
def _load_cuda() -> None:
    """Load CUDA and cuDNN from where pip puts them, or the system; once in a process.

    The loader of ONNX Runtime prints what it does not find, which is no failure: some of it may
    never be needed. What is wrong in earnest becomes one line here, not several of its own.
    """
    onnxruntime.set_default_logger_severity(_QUIET)
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        try:
            onnxruntime.preload_dlls()
        except Exception as error:  # documented to raise nothing; a session says what is missing
            said.write(f"{type(error).__name__}: {error}")
    for line in said.getvalue().splitlines():
        _LOG.debug("loading CUDA: %s", line)


def _why_it_does_not_load() -> str:
    """What the system's loader says about the provider, which ONNX Runtime only logs."""
    library = Path(onnxruntime.__file__).parent / "capi" / "libonnxruntime_providers_cuda.so"
    try:
        ctypes.CDLL(str(library))
    except OSError as error:
        return f"CUDA or cuDNN does not load ({str(error).splitlines()[0][:160]})"
    return "CUDA or cuDNN does not load"


def _smallest_model() -> bytes:
    """Twice a number."""
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "x"], ["y"])],
        "probe",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())
