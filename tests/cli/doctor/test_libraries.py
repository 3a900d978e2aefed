from __future__ import annotations

from dataclasses import dataclass

import av
import pytest

from lipwire.cli.doctor.checks import Outcome
from lipwire.cli.doctor.libraries import ffmpeg, gpus, telemetry
from lipwire.config import InferenceConfig
from lipwire.config.inference import GpuSettings, OnnxSettings
from lipwire.engine.device import DeviceLost
from lipwire.engine.nvml import GpuInfo, GpuState, NoDriver

GIB = 1024**3
CUDA = ("CUDAExecutionProvider", "CPUExecutionProvider")


@dataclass(frozen=True)
class StandIn:
    """A driver with one GPU of 24 GiB."""

    free_gib: float = 20
    lost: bool = False

    def gpus(self) -> tuple[GpuInfo, ...]:
        return (GpuInfo(0, "RTX 4090", 24 * GIB),)

    def state(self, index: int) -> GpuState:
        if self.lost:
            raise DeviceLost(f"GPU {index}: it has gone")
        free = int(self.free_gib * GIB)
        return GpuState(24 * GIB - free, free, 0.5)


@pytest.mark.parametrize("missing", ["libx264", "aac", "mp3"])
def test_a_codec_that_is_missing_is_named(missing: str) -> None:
    check = ffmpeg(av.codecs_available - {missing})
    assert check.outcome is Outcome.FAULT
    assert f"without {missing}" in check.seen


def test_pyavs_own_libraries_are_enough() -> None:
    assert ffmpeg().outcome is Outcome.OK


@pytest.mark.parametrize(
    ("value", "outcome"), [("1", Outcome.OK), ("0", Outcome.WARNING), ("", Outcome.WARNING)]
)
def test_telemetry_that_is_on_is_told(value: str, outcome: Outcome) -> None:
    assert telemetry({"ORT_DISABLE_TELEMETRY": value}).outcome is outcome


def test_lipwire_turns_telemetry_off(monkeypatch: pytest.MonkeyPatch) -> None:
    assert telemetry().outcome is Outcome.OK


def config(count: int | str = "auto", memory_gb: float | None = None) -> InferenceConfig:
    return InferenceConfig.model_validate(
        {"gpus": {"count": count, "memory_gb_per_gpu": memory_gb}}
    )


@pytest.mark.parametrize(
    ("asked", "driver", "providers", "outcomes"),
    [
        (config(), StandIn(), CUDA, {"GPUs": "ok", "GPU 0": "ok"}),
        (config(memory_gb=20), StandIn(), CUDA, {"GPUs": "ok", "GPU 0": "ok"}),
        (config(memory_gb=22), StandIn(), CUDA, {"GPUs": "ok", "GPU 0": "warning"}),
        (config(memory_gb=80), StandIn(), CUDA, {"GPUs": "ok", "GPU 0": "fault"}),
        (config(2), StandIn(), CUDA, {"GPUs": "fault", "GPU 0": "ok"}),
        (config(), StandIn(lost=True), CUDA, {"GPUs": "ok", "GPU 0": "fault"}),
        (
            config(),
            StandIn(),
            ("CPUExecutionProvider",),
            {"GPUs": "ok", "ONNX Runtime": "warning", "GPU 0": "ok"},
        ),
    ],
)
def test_gpus_are_compared_with_what_is_asked_for(
    asked: InferenceConfig, driver: StandIn, providers: tuple[str, ...], outcomes: dict[str, str]
) -> None:
    found = gpus([asked], driver, providers)
    assert {check.name: check.outcome.value for check in found} == outcomes


@pytest.mark.parametrize(
    ("asked", "outcome"),
    [
        (InferenceConfig(), Outcome.NOT_APPLICABLE),
        (InferenceConfig(onnx=OnnxSettings(use_cuda="strict")), Outcome.FAULT),
        (
            InferenceConfig(gpus=GpuSettings(enabled=False), onnx=OnnxSettings(use_cuda="strict")),
            Outcome.NOT_APPLICABLE,
        ),
    ],
)
def test_a_machine_without_gpus_is_a_fault_where_one_is_needed(
    asked: InferenceConfig, outcome: Outcome
) -> None:
    (check,) = gpus([asked], NoDriver("no driver here"), CUDA)
    assert check.outcome is outcome
    assert "no driver here" in check.seen
