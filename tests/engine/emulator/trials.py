"""Kernels of a few lines, to try the emulator with."""

import struct
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.generic]

BUFFERS = "struct Args { u8* in; u8* out; };\n"


@dataclass(frozen=True)
class Launch:
    arguments: bytes
    kernel: str = "tried"
    grid: tuple[int, int, int] = (1, 1, 1)
    threads: int = 32
    shared_bytes: int = 4096
    alive: tuple[Array, ...] = ()
    """What the arguments point at."""


def launch(
    given: Array,
    made: Array,
    *,
    threads: int = 32,
    grid: tuple[int, int, int] = (1, 1, 1),
    shared_bytes: int = 4096,
) -> Launch:
    arguments = struct.pack("<QQ", given.ctypes.data, made.ctypes.data)
    return Launch(
        arguments, grid=grid, threads=threads, shared_bytes=shared_bytes, alive=(given, made)
    )


def kernel(name: str, body: str) -> str:
    seen = "u8* in = args.in; u8* out = args.out; const u32 i = thread_index();"
    return f"KERNEL({name}, 512, 1, Args) {{\n{seen}\n(void)in, (void)out, (void)i;\n{body}\n}}\n"


def tried(body: str) -> str:
    """One kernel, which sees ``in``, ``out`` and ``i``, the number of the thread."""
    return BUFFERS + kernel("tried", body)


def nothing() -> Array:
    return np.zeros(4096, np.uint8)


def aligned(array: Array) -> Array:
    """A copy at a multiple of 16 bytes."""
    room = np.empty(array.nbytes + 16, np.uint8)
    begin = -room.ctypes.data % 16
    there = room[begin : begin + array.nbytes].view(array.dtype).reshape(array.shape)
    there[...] = array
    return there
