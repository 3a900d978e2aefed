"""A GPU's memory through CUDA's driver, which ``cudaprograms`` also calls through this module.

The driver's library is all that is needed and comes with the driver; what ONNX Runtime uses of CUDA
sits on the same context (the device's primary one), so addresses and streams go both ways.
https://docs.nvidia.com/cuda/cuda-driver-api has the functions by name.
"""

import ctypes
import threading
from collections.abc import Callable, Container
from typing import Any, Final

import numpy as np

from lipwire.domain import DependencyMissing
from lipwire.engine.device import Device, DeviceLost
from lipwire.engine.gpu.memory.devicememory import Bytes, DeviceOutOfMemory, Region
from lipwire.engine.gpu.memory.sharedexclusivelock import SharedExclusiveLock
from lipwire.engine.gpu.programs import Programs
from lipwire.engine.runtime import DRIVER, cuda_problem

_OUT_OF_MEMORY: Final = 2
_RECORDING: Final = range(900, 910)
"""CUDA_ERROR_STREAM_CAPTURE_...: something went wrong while kernels were recorded. The device works
on."""
_ORDERED: Final = 0
"""CU_STREAM_DEFAULT: in order with the null stream. Some of ONNX Runtime's convolutions clear their
output there (``cudaMemset`` in conv.cc, where a bias is fused in NCHW), and beside a stream that
does not wait for it that would fall on whatever is being computed."""

_Handle = ctypes.c_void_p
_Address = ctypes.c_uint64
_Size = ctypes.c_size_t


class KernelNode(ctypes.Structure):
    """The struct CUDA_KERNEL_NODE_PARAMS_v2 of CUDA's driver: which kernel a node of a CUDA graph
    launches, with which grid and arguments."""

    _fields_ = (
        ("func", _Handle),
        *((f"{of}Dim{axis}", ctypes.c_uint) for of in ("grid", "block") for axis in "XYZ"),
        ("sharedMemBytes", ctypes.c_uint),
        ("kernelParams", _Handle),
        ("extra", _Handle),
        ("kern", _Handle),
        ("ctx", _Handle),
    )


_SIGNATURES: Final = {
    "cuInit": (ctypes.c_uint,),
    "cuDeviceGet": (ctypes.POINTER(ctypes.c_int), ctypes.c_int),
    "cuDevicePrimaryCtxRetain": (ctypes.POINTER(_Handle), ctypes.c_int),
    "cuCtxSetCurrent": (_Handle,),
    "cuMemGetInfo_v2": (ctypes.POINTER(_Size), ctypes.POINTER(_Size)),
    "cuMemAlloc_v2": (ctypes.POINTER(_Address), _Size),
    "cuMemFree_v2": (_Address,),
    "cuMemHostAlloc": (ctypes.POINTER(_Handle), _Size, ctypes.c_uint),
    "cuMemFreeHost": (_Handle,),
    "cuStreamCreate": (ctypes.POINTER(_Handle), ctypes.c_uint),
    "cuStreamDestroy_v2": (_Handle,),
    "cuStreamSynchronize": (_Handle,),
    "cuMemcpyHtoDAsync_v2": (_Address, _Handle, _Size, _Handle),
    "cuMemcpyDtoHAsync_v2": (_Handle, _Address, _Size, _Handle),
    "cuMemcpyDtoDAsync_v2": (_Address, _Address, _Size, _Handle),
    "cuDriverGetVersion": (ctypes.POINTER(ctypes.c_int),),
    "cuDeviceGetAttribute": (ctypes.POINTER(ctypes.c_int), ctypes.c_int, ctypes.c_int),
    "cuModuleLoadData": (ctypes.POINTER(_Handle), ctypes.c_char_p),
    "cuModuleUnload": (_Handle,),
    "cuModuleGetFunction": (ctypes.POINTER(_Handle), _Handle, ctypes.c_char_p),
    "cuFuncSetAttribute": (_Handle, ctypes.c_int, ctypes.c_int),
    "cuGraphCreate": (ctypes.POINTER(_Handle), ctypes.c_uint),
    "cuGraphAddKernelNode_v2": (
        ctypes.POINTER(_Handle),
        _Handle,
        ctypes.POINTER(_Handle),
        _Size,
        ctypes.POINTER(KernelNode),
    ),
    "cuGraphInstantiateWithFlags": (ctypes.POINTER(_Handle), _Handle, ctypes.c_ulonglong),
    "cuGraphUpload": (_Handle, _Handle),
    "cuGraphLaunch": (_Handle, _Handle),
    "cuGraphExecDestroy": (_Handle,),
    "cuGraphDestroy": (_Handle,),
    "cuGetErrorString": (ctypes.c_int, ctypes.POINTER(ctypes.c_char_p)),
}


class Refused(Exception):
    """CUDA's driver refuses the arguments of a call. The device still works."""


class CudaMemory:
    """The memory of one NVIDIA GPU, in the way that ``Memory`` describes, through CUDA's driver.
    Thread-safe."""

    def __init__(
        self,
        device: Device,
        driver: Any = None,
        *,
        make_programs: Callable[["CudaMemory"], Programs] | None = None,
    ) -> None:
        """``device`` is the GPU. ``driver`` is the library of CUDA's driver, as ``ctypes.CDLL``
        opens it; None for that of this machine. ``make_programs`` is called with this object, and
        returns what runs Lipwire's own kernels there; with None networks run in ONNX Runtime only.
        Raises DependencyMissing without a driver, DeviceLost where there is no such GPU,
        DeviceOutOfMemory where its memory is full."""
        self._driver = _open_driver(device) if driver is None else driver
        self.device: Final = device
        self.allocation_lock: Final = SharedExclusiveLock()
        self._lock = threading.Lock()
        self._host: dict[int, int] = {}
        """Pinned blocks: the address of the array, and what CUDA gave for it."""
        number, context = ctypes.c_int(), _Handle()
        self._check("cuInit", self._driver.cuInit(0))
        self._check("cuDeviceGet", self._driver.cuDeviceGet(ctypes.byref(number), device.index))
        # Kept until the process ends: ONNX Runtime holds on to it as well.
        self._check(
            "cuDevicePrimaryCtxRetain",
            self._driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), number.value),
        )
        self._context = context
        self._make_programs = make_programs
        self._programs: Programs | None = None
        self.number: Final = number.value
        """Of the device, as the driver's functions take it."""

    def allocate(self, size_bytes: int) -> Region:
        """Allocate ``size_bytes`` of the device. The caller holds ``allocation_lock`` shared.
        Raises DeviceOutOfMemory where there is no room, and DeviceLost where the device has failed.
        """
        address = _Address()
        self.call("cuMemAlloc_v2", ctypes.byref(address), max(size_bytes, 1))
        return Region(int(address.value), size_bytes)

    def free(self, region: Region) -> None:
        """Free ``region``; nothing may use it any more. The caller holds ``allocation_lock``
        shared. Raises DeviceLost where the device has failed."""
        self.call("cuMemFree_v2", region.address)

    def allocate_host(self, size_bytes: int) -> Bytes:
        """Allocate pinned memory of the host, (size_bytes,) uint8, which the device copies from and
        to at full speed. The caller holds ``allocation_lock`` shared. Raises DeviceOutOfMemory
        where no more can be pinned, and DeviceLost where the device has failed."""
        address = _Handle()
        self.call("cuMemHostAlloc", ctypes.byref(address), max(size_bytes, 1), 0)
        assert address.value is not None  # the call has succeeded
        block = np.ctypeslib.as_array((ctypes.c_uint8 * size_bytes).from_address(address.value))
        with self._lock:
            self._host[block.ctypes.data] = address.value
        return block

    def free_host(self, block: Bytes) -> None:
        """Free ``block``, the array that ``allocate_host`` returned; nothing may use it any more.
        The caller holds ``allocation_lock`` shared. Raises DeviceLost where the device has failed.
        """
        with self._lock:
            address = self._host.pop(block.ctypes.data)
        self.call("cuMemFreeHost", address)

    def free_bytes(self) -> int:
        """Return how many bytes are free on the device now. Raises DeviceLost where it has
        failed."""
        free, whole = _Size(), _Size()
        self.call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(whole))
        return int(free.value)

    def onnx_problem(self) -> str | None:
        """Return why ONNX Runtime cannot run on the device, in one line; None where it can."""
        return cuda_problem(self.device)

    def programs(self) -> Programs | None:
        """Return what runs Lipwire's own kernels on the device, the same each time; None where this
        object was made without ``make_programs``. Raises KernelsUnavailable where they cannot run
        on this device, and DeviceLost where it has failed."""
        with self._lock:
            if self._programs is None and self._make_programs is not None:
                self._programs = self._make_programs(self)
            return self._programs

    def open_stream(self) -> int:
        """Open a CUDA stream and return its handle. What is put into a stream is done in that
        order. Raises DeviceOutOfMemory where there is no room, and DeviceLost where the device has
        failed."""
        stream = _Handle()
        self.call("cuStreamCreate", ctypes.byref(stream), _ORDERED)
        assert stream.value is not None  # the call has succeeded
        return stream.value

    def close_stream(self, stream: int) -> None:
        """Close the stream with handle ``stream``, in which nothing may be under way. Raises
        DeviceLost where the device has failed."""
        self.call("cuStreamDestroy_v2", stream)

    def upload(self, stream: int, address: int, source: Bytes) -> None:
        """Put into ``stream`` a copy of all of ``source``, a block of pinned memory, to ``address``
        on the device. The copy is done when ``wait`` returns; ``source`` must stay as it is until
        then. Raises DeviceLost where the device has failed."""
        self.call("cuMemcpyHtoDAsync_v2", address, source.ctypes.data, source.nbytes, stream)

    def download(self, stream: int, target: Bytes, address: int) -> None:
        """Put into ``stream`` a copy from ``address`` on the device that fills ``target``, a block
        of pinned memory. The copy is done when ``wait`` returns. Raises DeviceLost where the device
        has failed."""
        self.call("cuMemcpyDtoHAsync_v2", target.ctypes.data, address, target.nbytes, stream)

    def copy(self, stream: int, target: int, source: int, size_bytes: int) -> None:
        """Put into ``stream`` a copy of ``size_bytes`` bytes within the device, from address
        ``source`` to address ``target``. The copy is done when ``wait`` returns. Raises DeviceLost
        where the device has failed."""
        self.call("cuMemcpyDtoDAsync_v2", target, source, size_bytes, stream)

    def wait(self, stream: int) -> None:
        """Wait until everything that was put into ``stream`` is done. Raises DeviceLost where the
        device has failed, RuntimeError where a CUDA graph in it could not be recorded because
        something else used the device meanwhile."""
        self.call("cuStreamSynchronize", stream)

    def call(self, name: str, *arguments: object, refusals: Container[int] = ()) -> None:
        """Call function ``name`` of CUDA's driver (such as ``cuMemAlloc_v2``) with ``arguments``,
        and the device's context current in this thread.

        The context is set each time, for half a microsecond: a thread may work for several GPUs,
        and ONNX Runtime sets the one that it works on. ``refusals`` are the statuses of the driver
        (CUresult) that mean that it refuses the arguments, and not that the device has failed.
        Raises Refused for one of these, RuntimeError where recording a CUDA graph failed because
        something else used the device meanwhile, DeviceOutOfMemory where there is no room, and
        DeviceLost for any other status but success.
        """
        self._check("cuCtxSetCurrent", self._driver.cuCtxSetCurrent(self._context))
        self._check(name, getattr(self._driver, name)(*arguments), refusals)

    def _check(self, name: str, status: int, refusals: Container[int] = ()) -> None:
        if status == 0:
            return
        text = ctypes.c_char_p()
        self._driver.cuGetErrorString(status, ctypes.byref(text))
        reason = (text.value or b"unknown error").decode("ascii", "replace")
        if status in refusals:
            raise Refused(f"{name} says {reason} ({status})")
        if status == _OUT_OF_MEMORY:
            raise DeviceOutOfMemory(f"{name}: {reason}")
        if status in _RECORDING:
            raise RuntimeError(f"{name} says {reason} ({status})")
        raise DeviceLost(f"{self.device} has failed: {name} says {reason} ({status})")


def _open_driver(device: Device) -> Any:
    try:
        driver = ctypes.CDLL(DRIVER)
    except OSError:
        raise DependencyMissing(f"{device} cannot be used: no NVIDIA driver here") from None
    for name, arguments in _SIGNATURES.items():
        function = getattr(driver, name)
        function.argtypes = arguments
        function.restype = ctypes.c_int
    return driver
