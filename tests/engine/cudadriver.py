"""A stand-in for CUDA's driver, whose memory is the processor's and whose kernels do nothing."""

import ctypes
import itertools
import threading
from dataclasses import dataclass
from typing import Any

import numpy as np

from lipwire.engine.gpu.memory import cudamemory


@dataclass(frozen=True)
class Ran:
    """One launch, as the device gets it."""

    kernel: str
    grid: tuple[int, ...]
    block: tuple[int, ...]
    shared_bytes: int
    arguments: bytes


class Driver:
    """As libcuda.so.1: every function returns a status and writes through its pointers."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any, int]] = []
        self.fails: dict[str, int] = {}
        """The status of a function that fails, by name."""
        self.arrays: dict[int, Any] = {}
        self.kernels: dict[str, int] = {}
        """What every module has: the bytes of its arguments, by name."""
        self.attributes = {75: 9, 76: 0, 16: 132, 97: 232448, 20: 0}
        """Of the device: those of an H100."""
        self.version = 13000
        self.images: dict[int, bytes] = {}
        """Of modules."""
        self.graphs: dict[int, list[Ran]] = {}
        self.recordings: dict[int, list[Ran]] = {}
        self.ran: list[tuple[int, Ran]] = []
        """With the stream."""
        self._functions: dict[int, tuple[int, str]] = {}
        self._handles = itertools.count(1 << 40)
        self._last = 0
        """The node added last."""

    def _status(self, name: str, *arguments: Any) -> int:
        self.calls.append((name, arguments, threading.get_ident()))
        return self.fails.get(name, 0)

    def _new(self, out: Any, size: int) -> None:
        array = np.zeros(size, np.uint8)
        self.arrays[array.ctypes.data] = array
        out._obj.value = array.ctypes.data

    def cuInit(self, flags: int) -> int:  # noqa: N802
        return self._status("cuInit", flags)

    def cuDeviceGet(self, out: Any, index: int) -> int:  # noqa: N802
        out._obj.value = index
        return self._status("cuDeviceGet", index) if index < 2 else 101

    def cuDevicePrimaryCtxRetain(self, out: Any, number: int) -> int:  # noqa: N802
        out._obj.value = 4000 + number
        return self._status("cuDevicePrimaryCtxRetain", number)

    def cuCtxSetCurrent(self, context: Any) -> int:  # noqa: N802
        return self._status("cuCtxSetCurrent", context.value)

    def cuMemGetInfo_v2(self, free: Any, whole: Any) -> int:  # noqa: N802
        free._obj.value, whole._obj.value = 123, 456
        return self._status("cuMemGetInfo_v2")

    def cuMemAlloc_v2(self, out: Any, size: int) -> int:  # noqa: N802
        status = self._status("cuMemAlloc_v2", size)
        if not status:
            self._new(out, size)
        return status

    def cuMemFree_v2(self, address: int) -> int:  # noqa: N802
        del self.arrays[address]
        return self._status("cuMemFree_v2", address)

    def cuMemHostAlloc(self, out: Any, size: int, flags: int) -> int:  # noqa: N802
        status = self._status("cuMemHostAlloc", size, flags)
        if not status:
            self._new(out, size)
        return status

    def cuMemFreeHost(self, address: int) -> int:  # noqa: N802
        del self.arrays[address]
        return self._status("cuMemFreeHost", address)

    def cuStreamCreate(self, out: Any, flags: int) -> int:  # noqa: N802
        out._obj.value = 77
        return self._status("cuStreamCreate", flags)

    def cuStreamDestroy_v2(self, stream: int) -> int:  # noqa: N802
        return self._status("cuStreamDestroy_v2", stream)

    def cuStreamSynchronize(self, stream: int) -> int:  # noqa: N802
        return self._status("cuStreamSynchronize", stream)

    def _copy(self, name: str, target: int, source: int, size: int, stream: int) -> int:
        ctypes.memmove(target, source, size)
        return self._status(name, stream)

    def cuMemcpyHtoDAsync_v2(self, *arguments: int) -> int:  # noqa: N802
        return self._copy("cuMemcpyHtoDAsync_v2", *arguments)

    def cuMemcpyDtoHAsync_v2(self, *arguments: int) -> int:  # noqa: N802
        return self._copy("cuMemcpyDtoHAsync_v2", *arguments)

    def cuMemcpyDtoDAsync_v2(self, *arguments: int) -> int:  # noqa: N802
        return self._copy("cuMemcpyDtoDAsync_v2", *arguments)

    def cuGetErrorString(self, status: int, out: Any) -> int:  # noqa: N802
        out._obj.value = {2: b"out of memory", 101: b"invalid device ordinal"}.get(status)
        return 0

    def cuDriverGetVersion(self, out: Any) -> int:  # noqa: N802
        out._obj.value = self.version
        return self._status("cuDriverGetVersion")

    def cuDeviceGetAttribute(self, out: Any, attribute: int, device: int) -> int:  # noqa: N802
        out._obj.value = self.attributes[attribute]
        return self._status("cuDeviceGetAttribute", attribute, device)

    def cuModuleLoadData(self, out: Any, image: bytes) -> int:  # noqa: N802
        status = self._status("cuModuleLoadData", image)
        if not status:
            out._obj.value = next(self._handles)
            self.images[out._obj.value] = image
        return status

    def cuModuleUnload(self, module: Any) -> int:  # noqa: N802
        del self.images[_number(module)]
        return self._status("cuModuleUnload", _number(module))

    def cuModuleGetFunction(self, out: Any, module: Any, name: bytes) -> int:  # noqa: N802
        assert _number(module) in self.images
        if name.decode() not in self.kernels:
            return 500
        out._obj.value = next(self._handles)
        self._functions[out._obj.value] = _number(module), name.decode()
        return self._status("cuModuleGetFunction", name)

    def cuFuncSetAttribute(self, function: Any, attribute: int, value: int) -> int:  # noqa: N802
        module, kernel = self._functions[_number(function)]
        assert module in self.images
        return self._status("cuFuncSetAttribute", kernel, attribute, value)

    def cuGraphCreate(self, out: Any, flags: int) -> int:  # noqa: N802
        status = self._status("cuGraphCreate", flags)
        if not status:
            out._obj.value = next(self._handles)
            self.graphs[out._obj.value] = []
        return status

    def cuGraphAddKernelNode_v2(  # noqa: N802
        self, out: Any, graph: Any, behind: Any, count: int, given: Any
    ) -> int:
        node: cudamemory.KernelNode = given._obj
        assert node.extra is node.kern is node.ctx is None
        module, kernel = self._functions[node.func]
        assert module in self.images
        status = self._status("cuGraphAddKernelNode_v2", kernel)
        if not status:
            nodes = self.graphs[_number(graph)]
            assert count == bool(nodes)
            if nodes:
                assert behind._obj.value == self._last
            out._obj.value = self._last = next(self._handles)
            pointers = ctypes.cast(node.kernelParams, ctypes.POINTER(ctypes.c_void_p))
            nodes.append(
                Ran(
                    kernel,
                    (node.gridDimX, node.gridDimY, node.gridDimZ),
                    (node.blockDimX, node.blockDimY, node.blockDimZ),
                    node.sharedMemBytes,
                    ctypes.string_at(pointers[0], self.kernels[kernel]),
                )
            )
        return status

    def cuGraphInstantiateWithFlags(self, out: Any, graph: Any, flags: int) -> int:  # noqa: N802
        status = self._status("cuGraphInstantiateWithFlags", flags)
        if not status:
            out._obj.value = next(self._handles)
            self.recordings[out._obj.value] = list(self.graphs[_number(graph)])
        return status

    def cuGraphUpload(self, recording: Any, stream: int) -> int:  # noqa: N802
        assert _number(recording) in self.recordings
        return self._status("cuGraphUpload", stream)

    def cuGraphLaunch(self, recording: Any, stream: int) -> int:  # noqa: N802
        status = self._status("cuGraphLaunch", stream)
        if not status:
            self.ran += [(stream, ran) for ran in self.recordings[_number(recording)]]
        return status

    def cuGraphExecDestroy(self, recording: Any) -> int:  # noqa: N802
        del self.recordings[_number(recording)]
        return self._status("cuGraphExecDestroy")

    def cuGraphDestroy(self, graph: Any) -> int:  # noqa: N802
        del self.graphs[_number(graph)]
        return self._status("cuGraphDestroy")


class Declared:
    """A driver that takes arguments only as ctypes would by their declaration."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    def __getattr__(self, name: str) -> Any:
        function, declared = getattr(self._driver, name), cudamemory._SIGNATURES[name]

        def call(*arguments: Any) -> int:
            for kind, argument in zip(declared, arguments, strict=True):
                kind.from_param(argument)
            status: int = function(*arguments)
            return status

        return call


def _number(handle: Any) -> int:
    number: int = getattr(handle, "value", handle)
    return number
