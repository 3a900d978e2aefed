"""What the keys about GPUs do; only the driver's answers are made up, networks are real."""

import logging
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.support.waiting import WAIT_S
from tests.wiring.gpumachine import NAMES, Machine, Serve, config

from lipwire.config import load_inference_config
from lipwire.domain import Call, DependencyMissing, InvalidInput
from lipwire.engine import Device, NoDriver
from lipwire.wiring import choosing
from lipwire.wiring.choosing import choose_devices

# -- gpus.enabled and onnx.use_cuda ----------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("yaml", ["gpus: {enabled: false}", "onnx: {use_cuda: false}"])
def test_gpus_that_are_not_wanted_are_not_even_looked_for(
    machine: Machine, serve: Serve, yaml: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def touch(*_: Any) -> Any:
        raise AssertionError("CUDA was touched")

    monkeypatch.setattr(choosing, "cuda_problem", touch)
    monkeypatch.setattr(choosing, "open_driver", touch)
    monkeypatch.delitem(sys.modules, "pynvml", raising=False)  # of another test
    running = serve(yaml)
    assert machine.engines == [("cpu", None)]
    assert running.backend.health(call=Call(WAIT_S)).gpu_count == 0
    assert running.told["GPU status"]["GPU"] == "none, networks run on the processor"
    assert "pynvml" not in sys.modules


def test_gpus_are_used_where_there_are_any(machine: Machine, serve: Serve) -> None:
    running = serve("")
    assert machine.engines == [("cuda:0", None), ("cuda:1", None), ("cuda:2", None)]
    health = running.backend.health(call=Call(WAIT_S))
    assert (health.healthy, health.gpu_count, health.max_models) == (True, 3, 3000)
    facts = running.told["GPU status"]
    assert facts["GPU 0"] == "NVIDIA A, 0 models, 512 MB used / 24576 MB total"
    assert facts["GPU 2"] == "NVIDIA C, 0 models, 512 MB used / 81920 MB total"


@pytest.mark.parametrize("why", ["no CUDA", "no GPU"])
def test_without_cuda_the_processor_is_used_and_that_is_said_once(
    machine: Machine, serve: Serve, caplog: pytest.LogCaptureFixture, why: str
) -> None:
    if why == "no CUDA":
        machine.problem = "libcudnn.so.9 does not load"
    else:
        machine.driver.there = ()
    running = serve("onnx: {use_cuda: true}")
    assert machine.engines == [("cpu", None)]
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "NOT AVAILABLE: " in warnings[0]
    assert ("libcudnn.so.9" if why == "no CUDA" else "no GPU") in warnings[0]
    assert "NOT AVAILABLE" in str(running.told["GPU status"]["CUDA"])
    assert running.home("b") == 0


@pytest.mark.parametrize(
    ("yaml", "wanted"),
    [
        ("", ["cuda:0", "cuda:1", "cuda:2"]),
        ("gpus: {kernels: false}", ["cpu"]),
        ("onnx: {use_cuda: strict}", []),
    ],
)
def test_where_onnx_runtime_has_no_cuda_kernels_of_our_own_are_enough(
    machine: Machine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    yaml: str,
    wanted: list[str],
) -> None:
    machine.problem = "ONNX Runtime is built without CUDA here"
    monkeypatch.setattr(choosing, "kernels_problem", lambda device: None)
    if not wanted:
        with pytest.raises(DependencyMissing, match="built without CUDA"):
            choose_devices(config(yaml, tmp_path))
        return
    chosen = choose_devices(config(yaml, tmp_path))
    assert [str(device.device) for device in chosen.devices] == wanted


def test_without_cuda_a_strict_server_does_not_start(machine: Machine, serve: Serve) -> None:
    machine.problem = "libcudnn.so.9 does not load"
    with pytest.raises(
        DependencyMissing, match=r"onnx\.use_cuda is strict, .*libcudnn\.so\.9 does not load"
    ):
        serve("onnx: {use_cuda: strict}")
    assert machine.engines == []


def test_a_driver_that_does_not_answer_leaves_cuda_with_what_was_asked_for(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choosing, "open_driver", lambda: NoDriver("nvidia-ml-py is not installed"))
    chosen = choose_devices(config("", tmp_path))
    assert [device.index for device in chosen.devices] == [0]
    assert chosen.facts["GPU 0"] == "a GPU, 0 models, memory not known"
    assert chosen.facts["Names and memory"] == "not known: nvidia-ml-py is not installed"
    two = choose_devices(config("gpus: {count: 2}\nonnx: {cuda_device_id: 3}", tmp_path))
    assert [str(device.device) for device in two.devices] == ["cuda:3", "cuda:4"]


def test_gpus_are_numbered_as_the_driver_numbers_them(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str | None] = []

    def cuda_problem(device: Device) -> None:
        seen.append(os.environ.get("CUDA_DEVICE_ORDER"))

    monkeypatch.delenv("CUDA_DEVICE_ORDER")
    monkeypatch.setattr(choosing, "cuda_problem", cuda_problem)
    choose_devices(config("", tmp_path))
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "FASTEST_FIRST")
    choose_devices(config("", tmp_path))
    assert seen == ["PCI_BUS_ID", "FASTEST_FIRST"], "before CUDA starts, and never over the user's"


# -- gpus.count and onnx.cuda_device_id ------------------------------------------------------------


@pytest.mark.parametrize(
    ("yaml", "used"),
    [
        ("gpus: {count: auto}", ["cuda:0", "cuda:1", "cuda:2"]),
        ("gpus: {count: 1}", ["cuda:0"]),
        ("gpus: {count: 2}", ["cuda:0", "cuda:1"]),
        ("onnx: {cuda_device_id: 1}", ["cuda:1", "cuda:2"]),
        ("gpus: {count: 1}\nonnx: {cuda_device_id: 2}", ["cuda:2"]),
    ],
)
def test_as_many_gpus_as_asked_for_from_the_first_on(
    machine: Machine, serve: Serve, yaml: str, used: list[str]
) -> None:
    running = serve(yaml)
    assert [device for device, _ in machine.engines] == used
    assert running.backend.health(call=Call(WAIT_S)).gpu_count == len(used)
    # The number in answers is the GPU's own.
    assert f"cuda:{running.home('b')}" == used[0]
    assert [f"cuda:{model.gpu_id}" for model in running.backend.models()] == used[:1]


def test_more_gpus_than_there_are_is_said(
    machine: Machine, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    running = serve("gpus: {count: 4}\nonnx: {cuda_device_id: 1}")
    assert "gpus.count is 4, there are 2 from GPU 1 on: networks run on 2" in caplog.text
    assert running.backend.health(call=Call(WAIT_S)).gpu_count == 2
    with pytest.raises(DependencyMissing, match=r"strict, but gpus\.count is 4, there are 3$"):
        serve("gpus: {count: 4}\nonnx: {use_cuda: strict}")


def test_only_gpus_that_are_asked_for_are_started(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []

    def cuda_problem(device: Device) -> None:
        tried.append(str(device))

    monkeypatch.setattr(choosing, "cuda_problem", cuda_problem)
    choose_devices(config("onnx: {cuda_device_id: 1}", tmp_path))
    assert tried == ["cuda:1"]


def test_a_first_gpu_that_fails_is_not_the_end_of_the_others(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    problems = {"cuda:0": "CUDA does not start on cuda:0: uncorrectable ECC error"}
    monkeypatch.setattr(choosing, "cuda_problem", lambda device: problems.get(str(device)))
    chosen = choose_devices(config("onnx: {use_cuda: true}", tmp_path))
    assert [str(device.device) for device in chosen.devices] == ["cuda:0", "cuda:1", "cuda:2"]
    problems |= {f"cuda:{index}": "CUDA does not start" for index in (1, 2)}
    chosen = choose_devices(config("onnx: {use_cuda: true}", tmp_path))
    assert [str(device.device) for device in chosen.devices] == ["cpu"]


def test_a_first_gpu_that_is_none_is_an_error_though_it_does_not_start(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    problems = {"cuda:7": "CUDA does not start on cuda:7: invalid device ordinal"}
    monkeypatch.setattr(choosing, "cuda_problem", lambda device: problems.get(str(device)))
    with pytest.raises(InvalidInput, match=r"cuda_device_id is 7; the GPUs here are 0 \(NVIDIA A"):
        choose_devices(config("onnx: {cuda_device_id: 7}", tmp_path))


def test_a_first_gpu_that_is_none_is_an_error(machine: Machine, serve: Serve) -> None:
    with pytest.raises(InvalidInput, match=r"cuda_device_id is 7; the GPUs here are 0 \(NVIDIA A"):
        serve("onnx: {cuda_device_id: 7}")


# -- gpus.assignment_strategy ----------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("strategy", "homes"),
    [("round-robin", [0, 1, 0, 1]), ("least-loaded", [0, 1, 1, 1])],
)
def test_the_strategy_decides_where_avatars_go(
    machine: Machine, serve: Serve, strategy: str, homes: list[int]
) -> None:
    running = serve(f"gpus: {{count: 2, assignment_strategy: {strategy}}}")
    assert [running.home(name) for name in NAMES] == homes  # a is larger than the others together
    assert [running.home(name) for name in NAMES] == homes
    assert running.told["GPU status"]["Avatars are assigned"] == strategy


@pytest.mark.parametrize(
    ("settings", "mib"),
    [
        ({}, 1024),
        ({"CAPACITY__HOT_MEMORY_MB": "300", "SERVER__WORKERS": "3"}, 100),
        ({"ONNX__PRECISION": "float32"}, 0),
        ({"CAPACITY__COMPILE_SANDBOX": "true"}, 0),
    ],
)
def test_specialised_networks_have_their_share_of_memory(
    settings: dict[str, str], mib: int
) -> None:
    environ = {f"LIPWIRE_{key}": value for key, value in settings.items()}
    given = load_inference_config(None, {**environ, "LIPWIRE_ONNX__USE_CUDA": "false"})
    (chosen,) = choose_devices(given).devices
    assert chosen.hot_bytes == mib << 20
