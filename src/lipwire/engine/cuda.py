"""A GPU's memory, through CUDA's driver.

The driver's library is all that is needed and comes with the driver; what ONNX Runtime uses of
CUDA sits on the same context (the device's primary one), so addresses and streams go both ways.
https://docs.nvidia.com/cuda/cuda-driver-api has the functions by name.
"""

import ctypes
import threading
from typing import Any, Final

import numpy as np

from lipwire.domain import DependencyMissing
from lipwire.engine.devices import DRIVER, Device
from lipwire.engine.memory import Bytes, DeviceLost, DeviceOutOfMemory, Gate, Region

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
    "cuGetErrorString": (ctypes.c_int, ctypes.POINTER(ctypes.c_char_p)),
}


class CudaMemory:
    """``Memory`` of one GPU."""

    def __init__(self, device: Device, driver: Any = None) -> None:
        """``driver`` is CUDA's unless given. Raises DependencyMissing without one, DeviceLost where
        there is no such GPU."""
        self._driver = _open_driver(device) if driver is None else driver
        self.device: Final = device
        self.gate: Final = Gate()
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

    def allocate(self, size_bytes: int) -> Region:
        address = _Address()
        self._call("cuMemAlloc_v2", ctypes.byref(address), max(size_bytes, 1))
        return Region(int(address.value), size_bytes)

    def free(self, region: Region) -> None:
        self._call("cuMemFree_v2", region.address)

    def allocate_host(self, size_bytes: int) -> Bytes:
        address = _Handle()
        self._call("cuMemHostAlloc", ctypes.byref(address), max(size_bytes, 1), 0)
        assert address.value is not None  # the call has succeeded
        block = np.ctypeslib.as_array((ctypes.c_uint8 * size_bytes).from_address(address.value))
        with self._lock:
            self._host[block.ctypes.data] = address.value
        return block

    def free_host(self, block: Bytes) -> None:
        with self._lock:
            address = self._host.pop(block.ctypes.data)
        self._call("cuMemFreeHost", address)

    def free_bytes(self) -> int:
        free, whole = _Size(), _Size()
        self._call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(whole))
        return int(free.value)

    def open_stream(self) -> int:
        stream = _Handle()
        self._call("cuStreamCreate", ctypes.byref(stream), _ORDERED)
        assert stream.value is not None  # the call has succeeded
        return stream.value

    def close_stream(self, stream: int) -> None:
        self._call("cuStreamDestroy_v2", stream)

    def upload(self, stream: int, address: int, source: Bytes) -> None:
        self._call("cuMemcpyHtoDAsync_v2", address, source.ctypes.data, source.nbytes, stream)

    def download(self, stream: int, target: Bytes, address: int) -> None:
        self._call("cuMemcpyDtoHAsync_v2", target.ctypes.data, address, target.nbytes, stream)

    def copy(self, stream: int, target: int, source: int, size_bytes: int) -> None:
        self._call("cuMemcpyDtoDAsync_v2", target, source, size_bytes, stream)

    def wait(self, stream: int) -> None:
        self._call("cuStreamSynchronize", stream)

    def _call(self, name: str, *arguments: object) -> None:
        """Call the driver with the device's context current in this thread.

        Set each time, for half a microsecond: a thread may work for several GPUs, and ONNX Runtime
        sets the one that it works on.
        """
        self._check("cuCtxSetCurrent", self._driver.cuCtxSetCurrent(self._context))
        self._check(name, getattr(self._driver, name)(*arguments))

    def _check(self, name: str, status: int) -> None:
        if status == 0:
            return
        text = ctypes.c_char_p()
        self._driver.cuGetErrorString(status, ctypes.byref(text))
        reason = (text.value or b"unknown error").decode("ascii", "replace")
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
