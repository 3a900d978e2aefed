"""Which device, and what a machine without CUDA says."""

import re
import subprocess
import sys

import onnxruntime
import pytest

from lipwire.domain import InvalidInput
from lipwire.engine import Device, cuda_problem, runtime
from lipwire.engine.runtime import CudaOptions, first_line, providers

WITHOUT_CUDA = "CUDAExecutionProvider" not in onnxruntime.get_available_providers()


@pytest.mark.parametrize(
    ("device", "text"),
    [(Device.cpu(), "cpu"), (Device.cuda(0), "cuda:0"), (Device.cuda(7), "cuda:7")],
)
def test_a_device_is_named_as_people_name_it(device: Device, text: str) -> None:
    assert str(device) == text


def test_devices_are_equal_by_what_they_are() -> None:
    assert Device.cuda(1) == Device.cuda(1) != Device.cuda(0)
    assert len({Device.cpu(), Device.cpu(), Device.cuda(0)}) == 2


@pytest.mark.parametrize(("kind", "index"), [("tpu", 0), ("cuda", -1), ("cuda", 64), ("cpu", 1)])
def test_a_device_that_cannot_be_is_refused(kind: str, index: int) -> None:
    with pytest.raises(InvalidInput, match=f"{kind!r}|{index}"):
        Device(kind, index)  # type: ignore[arg-type]


def test_the_processor_is_asked_for_without_anything_of_cuda() -> None:
    assert providers(Device.cpu()) == ["CPUExecutionProvider"]


def test_products_on_a_gpu_are_not_rounded_unless_asked() -> None:
    (name, options), last = providers(Device.cuda(3), CudaOptions(stream=17))
    assert (name, last) == ("CUDAExecutionProvider", "CPUExecutionProvider")
    assert options["device_id"] == "3"
    assert options["use_tf32"] == "0"
    assert options["user_compute_stream"] == "17"
    assert (
        "user_compute_stream" not in providers(Device.cuda(3))[0][1]
    )  # 0 would be the null stream
    assert all(isinstance(value, str) for value in options.values())


@pytest.mark.skipif(not WITHOUT_CUDA, reason="this ONNX Runtime has CUDA")
def test_without_cuda_one_line_says_so() -> None:
    problem = cuda_problem()
    assert problem is not None
    assert "without CUDA" in problem
    assert "\n" not in problem


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_cuda_that_does_not_load_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    """An ONNX Runtime that has CUDA, on a machine that has not: it would go on on the processor."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None)
    for driver, says in (
        ("libcuda-is-not-here.so.1", "there is no NVIDIA driver here"),
        ("libc.so.6", r"does not load \(.*libonnxruntime_providers_cuda.*No such file"),
    ):
        monkeypatch.setattr(runtime, "DRIVER", driver)
        runtime._cuda_problem.cache_clear()
        runtime._load_cuda.cache_clear()
        try:
            problem = cuda_problem()
        finally:
            runtime._cuda_problem.cache_clear()
        assert problem is not None
        assert re.search(says, problem)
        assert "\n" not in problem


def test_each_gpu_is_tried_for_itself_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    class Session:
        def run(self, *_: object) -> None:
            pass

    def open_session(model: bytes, options: object, device: Device) -> Session:
        tried.append(str(device))
        if device.index == 1:
            raise RuntimeError("CUDA failure 214: uncorrectable ECC error\nand more")
        return Session()

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(runtime, "DRIVER", "libc.so.6")
    monkeypatch.setattr(runtime, "_load_cuda", lambda: None)
    monkeypatch.setattr(runtime, "open_session", open_session)
    runtime._cuda_problem.cache_clear()
    try:
        for _ in range(2):
            assert cuda_problem(Device.cuda(2)) is None
            assert cuda_problem() is None
            problem = cuda_problem(Device.cuda(1))
            assert problem is not None
            assert problem.startswith("CUDA does not start on cuda:1: CUDA failure 214")
            assert "\n" not in problem
    finally:
        runtime._cuda_problem.cache_clear()
    assert tried == ["cuda:2", "cuda:0", "cuda:1"]


def test_inputs_that_are_read_on_the_processor_are_found() -> None:
    """On the processor all are."""
    options = runtime.session_options(threads=1, optimisation="none")
    runtime.note_placement(options)
    session = runtime.open_session(runtime._smallest_model(), options)
    assert runtime.read_on_processor(session) == ("x",)
    assert runtime.placed_nodes(session) == {"CPUExecutionProvider": {"Add": 1}}
    assert runtime.read_on_processor(object()) == ()
    assert runtime.placed_nodes(object()) == {}


@pytest.mark.slow
def test_importing_the_engine_loads_nothing_of_cuda() -> None:
    program = (
        "import lipwire.engine, lipwire.cli.main\n"
        "maps = open('/proc/self/maps').read()\n"
        "assert 'libcuda' not in maps and 'cudnn' not in maps, maps\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_what_a_terminal_obeys_is_escaped_in_messages() -> None:
    """Names of a network's layers come from its file."""
    assert first_line(ValueError("a\x1b[31m b\x7f c\u202e\nmore")) == "a\\x1b[31m b\\x7f c\\u202e"
    assert first_line(ValueError("é ok")) == "é ok"
    assert first_line(ValueError()) == "ValueError"
    assert len(first_line(ValueError("\x1b" * 1000))) == 240
