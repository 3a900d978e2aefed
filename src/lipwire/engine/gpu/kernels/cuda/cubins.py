"""Compiled kernels: those made before from disk, the others by NVRTC (``nvrtc``).

A file is named by what it was made from and by the version of NVRTC, and begins with the SHA-256 of
the cubin behind it. Several processes may share the folder.
"""

import functools
import hashlib
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from lipwire.config.folders import cache_folders
from lipwire.domain.newfiles import new_file
from lipwire.engine.gpu.kernels.cuda.nvrtc import FIRST_MAJOR, Nvrtc, find_nvrtc
from lipwire.engine.gpu.programs import KernelSource, KernelsUnavailable

_LOG: Final = logging.getLogger(__name__)

_OPTIONS: Final = ("--std=c++17", "--device-as-default-execution-space")
"""The second because NVRTC takes no function of the host, which an unmarked one is, constexpr ones
as well."""
_DIGEST_BYTES: Final = hashlib.sha256().digest_size


class Cubins:
    """Compiles CUDA kernels for a GPU, and keeps what was compiled in a folder, for later processes
    too. Thread-safe."""

    def __init__(
        self,
        folder: Path | None = None,
        find: Callable[[int], Nvrtc | None] = find_nvrtc,
    ) -> None:
        """Compiled kernels are kept in ``folder``; None for one in the user's cache folder.
        ``find(newest_major)`` returns a compiler whose major version of CUDA is not above
        ``newest_major``, or None where there is none."""
        self._folder = folder or cache_folders()[-1] / "kernels"
        self._find = find

    def check_compiler(self, newest_major: int) -> None:
        """Raise KernelsUnavailable where there is no compiler on this machine: then only kernels
        that were compiled before can be used.

        ``newest_major`` is the newest major version of CUDA that the compiler may have: that of the
        driver.
        """
        if self._find(newest_major) is None:
            raise KernelsUnavailable(_no_nvrtc(newest_major))

    def cubin(self, source: KernelSource, capability: tuple[int, int], newest_major: int) -> bytes:
        """Return the kernels of ``source`` as a cubin (an ELF file for a GPU), read from the folder
        where they were compiled before; otherwise they are compiled, which takes seconds, and
        written there.

        ``capability`` is the compute capability of the device, such as (9, 0). ``newest_major`` is
        the major version of CUDA of its driver, which cannot load a cubin of a newer compiler.
        Raises KernelsUnavailable where there is neither such a file nor a compiler, or where the
        kernels do not compile.
        """
        options = (f"--gpu-architecture=sm_{capability[0]}{capability[1]}", *_OPTIONS)
        key = _key(source, options)
        nvrtc = self._find(newest_major)
        if nvrtc is None:
            return self._newest(key, newest_major)
        path = self._folder / _file_name(key, nvrtc.version)
        cubin = _read(path)
        if cubin is None:
            cubin = nvrtc.compile(source, options)
            self._keep(path, cubin)
        return cubin

    def _newest(self, key: str, newest_major: int) -> bytes:
        """What an NVRTC that is here no more has made."""
        found: dict[tuple[int, int], Path] = {}
        for path in self._folder.glob(f"{key}-*.cubin"):
            with suppress(ValueError):
                major, minor = path.stem.removeprefix(f"{key}-").split(".")
                found[int(major), int(minor)] = path
        for version in sorted(found, reverse=True):
            cubin = _read(found[version]) if version[0] <= newest_major else None
            if cubin is not None:
                return cubin
        raise KernelsUnavailable(_no_nvrtc(newest_major))

    def _keep(self, path: Path, cubin: bytes) -> None:
        """Write ``path``, or say once that it cannot be: then every process compiles anew."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with new_file(path) as file:
                file.write(hashlib.sha256(cubin).digest() + cubin)
        except OSError as error:
            _say_not_kept(self._folder, error.strerror or type(error).__name__)


def _no_nvrtc(newest_major: int) -> str:
    return (
        f"there is no NVRTC of CUDA {FIRST_MAJOR} to {newest_major} here, which"
        " onnxruntime-gpu[cuda] brings"
    )


@functools.cache
def _say_not_kept(folder: Path, reason: str) -> None:
    _LOG.warning("compiled kernels cannot be kept in %s: %s", folder, reason)


def _read(path: Path) -> bytes | None:
    """The cubin in a file; None where it is damaged or there is none."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    digest, cubin = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
    return cubin if hashlib.sha256(cubin).digest() == digest else None


def _file_name(key: str, version: tuple[int, int]) -> str:
    return f"{key}-{version[0]}.{version[1]}.cubin"


def _key(source: KernelSource, options: Sequence[str]) -> str:
    digest = hashlib.sha256()
    for text in (source.text, source.header, *options):
        data = text.encode()
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()
