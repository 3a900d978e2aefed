"""NVRTC is found where it may lie and called as it wants to be.

It is played by a few functions here, and is real for one test where it is installed.
"""

import ctypes
import importlib
from pathlib import Path
from typing import Any

import pytest

from lipwire.engine.gpu.kernels.cuda import nvrtc
from lipwire.engine.gpu.kernels.cuda.cubins import Cubins
from lipwire.engine.gpu.kernels.cuda.nvrtc import Nvrtc, find_nvrtc
from lipwire.engine.gpu.programs import KernelSource, KernelsUnavailable

SOURCE = KernelSource("the text", "the header", {})


class Library:
    """As libnvrtc: every function returns a status and writes through its pointers."""

    def __init__(self, version: tuple[int, int] = (13, 0)) -> None:
        self.version = version
        self.fails: dict[str, int] = {}
        self.log = b""
        self.given: list[Any] = []
        self.programs = 0

    def __getattr__(self, name: str) -> Any:
        kinds = nvrtc._SIGNATURES[name]

        def call(*arguments: Any) -> int:
            for kind, argument in zip(kinds, arguments, strict=True):
                kind.from_param(argument)
            if name in self.fails:
                return self.fails[name]
            getattr(self, f"_{name}")(*arguments)
            return 0

        return call

    def _nvrtcVersion(self, major: Any, minor: Any) -> None:  # noqa: N802
        major._obj.value, minor._obj.value = self.version

    def _nvrtcCreateProgram(  # noqa: N802
        self, out: Any, text: bytes, name: bytes, count: int, headers: Any, names: Any
    ) -> None:
        self.programs += 1
        out._obj.value = 5
        self.given += [text, count, headers[0], names[0]]

    def _nvrtcDestroyProgram(self, program: Any) -> None:  # noqa: N802
        assert program._obj.value == 5
        self.programs -= 1

    def _nvrtcCompileProgram(self, program: Any, count: int, options: Any) -> None:  # noqa: N802
        assert program.value == 5
        self.given.append(list(options[:count]))

    def _nvrtcGetProgramLogSize(self, program: Any, out: Any) -> None:  # noqa: N802
        out._obj.value = len(self.log) + 1

    def _nvrtcGetProgramLog(self, program: Any, block: Any) -> None:  # noqa: N802
        ctypes.memmove(block, self.log + b"\0", len(self.log) + 1)

    def _nvrtcGetCUBINSize(self, program: Any, out: Any) -> None:  # noqa: N802
        out._obj.value = 6

    def _nvrtcGetCUBIN(self, program: Any, block: Any) -> None:  # noqa: N802
        ctypes.memmove(block, b"\x7fEL\0F\0", 6)


def test_a_source_goes_in_with_its_header_and_a_cubin_comes_out() -> None:
    library = Library()
    cubin = Nvrtc(library).compile(SOURCE, ["--one", "--two"])
    assert cubin == b"\x7fEL\0F\0"
    assert library.given == [b"the text", 1, b"the header", b"device.h", [b"--one", b"--two"]]
    assert library.programs == 0


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        (b"network.cu(3): error: no\n\n1 error", "network.cu(3): error: no"),
        (b"a.cu(1): warning #1: hm\n\na.cu(2): error: no\n  x\n", "a.cu(2): error: no"),
        (b"\nit will not\nat all\n", "it will not"),
        (b"", "NVRTC does not say why"),
        (b"\xff error", "\ufffd error"),
    ],
)
def test_what_does_not_compile_is_told_in_one_line(log: bytes, reason: str) -> None:
    library = Library()
    library.fails, library.log = {"nvrtcCompileProgram": 6}, log
    with pytest.raises(KernelsUnavailable) as caught:
        Nvrtc(library).compile(SOURCE, [])
    assert str(caught.value) == f"the kernels do not compile: {reason}"
    assert library.programs == 0


@pytest.mark.parametrize("name", ["nvrtcCreateProgram", "nvrtcGetCUBINSize", "nvrtcGetCUBIN"])
def test_a_compiler_that_fails_leaves_no_program(name: str) -> None:
    library = Library()
    library.fails = {name: 11}
    with pytest.raises(KernelsUnavailable, match=rf"{name} of NVRTC fails \(11\)"):
        Nvrtc(library).compile(SOURCE, [])
    assert library.programs == 0


class Loader:
    """As ctypes.CDLL, over the files that there are. What is not in a folder is the system's."""

    def __init__(self, *there: str) -> None:
        self.there = there
        self.opened: list[str] = []

    def __call__(self, path: str) -> Any:
        parts = Path(path).parts
        name = "/".join(parts[-3:]) if len(parts) > 1 else path
        if name not in self.there:
            raise OSError(f"{path} is not there")
        self.opened.append(name)
        major = int(path.rpartition(".so.")[2].split(".")[0])
        return Library((major, 9 if major == 12 else 0))


WHEEL_13, WHEEL_12 = "cu13/lib/libnvrtc.so.13", "cuda_nvrtc/lib/libnvrtc.so.12"
SYSTEM_13, SYSTEM_12 = "libnvrtc.so.13", "libnvrtc.so.12"
BUILTINS_13 = "cu13/lib/libnvrtc-builtins.so.13.0"


@pytest.mark.parametrize(
    ("there", "newest", "opened"),
    [
        ((SYSTEM_12, SYSTEM_13, WHEEL_12, WHEEL_13), 13, [WHEEL_13]),
        ((SYSTEM_12, SYSTEM_13, WHEEL_12, WHEEL_13), 14, [WHEEL_13]),
        ((SYSTEM_12, SYSTEM_13, WHEEL_12, WHEEL_13), 12, [WHEEL_12]),
        ((SYSTEM_12, SYSTEM_13, WHEEL_12), 13, [SYSTEM_13]),
        ((SYSTEM_12,), 13, [SYSTEM_12]),
        ((WHEEL_13, BUILTINS_13), 13, [WHEEL_13, BUILTINS_13]),
        ((WHEEL_13, SYSTEM_13), 12, None),
        ((WHEEL_12, SYSTEM_12), 11, None),
        ((), 13, None),
    ],
)
def test_the_newest_compiler_that_the_driver_is_up_to_is_taken(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    there: tuple[str, ...],
    newest: int,
    opened: list[str] | None,
) -> None:
    loader = Loader(*there)
    for folder in ("cu13", "cuda_nvrtc"):
        (tmp_path / "nvidia" / folder / "lib").mkdir(parents=True)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    monkeypatch.setattr(ctypes, "CDLL", loader)
    monkeypatch.setattr(nvrtc, "_declared", lambda library: library)
    found = find_nvrtc.__wrapped__(newest)
    assert loader.opened == (opened or [])
    assert (found is None) == (opened is None)
    if found is not None:
        assert opened is not None
        assert found.version[0] == int(opened[0][-2:])


def test_without_nvidias_packages_only_the_system_is_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loader = Loader(SYSTEM_12)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(ctypes, "CDLL", loader)
    monkeypatch.setattr(nvrtc, "_declared", lambda library: library)
    assert find_nvrtc.__wrapped__(13) is not None
    assert loader.opened == [SYSTEM_12]


HEADER = """
typedef unsigned int u32;
__device__ __forceinline__ u32 shared(const void* p) { return (u32)__cvta_generic_to_shared(p); }
"""
KERNEL = """
#include "device.h"
struct Args { const void* from; float* to; };
constexpr int quarter(int whole) { return whole / 4; }
extern "C" __global__ void __launch_bounds__(32, 1) tile(const __grid_constant__ Args args) {
    extern __shared__ __align__(128) unsigned char memory[];
    const u32 at = shared(memory + threadIdx.x * 16);
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 :: "r"(at), "l"((const char*)args.from + threadIdx.x * 16), "r"(16) : "memory");
    asm volatile("cp.async.commit_group;\\n cp.async.wait_group 0;" ::: "memory");
    u32 a[4], b[2];
    float c[4] = {};
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(a[0]), "=r"(a[1]), "=r"(a[2]), "=r"(a[3]) : "r"(at) : "memory");
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                 : "=r"(b[0]), "=r"(b[1]) : "r"(at) : "memory");
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32"
        " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
    for (int i = 0; i < quarter(16); i++) args.to[threadIdx.x * 4 + i] = c[i];
}
"""


@pytest.fixture
def real() -> Nvrtc:
    found = find_nvrtc(99)
    if found is None:
        pytest.skip("no NVRTC on this machine")
    return found


@pytest.mark.parametrize("capability", [(8, 0), (9, 0), (12, 0)])
def test_the_real_one_makes_cubins(
    real: Nvrtc, tmp_path: Path, capability: tuple[int, int]
) -> None:
    cubins = Cubins(tmp_path, lambda newest_major: real)
    cubin = cubins.cubin(KernelSource(KERNEL, HEADER, {"tile": 512}), capability, 99)
    assert cubin.startswith(b"\x7fELF")
    assert b"tile" in cubin


def test_the_real_one_says_what_is_wrong(real: Nvrtc, tmp_path: Path) -> None:
    with pytest.raises(KernelsUnavailable, match=r"network\.cu\(1\): error: .*undefined"):
        real.compile(
            KernelSource("__device__ int a = undefined;", "", {}), ["--gpu-architecture=sm_80"]
        )
    with pytest.raises(KernelsUnavailable, match="--gpu-architecture"):
        real.compile(KernelSource("", "", {}), ["--gpu-architecture=sm_999"])
    old = Cubins(tmp_path, lambda newest_major: real)
    with pytest.raises(KernelsUnavailable, match=r"requires \.target sm_80"):
        old.cubin(KernelSource(KERNEL, HEADER, {}), (7, 5), 99)
