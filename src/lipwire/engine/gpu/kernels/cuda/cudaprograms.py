"""``Programs`` of one of NVIDIA's GPUs: kernels compiled by NVRTC, launched by CUDA's driver.

A recording is a CUDA graph, made node by node: to run it is one call, and the GPU goes from kernel
to kernel by itself. Nothing is captured from a stream, so what else uses CUDA meanwhile does no
harm.
"""

import ctypes
import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from lipwire.domain import DependencyMissing
from lipwire.engine.device import Device, DeviceLost
from lipwire.engine.gpu.kernels.cuda.cubins import Cubins
from lipwire.engine.gpu.memory.cudamemory import CudaMemory, KernelNode, Refused
from lipwire.engine.gpu.memory.devicememory import DeviceOutOfMemory
from lipwire.engine.gpu.programs import (
    KernelSource,
    KernelsUnavailable,
    Launch,
    Limits,
    Module,
    Recording,
)

_LEAST_CAPABILITY: Final = (8, 0)
"""What ``device.h`` is made of: mma.m16n8k16 of float16, ldmatrix, cp.async."""

_CAPABILITY_MAJOR: Final = 75
_CAPABILITY_MINOR: Final = 76
_MULTIPROCESSORS: Final = 16
_COMPUTE_MODE: Final = 20
_SHARED_BYTES: Final = 97
"""CU_DEVICE_ATTRIBUTE_..., this one MAX_SHARED_MEMORY_PER_BLOCK_OPTIN."""
_EXCLUSIVE: Final = 3
"""CU_COMPUTEMODE_EXCLUSIVE_PROCESS."""
_MAX_DYNAMIC_SHARED_BYTES: Final = 8
"""CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES."""
_REFUSALS: Final = frozenset({1, 200, 209, 218, 222, 300, 301, 302, 303, 500, 701, 801})
"""CUDA_ERROR_INVALID_VALUE, _INVALID_IMAGE, _NO_BINARY_FOR_GPU, _INVALID_PTX,
_UNSUPPORTED_PTX_VERSION, _INVALID_SOURCE and what else a module may lack, _NOT_FOUND,
_LAUNCH_OUT_OF_RESOURCES, _NOT_SUPPORTED: said of these kernels, not of the device."""

_MAX_GRID: Final = (2**31 - 1, 2**16 - 1, 2**16 - 1)
_MAX_THREADS: Final = 1024


@dataclass(frozen=True, slots=True)
class _Function:
    handle: int
    shared_bytes: int
    """Dynamic shared memory that a launch may ask for."""


class CudaPrograms:
    """Loads and runs Lipwire's own kernels on an NVIDIA GPU, in the way that ``Programs``
    describes. Thread-safe."""

    def __init__(self, memory: CudaMemory, cubins: Cubins | None = None) -> None:
        """``memory`` is that of the GPU; ``cubins`` compiles kernels; None for a ``Cubins`` that
        keeps them in the user's cache folder. Raises KernelsUnavailable for a GPU that lacks what
        the kernels need, and DeviceLost where it has failed."""
        self._memory = memory
        self._cubins = cubins or Cubins()
        version = ctypes.c_int()
        memory.call("cuDriverGetVersion", ctypes.byref(version))
        self._cuda_major = version.value // 1000
        self.limits: Final = Limits(
            (self._attribute(_CAPABILITY_MAJOR), self._attribute(_CAPABILITY_MINOR)),
            self._attribute(_MULTIPROCESSORS),
            self._attribute(_SHARED_BYTES),
        )
        facts = (*self.limits.capability, self.limits.multiprocessors, self.limits.shared_bytes)
        # One process is all that an exclusive device takes: there is nobody else to try kernels.
        exclusive = self._attribute(_COMPUTE_MODE) == _EXCLUSIVE
        self.identity: Final = None if exclusive else "-".join(map(str, (*facts, version.value)))
        if self.limits.capability < _LEAST_CAPABILITY:
            raise KernelsUnavailable(
                "{} has compute capability {}.{}, the kernels need {}.{}".format(
                    memory.device, *self.limits.capability, *_LEAST_CAPABILITY
                )
            )

    def check_compiler(self) -> None:
        """Raise KernelsUnavailable where there is no compiler on this machine: then only kernels
        that were compiled before can be loaded."""
        self._cubins.check_compiler(self._cuda_major)

    def load(self, source: KernelSource) -> Module:
        """Load the kernels of ``source`` on the GPU; they are compiled now, which takes seconds,
        unless they were compiled before.

        The caller must not hold ``Memory.allocation_lock``, and passes the result to ``drop`` in
        the end. Raises KernelsUnavailable where they cannot be compiled or need more than the GPU
        has, DeviceOutOfMemory where its memory is full, and DeviceLost where the GPU has failed.
        """
        for name, shared_bytes in source.kernels.items():
            if shared_bytes > self.limits.shared_bytes:
                raise KernelsUnavailable(
                    f"kernel {name} needs {shared_bytes} bytes of shared memory,"
                    f" {self._memory.device} has {self.limits.shared_bytes}"
                )
        cubin = self._cubins.cubin(source, self.limits.capability, self._cuda_major)
        handle = ctypes.c_void_p()
        with self._memory.allocation_lock.shared():
            self._ask("cuModuleLoadData", ctypes.byref(handle), cubin)
            try:
                functions = {
                    name: self._function(handle, name, shared_bytes)
                    for name, shared_bytes in source.kernels.items()
                }
            except BaseException:
                with suppress(Exception):  # the first failure tells more
                    self._memory.call("cuModuleUnload", handle)
                raise
        return Module(handle.value, functions, hashlib.sha256(cubin).hexdigest())

    def record(self, module: Module, launches: Sequence[Launch], stream: int) -> Recording:
        """Record ``launches`` of kernels of ``module`` as a CUDA graph, and return it, to be run
        with ``run``. Nothing is computed yet.

        ``stream`` is the handle of a stream, through which the graph is copied to the GPU. Every
        run uses the addresses in the arguments of the launches as they are now. ``module`` has to
        outlive the recording; the caller must not hold ``Memory.allocation_lock``. Raises
        ValueError for a launch of a kernel that ``module`` does not have, or with a grid, threads
        or shared memory that are not allowed, KernelsUnavailable where the driver refuses the
        launches, DeviceOutOfMemory where the GPU's memory is full, and DeviceLost where the GPU has
        failed.
        """
        for launch in launches:
            _check(launch, module)
        with self._memory.allocation_lock.shared():
            graph, recorded = ctypes.c_void_p(), ctypes.c_void_p()
            self._ask("cuGraphCreate", ctypes.byref(graph), 0)
            try:
                self._add(graph, module, launches)
                self._ask("cuGraphInstantiateWithFlags", ctypes.byref(recorded), graph, 0)
            except BaseException:
                with suppress(Exception):  # the first failure tells more
                    self._memory.call("cuGraphDestroy", graph)
                raise
            self._memory.call("cuGraphDestroy", graph)
            try:
                self._ask("cuGraphUpload", recorded, stream)
            except BaseException:
                with suppress(Exception):
                    self._memory.call("cuGraphExecDestroy", recorded)
                raise
        return Recording(recorded.value)

    def run(self, recording: Recording, stream: int) -> None:
        """Put one run of ``recording`` at the end of the stream with handle ``stream``, and return
        at once. Raises DeviceLost where the GPU has failed."""
        self._memory.call("cuGraphLaunch", recording.handle, stream)

    def drop(self, held: Module | Recording) -> None:
        """Free ``held``, kernels that ``load`` returned or a recording that ``record`` returned; it
        may not be run any more. The caller must not hold ``Memory.allocation_lock``. Raises
        DeviceLost where the GPU has failed."""
        name = "cuModuleUnload" if isinstance(held, Module) else "cuGraphExecDestroy"
        with self._memory.allocation_lock.shared():
            self._memory.call(name, held.handle)

    def _function(self, module: ctypes.c_void_p, name: str, shared_bytes: int) -> _Function:
        """Kernel ``name``, on the device from now on."""
        handle = ctypes.c_void_p()
        self._ask("cuModuleGetFunction", ctypes.byref(handle), module, name.encode())
        self._ask("cuFuncSetAttribute", handle, _MAX_DYNAMIC_SHARED_BYTES, shared_bytes)
        assert handle.value is not None  # the call has succeeded
        return _Function(handle.value, shared_bytes)

    def _add(self, graph: ctypes.c_void_p, module: Module, launches: Sequence[Launch]) -> None:
        """Put ``launches`` into ``graph``, each behind the one before."""
        before: ctypes.c_void_p | None = None
        for launch in launches:
            arguments = ctypes.create_string_buffer(launch.arguments, len(launch.arguments))
            pointers = (ctypes.c_void_p * 1)(ctypes.addressof(arguments))
            node = KernelNode(
                module.functions[launch.kernel].handle,
                *launch.grid,
                *(launch.threads, 1, 1),
                launch.shared_bytes,
                ctypes.cast(pointers, ctypes.c_void_p),
            )
            added = ctypes.c_void_p()
            self._ask(  # copies the arguments before it returns
                "cuGraphAddKernelNode_v2",
                ctypes.byref(added),
                graph,
                None if before is None else ctypes.byref(before),
                0 if before is None else 1,
                ctypes.byref(node),
            )
            before = added

    def _attribute(self, number: int) -> int:
        value = ctypes.c_int()
        self._memory.call("cuDeviceGetAttribute", ctypes.byref(value), number, self._memory.number)
        return value.value

    def _ask(self, name: str, *arguments: object) -> None:
        """Call the driver with what it may refuse. Raises KernelsUnavailable where it does."""
        try:
            self._memory.call(name, *arguments, refusals=_REFUSALS)
        except Refused as error:
            raise KernelsUnavailable(f"{self._memory.device}: {error}") from None


def open_cuda(device: Device, driver: Any = None) -> CudaMemory:
    """Open GPU ``device``, and return its memory. Through it networks can be run in Lipwire's own
    kernels and in ONNX Runtime.

    ``driver`` is the library of CUDA's driver, as ``ctypes.CDLL`` opens it; None for that of this
    machine. Raises DependencyMissing without a driver, DeviceLost where there is no such GPU,
    DeviceOutOfMemory where its memory is full.
    """
    return CudaMemory(device, driver, make_programs=CudaPrograms)


def kernels_problem(device: Device) -> str | None:
    """Return why Lipwire's own kernels cannot run on ``device``, a GPU, in one line; None where
    they can. A missing compiler (NVRTC) is such a reason, even where kernels were compiled before.

    Starts that GPU and no other. Nothing is remembered: each call looks again. ONNX Runtime is not
    needed.
    """
    try:
        CudaPrograms(CudaMemory(device)).check_compiler()
    except (DependencyMissing, DeviceLost, DeviceOutOfMemory, KernelsUnavailable) as error:
        return str(error)
    return None


def _check(launch: Launch, module: Module) -> None:
    """Raises ValueError."""
    function = module.functions.get(launch.kernel)
    if function is None:
        raise ValueError(f"there is no kernel {launch.kernel!r}")
    if not all(1 <= size <= most for size, most in zip(launch.grid, _MAX_GRID, strict=True)):
        raise ValueError(f"{launch.kernel}: the grid is {launch.grid}, allowed is {_MAX_GRID}")
    if not 1 <= launch.threads <= _MAX_THREADS:
        raise ValueError(f"{launch.kernel}: {launch.threads} threads, allowed are {_MAX_THREADS}")
    if not 0 <= launch.shared_bytes <= function.shared_bytes:
        raise ValueError(
            f"{launch.kernel}: {launch.shared_bytes} bytes of shared memory,"
            f" its source says {function.shared_bytes}"
        )
