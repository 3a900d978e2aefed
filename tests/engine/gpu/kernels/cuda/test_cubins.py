"""A cubin is made once and found from then on, by any process, as long as its file is whole."""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lipwire.engine.gpu.kernels.cuda.cubins import Cubins
from lipwire.engine.gpu.kernels.cuda.nvrtc import Nvrtc
from lipwire.engine.gpu.programs import KernelSource, KernelsUnavailable

SOURCE = KernelSource("text", "header", {"kernel": 100})
HOPPER = (9, 0)


class Compiler(Nvrtc):
    """Makes a cubin that tells what it was made of."""

    def __init__(self, version: tuple[int, int] = (13, 0)) -> None:
        def tell(major: Any, minor: Any) -> int:
            major._obj.value, minor._obj.value = version
            return 0

        super().__init__(SimpleNamespace(nvrtcVersion=tell))
        self.compiled = 0
        self.meanwhile: Callable[[], object] = lambda: None

    def compile(self, source: KernelSource, options: object) -> bytes:
        self.compiled += 1
        self.meanwhile()
        return repr((source.text, source.header, options, self.version)).encode()


def absent(newest_major: int) -> None:
    return None


def cubins(folder: Path, compiler: Compiler) -> Cubins:
    return Cubins(folder, lambda newest_major: compiler)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "kernels"


def files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def test_what_was_compiled_is_found_by_the_next_process(folder: Path) -> None:
    first, second = Compiler(), Compiler()
    made = cubins(folder, first).cubin(SOURCE, HOPPER, 13)
    assert b"--gpu-architecture=sm_90" in made
    assert cubins(folder, second).cubin(SOURCE, HOPPER, 13) == made
    assert (first.compiled, second.compiled) == (1, 0)
    assert [path.suffix for path in files(folder)] == [".cubin"]


@pytest.mark.parametrize(
    ("source", "capability", "version"),
    [
        (replace(SOURCE, text="other"), HOPPER, (13, 0)),
        (replace(SOURCE, header="other"), HOPPER, (13, 0)),
        (replace(SOURCE, text="texthea", header="der"), HOPPER, (13, 0)),
        (SOURCE, (8, 0), (13, 0)),
        (SOURCE, HOPPER, (13, 1)),
    ],
)
def test_another_source_device_or_compiler_makes_another(
    folder: Path, source: KernelSource, capability: tuple[int, int], version: tuple[int, int]
) -> None:
    made = cubins(folder, Compiler()).cubin(SOURCE, HOPPER, 13)
    other = Compiler(version)
    assert cubins(folder, other).cubin(source, capability, 13) != made
    assert other.compiled == 1
    assert len(files(folder)) == 2


def test_how_much_shared_memory_is_asked_for_makes_no_other(folder: Path) -> None:
    cubins(folder, Compiler()).cubin(SOURCE, HOPPER, 13)
    other = Compiler()
    cubins(folder, other).cubin(replace(SOURCE, kernels={"kernel": 1}), HOPPER, 13)
    assert other.compiled == 0


def test_without_the_compiler_what_the_driver_takes_is_found(folder: Path) -> None:
    """The newest, by number and not by name."""
    for version in ((12, 9), (12, 10), (13, 0)):
        cubins(folder, Compiler(version)).cubin(SOURCE, HOPPER, 13)
    (folder / f"{files(folder)[0].name.split('-')[0]}-old.cubin").write_bytes(b"")
    alone = Cubins(folder, absent)
    assert b"(13, 0)" in alone.cubin(SOURCE, HOPPER, 13)
    assert b"(12, 10)" in alone.cubin(SOURCE, HOPPER, 12)
    with pytest.raises(KernelsUnavailable, match=r"no NVRTC of CUDA 12 to 12 here"):
        alone.cubin(SOURCE, (8, 0), 12)


def test_without_compiler_and_folder_the_reason_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for folder in (tmp_path / "none", tmp_path / "file", tmp_path / "file" / "kernels"):
        with pytest.raises(KernelsUnavailable, match="no NVRTC"):
            Cubins(folder, absent).cubin(SOURCE, HOPPER, 13)


def flipped(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


@pytest.mark.parametrize(
    "damage", [flipped, lambda data: data[:-1], lambda data: data[:7], lambda data: b""]
)
def test_a_damaged_file_is_made_again(folder: Path, damage: Callable[[bytes], bytes]) -> None:
    made = cubins(folder, Compiler()).cubin(SOURCE, HOPPER, 13)
    (path,) = files(folder)
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    with pytest.raises(KernelsUnavailable):
        Cubins(folder, absent).cubin(SOURCE, HOPPER, 13)
    again = Compiler()
    assert cubins(folder, again).cubin(SOURCE, HOPPER, 13) == made
    assert again.compiled == 1
    assert path.read_bytes() == whole


def test_two_processes_may_compile_the_same_at_once(folder: Path) -> None:
    first, second = Compiler(), Compiler()
    others: list[bytes] = []
    first.meanwhile = lambda: others.append(cubins(folder, second).cubin(SOURCE, HOPPER, 13))
    made = cubins(folder, first).cubin(SOURCE, HOPPER, 13)
    assert others == [made]
    assert (first.compiled, second.compiled) == (1, 1)
    assert len(files(folder)) == 1
    assert Cubins(folder, absent).cubin(SOURCE, HOPPER, 13) == made


def test_a_folder_that_cannot_be_made_costs_a_warning_and_no_kernels(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_bytes(b"")
    folder = tmp_path / "file" / "kernels"
    compiler = Compiler()
    for _ in range(2):
        assert cubins(folder, compiler).cubin(SOURCE, HOPPER, 13)
    assert compiler.compiled == 2
    messages = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert messages == [f"compiled kernels cannot be kept in {folder}: Not a directory"]


def test_a_write_that_fails_leaves_nothing_half_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(path: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    assert cubins(folder, Compiler()).cubin(SOURCE, HOPPER, 13)
    assert files(folder) == []
    assert "No space left on device" in caplog.text


def test_they_lie_in_the_users_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "of-the-user"))
    Cubins(find=lambda newest_major: Compiler()).cubin(SOURCE, HOPPER, 13)
    assert len(files(tmp_path / "of-the-user" / "lipwire" / "kernels")) == 1
