"""CUDA C++ compiled while the program runs, by NVRTC.

It needs no GPU, and comes with the wheels that ``onnxruntime-gpu[cuda]`` asks for, or with CUDA.
https://docs.nvidia.com/cuda/nvrtc has its functions by name.
"""

import ctypes
import functools
import importlib.util
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from lipwire.engine.gpu.programs import HEADER_NAME, KernelSource, KernelsUnavailable

FIRST_MAJOR: Final = 12
"""The oldest CUDA that ONNX Runtime's wheels are built for."""

_Handle = ctypes.c_void_p
_Size = ctypes.c_size_t
_Texts = ctypes.POINTER(ctypes.c_char_p)
_SIGNATURES: Final = {
    "nvrtcVersion": (ctypes.POINTER(ctypes.c_int), ctypes.POINTER(ctypes.c_int)),
    "nvrtcCreateProgram": (
        ctypes.POINTER(_Handle),
        ctypes.c_char_p,
        ctypes.c_char_p,
        ctypes.c_int,
        _Texts,
        _Texts,
    ),
    "nvrtcDestroyProgram": (ctypes.POINTER(_Handle),),
    "nvrtcCompileProgram": (_Handle, ctypes.c_int, _Texts),
    "nvrtcGetProgramLogSize": (_Handle, ctypes.POINTER(_Size)),
    "nvrtcGetProgramLog": (_Handle, ctypes.c_char_p),
    "nvrtcGetCUBINSize": (_Handle, ctypes.POINTER(_Size)),
    "nvrtcGetCUBIN": (_Handle, ctypes.c_char_p),
}


class Nvrtc:
    """NVIDIA's compiler for kernels, as a library. Thread-safe."""

    def __init__(self, library: Any) -> None:
        """``library`` is the library libnvrtc, as ``ctypes.CDLL`` opens it, with the types of its
        functions declared."""
        self._library = library
        major, minor = ctypes.c_int(), ctypes.c_int()
        self._check("nvrtcVersion", ctypes.byref(major), ctypes.byref(minor))
        self.version: Final = (major.value, minor.value)

    def compile(self, source: KernelSource, options: Sequence[str]) -> bytes:
        """Return ``source`` compiled, as a cubin (an ELF file for a GPU). ``options`` are NVRTC's
        options, such as ``--gpu-architecture=sm_90``. Raises KernelsUnavailable where it does not
        compile, with the compiler's first error as the message."""
        program = _Handle()
        self._check(
            "nvrtcCreateProgram",
            ctypes.byref(program),
            source.text.encode(),
            b"network.cu",  # as errors name it
            1,
            _texts([source.header]),
            _texts([HEADER_NAME]),
        )
        try:
            if self._library.nvrtcCompileProgram(program, len(options), _texts(options)):
                raise KernelsUnavailable(
                    f"the kernels do not compile: {_first_error(self._log(program))}"
                )
            return self._read("nvrtcGetCUBIN", program)
        finally:
            self._library.nvrtcDestroyProgram(ctypes.byref(program))

    def _log(self, program: _Handle) -> str:
        return self._read("nvrtcGetProgramLog", program).rstrip(b"\0").decode("utf-8", "replace")

    def _read(self, name: str, program: _Handle) -> bytes:
        size = _Size()
        self._check(f"{name}Size", program, ctypes.byref(size))
        block = ctypes.create_string_buffer(max(size.value, 1))
        self._check(name, program, block)
        return block.raw[: size.value]

    def _check(self, name: str, *arguments: object) -> None:
        status = getattr(self._library, name)(*arguments)
        if status:
            raise KernelsUnavailable(f"{name} of NVRTC fails ({status})")


@functools.cache
def find_nvrtc(newest_major: int) -> Nvrtc | None:
    """Return the newest NVRTC on this machine whose major version (CUDA's) is not above
    ``newest_major``; None if there is none of version 12 or later.

    Of the same major version, one in a Python package is preferred to the system's. The answer is
    kept until the process ends.
    """
    for major in range(newest_major, FIRST_MAJOR - 1, -1):
        name = f"libnvrtc.so.{major}"
        for path in (*(folder / name for folder in _wheel_folders(major)), Path(name)):
            try:
                library = ctypes.CDLL(str(path))
            except OSError:
                continue
            nvrtc = Nvrtc(_declared(library))
            # NVRTC opens its other half by name alone, and 13 does not look beside itself.
            with suppress(OSError):
                ctypes.CDLL(
                    str(path.with_name("libnvrtc-builtins.so.{}.{}".format(*nvrtc.version)))
                )
            return nvrtc
    return None


def _wheel_folders(major: int) -> list[Path]:
    """Where pip puts NVRTC: one folder for all of CUDA since 13, one for each part of it before."""
    spec = importlib.util.find_spec("nvidia")
    roots = spec.submodule_search_locations if spec is not None else None
    return [
        Path(root) / part / "lib" for root in roots or () for part in (f"cu{major}", "cuda_nvrtc")
    ]


def _declared(library: Any) -> Any:
    for name, arguments in _SIGNATURES.items():
        function = getattr(library, name)
        function.argtypes = arguments
        function.restype = ctypes.c_int
    return library


def _texts(texts: Sequence[str]) -> Any:
    return (ctypes.c_char_p * len(texts))(*(text.encode() for text in texts))


def _first_error(log: str) -> str:
    """Warnings may stand before it."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line]
    return (errors or lines or ["NVRTC does not say why"])[0][:300]
