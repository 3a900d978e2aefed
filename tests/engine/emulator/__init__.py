"""Kernels of ``lipwire/engine/gpu/kernels/cuda`` on the processor.

The same text is compiled by g++ against an emulation of their primitives (``device.h``), with a
block's threads as fibers (``runtime.cpp``).

    emulator = compile_kernels(text, folder)
    emulator.launch(Launch("scale", (4, 1, 1), 128, 0, arguments), schedule=1)
"""

import ctypes
import hashlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import Final, Protocol

from filelock import FileLock

HERE: Final = Path(__file__).resolve().parent
# -ffp-contract: NVIDIA's compiler too makes a product and a sum one operation. Kernels look at the
# same bytes as different types.
OPTIONS: Final = (
    *("-std=c++17", "-O2", "-march=native", "-ffp-contract=fast", "-fno-strict-aliasing"),
    *("-fPIC", "-fvisibility=hidden", "-pthread"),
    *("-Wall", "-Wno-unknown-pragmas", "-Wno-psabi"),
)


class Launch(Protocol):
    """As ``lipwire.engine.gpu.programs.Launch``."""

    @property
    def kernel(self) -> str: ...
    @property
    def grid(self) -> tuple[int, int, int]: ...
    @property
    def threads(self) -> int: ...
    @property
    def shared_bytes(self) -> int: ...
    @property
    def arguments(self) -> bytes: ...


class Emulator:
    """The kernels of one compiled text. Thread-safe; a launch uses every core."""

    def __init__(self, library: Path) -> None:
        self._library = ctypes.CDLL(str(library))
        self._library.emulator_error.restype = ctypes.c_char_p

    def launch(self, launch: Launch, schedule: int = 0) -> None:
        """Run a whole grid. ``schedule`` seeds the order of warps and lanes and the moment at which
        copies arrive; 0 is the order of their numbers, with copies as late as they may be.

        Raises AssertionError where the kernel does what a GPU does not allow, saying what.
        """
        size = ctypes.c_uint32.in_dll(self._library, f"{launch.kernel}_bytes").value
        given = len(launch.arguments)
        assert given == size, f"{launch.kernel} takes {size} bytes of arguments, not {given}"
        kernel = self._library[launch.kernel]
        kernel.argtypes = [ctypes.c_uint32] * 5 + [ctypes.c_char_p, ctypes.c_uint64]
        shape = (*launch.grid, launch.threads, launch.shared_bytes)
        if kernel(*shape, launch.arguments, schedule):
            raise AssertionError(self._library.emulator_error().decode())


def compiler_problem() -> str | None:
    """Why kernels cannot be compiled here: None where they can."""
    return None if shutil.which("g++") else "needs g++"


def compile_kernels(text: str, folder: Path, options: tuple[str, ...] = ()) -> Emulator:
    """``text`` compiled into ``folder``, unless that was done before; ``options`` are g++'s.

    Raises AssertionError with what g++ says of a text that it cannot compile.
    """
    runtime = _built(folder, ("-c", *options), (HERE / "runtime.cpp").read_text(), ".o")
    included = ("-include", str(HERE / "device.h"))
    return Emulator(_built(folder, ("-shared", *options, *included), text, ".so", runtime))


def _built(folder: Path, options: tuple[str, ...], text: str, suffix: str, *more: Path) -> Path:
    headers = (path.read_bytes() for path in sorted(HERE.glob("*.h")))
    parts = (repr((options, text, more)).encode(), *headers)
    made = folder / (hashlib.sha256(b"\0".join(parts)).hexdigest()[:16] + suffix)
    with FileLock(made.with_suffix(".lock")):  # several processes share the folder
        if made.exists():
            return made
        source = made.with_suffix(".cpp")
        source.write_text(text)
        part = made.with_suffix(".part")
        files = [*map(str, more), str(source), "-o", str(part)]
        command = ["g++", *OPTIONS, f"-I{HERE}", *options, *files]
        english = os.environ | {"LC_ALL": "C"}
        run = subprocess.run(command, capture_output=True, text=True, env=english)
        assert run.returncode == 0, f"g++ cannot compile it:\n{run.stderr}"
        part.rename(made)
    return made
