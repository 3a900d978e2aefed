"""Networks in bfloat16 by OpenVINO, where there is a processor for it."""

import importlib.util
import platform
import subprocess
import sys
from pathlib import Path
from threading import Thread
from types import SimpleNamespace

import numpy as np
import pytest
from tests.support.bfloat16 import demo_inputs, demo_model, needs_bfloat16

from lipwire.domain.pythonprocess import python_command
from lipwire.engine.special import openvino
from lipwire.engine.special.openvino import OpenVinoFailed, SpecialisedNetwork, specialise


@pytest.fixture(autouse=True)
def forgets(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is found out once is found out by each test."""
    for name in ("why_not", "_openvino", "_core"):
        monkeypatch.setattr(openvino, name, getattr(openvino, name).__wrapped__)


def test_other_processors_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert openvino.why_not() == "this is a processor of the kind aarch64, needed is x86_64"


@pytest.mark.parametrize("flags", ["fpu avx2", "fpu avx512f avx512_vnni"])
def test_processors_without_units_are_told_without_openvino(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, flags: str
) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text(f"processor\t: 0\nflags\t\t: {flags}\n")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(openvino, "_CPU_INFO", info)
    monkeypatch.setattr(openvino, "_core", lambda: pytest.fail("OpenVINO was asked"))
    reason = openvino.why_not()
    assert reason is not None
    assert "no units for bfloat16" in reason


@pytest.mark.parametrize("units", [["FP32"], ["BF16", "FP32"]])
def test_elsewhere_openvino_is_asked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, units: list[str]
) -> None:
    core = SimpleNamespace(get_property=lambda _device, _name: units)
    monkeypatch.setattr(platform, "machine", lambda: "AMD64")
    monkeypatch.setattr(openvino, "_CPU_INFO", tmp_path / "none")
    monkeypatch.setattr(openvino, "_core", lambda: core)
    assert (openvino.why_not() is None) == ("BF16" in units)


def test_a_broken_installation_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def broken() -> None:
        raise ImportError("libopenvino.so: cannot open shared object file\nand more")

    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(openvino, "_CPU_INFO", tmp_path / "none")
    monkeypatch.setattr(openvino, "_core", broken)
    said = "OpenVINO cannot be used: libopenvino.so: cannot open shared object file"
    assert openvino.why_not() == said


def test_where_it_is_not_installed_that_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(openvino, "_CPU_INFO", tmp_path / "none")
    monkeypatch.delitem(sys.modules, "openvino", raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert openvino.why_not() == "OpenVINO cannot be used: it is not installed"


@pytest.mark.slow
def test_telemetry_is_never_imported() -> None:
    pytest.importorskip("openvino")
    program = (
        "import sys; from lipwire.engine.special import openvino; openvino._openvino();"
        "print(sorted(name for name in sys.modules if name.startswith('openvino_telemetry')"
        " and sys.modules[name] is not None))"
    )
    child = subprocess.run(
        python_command("-c", program), capture_output=True, text=True, check=True, timeout=60
    )
    assert child.stdout.strip() == "[]"


def test_what_openvino_cannot_do_is_one_error() -> None:
    pytest.importorskip("openvino")
    with pytest.raises(OpenVinoFailed):
        specialise(b"no model", 1)
    with pytest.raises(OpenVinoFailed):
        SpecialisedNetwork(b"no network", 1)


@pytest.mark.slow
@needs_bfloat16
def test_mouths_are_the_same_in_every_lane_and_thread() -> None:
    crops, windows = demo_inputs()
    blob = specialise(demo_model(), 2)
    network = SpecialisedNetwork(blob, 2)
    alone = np.zeros_like(crops)
    assert network.run(crops, windows, alone)
    assert alone.any()
    made = [np.zeros_like(crops) for _ in range(4)]
    threads = [
        Thread(target=network.run, args=(crops, windows, one), kwargs={"wait": True})
        for one in made
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one in made:
        np.testing.assert_array_equal(one, alone)
    other = np.zeros_like(crops)
    assert SpecialisedNetwork(blob, 1).run(crops, windows, other)
    np.testing.assert_array_equal(other, alone)


@pytest.mark.slow
@needs_bfloat16
def test_where_all_lanes_are_in_use_it_is_said() -> None:
    crops, windows = demo_inputs()
    network = SpecialisedNetwork(specialise(demo_model(), 1), 1)
    lane = network._free.get()
    mouths = np.zeros_like(crops)
    assert not network.run(crops, windows, mouths)
    assert not mouths.any()
    network._free.put(lane)
    assert network.run(crops, windows, mouths)
    network.close()
    assert not network.run(crops, windows, mouths)
