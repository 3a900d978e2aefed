"""What a device's compiler is given: each use of a template once, and text that compiles."""

import shutil
import subprocess
from pathlib import Path

import pytest
from tests.engine.drawing import ODD, places_of
from tests.engine.emulated import H200

from lipwire.engine.gpu.kernels.cuda.cubins import Cubins
from lipwire.engine.gpu.kernels.cuda.kerneltexts import PREPARING, CannotLower, KernelTexts
from lipwire.engine.gpu.kernels.cuda.nvrtc import find_nvrtc
from lipwire.engine.gpu.kernels.lowering.lowered import Lowered
from lipwire.engine.gpu.programs import HEADER_NAME, KernelSource

TEMPLATE = "Layer<COPIED, 0, 0, 0, 64, 32, 4, 1>"


def test_uses_of_one_kind_are_one_kernel() -> None:
    texts = KernelTexts(1000)
    one = texts.name(TEMPLATE, "LayerArgs", 500)
    other = texts.name("Block<...>", "BlockArgs", 500)
    assert one != other
    assert texts.name(TEMPLATE, "LayerArgs", 500) == one
    assert texts.templates == {one: TEMPLATE, other: "Block<...>"}
    source = texts.source
    assert source.kernels == {**dict.fromkeys(PREPARING, 0), one: 500, other: 500}
    assert source.text.count(TEMPLATE) == 1


def test_shared_memory_has_an_end() -> None:
    texts = KernelTexts(1000)
    texts.name(TEMPLATE, "LayerArgs", 1000)
    with pytest.raises(CannotLower, match=r"takes 1001 bytes of shared memory, there are 1000$"):
        texts.name("Block<...>", "BlockArgs", 1001)


@pytest.fixture(scope="module")
def source() -> KernelSource:
    """Of kernels of all kinds."""
    return Lowered(ODD.plan, places_of(ODD.weights(1))[0], H200).source


@pytest.mark.slow
@pytest.mark.parametrize("capability", [(8, 0), (9, 0)])
def test_nvidias_compiler_takes_it(
    source: KernelSource, tmp_path: Path, capability: tuple[int, int]
) -> None:
    if shutil.which("nvcc") is None:
        pytest.skip("no nvcc on this machine")
    (tmp_path / "network.cu").write_text(source.text)
    (tmp_path / HEADER_NAME).write_text(source.header)
    options = ("-std=c++17", "-arch=sm_{}{}".format(*capability), "-cubin")
    command = ["nvcc", *options, "-o", "network.cubin", "network.cu"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    cubin = (tmp_path / "network.cubin").read_bytes()
    assert all(name.encode() in cubin for name in source.kernels)


@pytest.mark.slow
@pytest.mark.parametrize("capability", [(8, 0), (9, 0)])
def test_the_compiler_that_is_run_with_takes_it(
    source: KernelSource, tmp_path: Path, capability: tuple[int, int]
) -> None:
    if (found := find_nvrtc(99)) is None:
        pytest.skip("no NVRTC on this machine")
    cubin = Cubins(tmp_path, lambda newest_major: found).cubin(source, capability, 99)
    assert all(name.encode() in cubin for name in source.kernels)
