"""What NVML says of GPUs; NVML itself, which needs a driver, is played by a few answers."""

import subprocess
import sys
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from lipwire.domain import LipwireError, Unavailable
from lipwire.engine import DeviceLost, GpuInfo, GpuState, NoDriver, open_driver
from lipwire.engine.nvml import NvmlDriver

GIB = 2**30


class NVMLError(Exception):
    """As pynvml has it: ``value`` is the code."""

    def __init__(self, value: int, text: str = "") -> None:
        super().__init__(text)
        self.value = value

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass
class Nvml:
    """A few of pynvml's functions over GPUs that are (name, total bytes, used bytes, percent)."""

    gpus: list[tuple[str, int, int, int]]
    failing: dict[str, NVMLError] = field(default_factory=dict)
    starts: bool = True

    NVMLError = NVMLError
    NVML_ERROR_NOT_SUPPORTED = 3
    NVML_ERROR_DRIVER_NOT_LOADED = 9
    NVML_ERROR_GPU_IS_LOST = 15
    NVML_ERROR_RESET_REQUIRED = 16

    def nvmlInit(self) -> None:  # noqa: N802
        if not self.starts:
            raise NVMLError(9, "Driver Not Loaded")

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        return index

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> int:  # noqa: N802
        if uuid != "MIG-half-of-1":
            raise NVMLError(6, "Not Found")
        return 1

    def nvmlDeviceGetUUID(self, handle: int) -> str:  # noqa: N802
        return f"GPU-{handle}b-cafe"

    def nvmlDeviceGetName(self, handle: int) -> str:  # noqa: N802
        self._fail("name")
        return self.gpus[handle][0]

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:  # noqa: N802
        self._fail("memory")
        _, total, used, _ = self.gpus[handle]
        return SimpleNamespace(total=total, used=used, free=total - used)

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> Any:  # noqa: N802
        self._fail("rates")
        return SimpleNamespace(gpu=self.gpus[handle][3], memory=0)

    def _fail(self, what: str) -> None:
        if what in self.failing:
            raise self.failing[what]


@pytest.fixture
def nvml() -> Nvml:
    return Nvml([("NVIDIA A", 24 * GIB, 2 * GIB, 40), ("NVIDIA B", 80 * GIB, 0, 0)])


def test_names_memory_and_use_are_those_of_the_driver(nvml: Nvml) -> None:
    driver = NvmlDriver(nvml, {})
    assert driver.gpus() == (GpuInfo(0, "NVIDIA A", 24 * GIB), GpuInfo(1, "NVIDIA B", 80 * GIB))
    assert driver.state(0) == GpuState(2 * GIB, 22 * GIB, 0.4)
    assert driver.state(1) == GpuState(0, 80 * GIB, 0.0)


@pytest.mark.parametrize(
    ("visible", "names"),
    [
        ("1", ["B"]),
        ("1,0", ["B", "A"]),
        (" 0 , 1 ", ["A", "B"]),
        ("GPU-1b", ["B"]),
        ("MIG-half-of-1", ["B"]),
        ("0,2,1", ["A"]),  # what means no GPU ends the list
        ("GPU-", []),  # means both
        ("MIG-nothing", []),
        ("", []),
        ("-1", []),
        ("none", []),
    ],
)
def test_the_gpus_are_those_that_cuda_shows_in_its_order(
    nvml: Nvml, visible: str, names: list[str]
) -> None:
    gpus = NvmlDriver(nvml, {"CUDA_VISIBLE_DEVICES": visible}).gpus()
    assert [gpu.name.removeprefix("NVIDIA ") for gpu in gpus] == names
    assert [gpu.index for gpu in gpus] == list(range(len(names)))


def test_what_a_gpu_does_not_tell_is_left_open(nvml: Nvml) -> None:
    driver = NvmlDriver(nvml, {})
    silent = NVMLError(nvml.NVML_ERROR_NOT_SUPPORTED, "Not Supported")
    nvml.failing = {"name": silent, "memory": silent, "rates": silent}
    assert driver.gpus()[1] == GpuInfo(1, "unnamed GPU", 0)
    assert driver.state(1) == GpuState(0, 0, 0.0)


@pytest.mark.parametrize("code", [9, 15, 16])
def test_a_gpu_that_has_gone_is_told_from_a_driver_that_does_not_say(nvml: Nvml, code: int) -> None:
    driver = NvmlDriver(nvml, {})
    nvml.failing = {"memory": NVMLError(code, "GPU is lost")}
    with pytest.raises(DeviceLost, match="GPU 1: the driver says: GPU is lost"):
        driver.state(1)
    assert issubclass(DeviceLost, Unavailable)
    nvml.failing = {"rates": NVMLError(999, "Unknown Error")}
    with pytest.raises(LipwireError, match="Unknown Error") as caught:
        driver.state(1)
    assert not isinstance(caught.value, Unavailable)


def test_a_gpu_that_was_never_there_has_gone(nvml: Nvml) -> None:
    with pytest.raises(DeviceLost, match=r"GPU 2 is not there; those that are: \[0, 1\]"):
        NvmlDriver(nvml, {}).state(2)


def test_the_driver_is_opened_where_it_answers(nvml: Nvml, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    assert len(open_driver().gpus()) == 2


def test_a_driver_that_does_not_answer_leaves_its_reason(
    nvml: Nvml, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvml.starts = False
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    driver = open_driver()
    assert isinstance(driver, NoDriver)
    assert driver.reason == "the NVIDIA driver does not answer: Driver Not Loaded"
    assert driver.gpus() == ()
    with pytest.raises(LipwireError, match="nothing is known of GPU 0: the NVIDIA driver"):
        driver.state(0)


def test_without_the_package_there_is_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    driver = open_driver()
    assert isinstance(driver, NoDriver)
    assert "nvidia-ml-py is not installed" in driver.reason


def test_the_real_package_has_what_is_asked_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    pynvml = pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed")
    for name in (*(n for n in dir(Nvml) if n.startswith(("nvml", "NVML"))),):
        assert hasattr(pynvml, name), name
    assert pynvml.NVML_ERROR_GPU_IS_LOST == Nvml.NVML_ERROR_GPU_IS_LOST
    assert pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST).value == Nvml.NVML_ERROR_GPU_IS_LOST
    open_driver().gpus()  # with a GPU or without: it does not raise


@pytest.mark.slow
def test_nothing_of_it_is_imported_before_it_is_asked_for() -> None:
    program = (
        "import sys\n"
        "import lipwire.wiring.servers, lipwire.cli.main\n"
        "assert 'pynvml' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
