"""Libraries and devices that the work is done with: FFmpeg, ONNX Runtime, GPUs."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from lipwire.cli.doctor.checks import Check, fault, not_applicable, ok, warning

if TYPE_CHECKING:
    from lipwire.config import InferenceConfig, ServerConfig
    from lipwire.engine.nvml import Driver

_CODECS: Final = ("libx264", "aac", "mp3", "flac", "opus", "vorbis", "pcm_s16le", "h264")
"""What is written and what recordings mostly have, by FFmpeg's names."""
_GIB: Final = 1024**3


def ffmpeg(available: Collection[str] | None = None) -> Check:
    """Check that PyAV's FFmpeg libraries have the codecs with which videos are written and
    recordings are read. ``available`` are the names of the codecs that exist; with None, PyAV is
    asked."""
    import av

    there = av.codecs_available if available is None else available
    versions = av.library_versions
    seen = ", ".join(
        f"{library} {'.'.join(map(str, versions[library]))}"
        for library in ("libavcodec", "libavformat")
        if library in versions
    )
    missing = [codec for codec in _CODECS if codec not in there]
    wanted = f"codecs {', '.join(_CODECS)}"
    if missing:
        return fault(
            "FFmpeg in PyAV", f"{seen}, without {', '.join(missing)}", wanted,
            "install the wheel of the package av, not a build against the system's FFmpeg",
        )  # fmt: skip
    return ok("FFmpeg in PyAV", seen, wanted)


def telemetry(environ: Mapping[str, str] = os.environ) -> Check:
    """Check that ONNX Runtime reports nothing to its makers: WARNING where
    ``ORT_DISABLE_TELEMETRY`` is unset, empty or 0 in ``environ``. Lipwire sets the variable unless
    somebody has chosen another value."""
    name = "ONNX Runtime's telemetry"
    value = environ.get("ORT_DISABLE_TELEMETRY", "")
    if value in ("", "0"):
        return warning(
            name, f"on (ORT_DISABLE_TELEMETRY={value})", "off", "unset ORT_DISABLE_TELEMETRY"
        )
    return ok(name, "off", "off")


def gpus(
    configs: Sequence[ServerConfig],
    driver: Driver | None = None,
    providers: Collection[str] | None = None,
) -> list[Check]:
    """Return checks of the GPUs that the driver knows: that there are as many as the one of
    ``configs`` that needs most, that the memory of each is enough for the largest
    ``gpus.memory_gb_per_gpu``, and that ONNX Runtime can use them. Where the driver knows none,
    returns one check: FAULT where one of ``configs`` requires GPUs, else NOT_APPLICABLE. Only the
    configurations of inference servers count.

    ``driver`` answers questions about GPUs (None: NVIDIA's driver). ``providers`` are the names of
    the execution providers of ONNX Runtime (None: it is asked).
    """
    from lipwire.config import InferenceConfig
    from lipwire.domain import LipwireError
    from lipwire.engine.nvml import NoDriver, open_driver

    driver = driver or open_driver()
    if providers is None:
        import onnxruntime

        providers = onnxruntime.get_available_providers()
    asking = [each for each in configs if isinstance(each, InferenceConfig) and each.wants_cuda]
    found = driver.gpus()
    if not found:
        reason = driver.reason if isinstance(driver, NoDriver) else "the driver knows none"
        strict = any(each.requires_cuda for each in asking)
        action = "install lipwire[gpu] and NVIDIA's driver, or set onnx.use_cuda to true or false"
        if strict:
            return [fault("GPUs", reason, "one or more (onnx.use_cuda is strict)", action)]
        return [not_applicable("GPUs", f"none: {reason}; networks run on the processor")]
    checks = [_enough(len(found), asking)]
    if "CUDAExecutionProvider" not in providers:
        checks.append(
            warning(
                "ONNX Runtime",
                "built without CUDA",
                "built with CUDA",
                "install lipwire[gpu]; docs/performance.md says how",
            )
        )
    budget = max((each.gpus.memory_gb_per_gpu or 0 for each in asking), default=0)
    for gpu in found:
        name = f"GPU {gpu.index}"
        try:
            state = driver.state(gpu.index)
        except LipwireError as error:
            checks.append(fault(name, str(error), "a GPU that answers", "look at nvidia-smi"))
            continue
        free = state.free_bytes / _GIB
        seen = f"{gpu.name}, {free:.1f} of {gpu.memory_bytes / _GIB:.1f} GiB free"
        wanted = f"{budget:g} GiB for gpus.memory_gb_per_gpu" if budget else "some memory free"
        if budget * _GIB > gpu.memory_bytes > 0:
            checks.append(fault(name, seen, wanted, "lower gpus.memory_gb_per_gpu"))
        elif budget > free and state.free_bytes + state.used_bytes > 0:
            checks.append(
                warning(name, seen, wanted, "see what else uses it (nvidia-smi), or lower it")
            )
        else:
            checks.append(ok(name, seen, wanted))
    return checks


def _enough(there: int, asking: Sequence[InferenceConfig]) -> Check:
    needed = max(
        (
            each.onnx.cuda_device_id + (1 if each.gpus.count == "auto" else each.gpus.count)
            for each in asking
        ),
        default=0,
    )
    if there < needed:
        return fault(
            "GPUs", str(there), f"{needed} (onnx.cuda_device_id, gpus.count)",
            "change onnx.cuda_device_id or gpus.count, or look at CUDA_VISIBLE_DEVICES",
        )  # fmt: skip
    return ok("GPUs", str(there), f"{needed} or more")
