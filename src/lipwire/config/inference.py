"""The inference server's configuration: the guide's file, and what Lipwire adds to it."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from lipwire.config.metrics import InferenceMetricsSettings
from lipwire.config.section import Section
from lipwire.config.settings import CapacitySettings, ServerConfig, ServerSettings
from lipwire.config.values import MemoryMb, ModelCount, Port


class InferenceServerSettings(ServerSettings):
    """The section ``server`` of an inference server's file: where it listens, and how much it does
    at a time.

    ``worker_count_per_gpu`` is how many runs of networks there are at a time on each GPU, at most;
    without a GPU not more than there are cores. ``queue_size`` requests may wait for a worker, on
    each GPU. The other keys are those of ``ServerSettings``.
    """

    port: Port = 50051
    """The port to listen on; 0 is any free one. A host before the colon sets `host`."""
    worker_count_per_gpu: Annotated[int, Field(ge=1, le=256)] = 8
    """Runs of networks at a time on each GPU, at most; more than 2 gain nothing there, as the
    frames of many requests are run in one batch. Without a GPU, at most as many as there are
    cores."""
    queue_size: Annotated[int, Field(ge=1, le=100_000)] = 50
    """Requests that may wait for a worker, on each GPU; one more is refused with RESOURCE_EXHAUSTED
    and may be sent again."""


class GpuSettings(Section):
    """The section ``gpus`` of an inference server's file: which GPUs networks run on, and how much
    of their memory they take.

    ``enabled`` says whether GPUs are used where there are any, ``count`` how many ("auto": all).
    ``memory_gb_per_gpu`` is the most GiB of each for weights and crops (None: three quarters of
    what is free), ``crops_gb_per_gpu`` the most of it for crops (None: what weights leave).
    ``kernels`` lets Lipwire's own kernels run networks that they can run. ``assignment_strategy``
    says which GPU an avatar goes to: each in turn, or the one that holds least memory.
    """

    enabled: bool = True
    """Use GPUs where there are any; `false` runs everything on the processor."""
    count: Annotated[int, Field(ge=0, le=64)] | Literal["auto"] = "auto"
    """How many GPUs to use, beginning with `onnx.cuda_device_id`; `auto` is all from there on, 0 is
    none: networks run on the processor. More than there are is said when the server starts, and an
    error with `onnx.use_cuda: strict`."""
    memory_gb_per_gpu: Annotated[float, Field(gt=0, le=4096)] | None = None
    """The most memory of each GPU for networks' weights and avatars' crops, in GiB, of all
    processes of the server together; what runs them comes on top. Without it, three quarters of
    what is free."""
    crops_gb_per_gpu: Annotated[float, Field(ge=0, le=4096)] | None = None
    """The most of it for crops: what networks see of their avatars' frames, kept so that it need
    not be brought with every request. 0 keeps none; without it, whatever weights leave."""
    kernels: bool = True
    """Run the guide's network in kernels of Lipwire's own, where a trial when it is first loaded
    shows that they make its mouths; other networks run in ONNX Runtime, and with `false` all."""
    assignment_strategy: Literal["round-robin", "least-loaded"] = "round-robin"
    """Which GPU an avatar goes to when it is loaded, where it stays: each in turn (`round-robin`),
    or the one that holds least memory (`least-loaded`). Full ones are passed over while others are
    not."""


class OnnxSettings(Section):
    """The section ``onnx`` of an inference server's file: how ONNX Runtime, the library that runs
    networks, is used.

    ``library_path`` is accepted and not used. ``use_cuda`` says whether networks run on CUDA: True
    falls back to the processor, "strict" does not start without it. ``cuda_device_id`` is the
    number of the first GPU to use, as ``nvidia-smi`` counts. ``precision`` says whether networks
    may run in bfloat16 on the processor.
    """

    library_path: Annotated[str, Field(max_length=4096)] | None = None
    """Accepted so that existing files load, and not used: the Python package brings its own
    library."""
    use_cuda: bool | Literal["strict"] = True
    """Run on CUDA: `true` falls back to the processor and says so, `strict` does not start without
    it, `false` does not look for it."""
    cuda_device_id: Annotated[int, Field(ge=0, le=63)] = 0
    """The first GPU to use, as `nvidia-smi` numbers them; where CUDA_VISIBLE_DEVICES is set, its
    place in there. One that is not there is an error."""
    precision: Literal["auto", "float32"] = "auto"
    """What networks are computed in on the processor: with `auto`, those of much-used avatars in
    bfloat16, where the processor has units for it (Intel AMX, AVX512-BF16), it is faster, and a
    trial shows the same mouths to the eye; with `float32` none."""


class InferenceCapacitySettings(CapacitySettings):
    """The section ``capacity`` of an inference server's file: how many networks may be loaded at a
    time, ``max_models_per_gpu`` on each GPU (without a GPU: in all), and ``max_models`` on all GPUs
    together, in equal shares (None: not limited). ``hot_memory_mb`` is the most additional memory,
    in MiB, for networks that run in bfloat16. The other keys are those of ``CapacitySettings``."""

    max_models_per_gpu: ModelCount = 1000
    """Networks loaded at a time on each GPU, or without a GPU in all."""
    max_models: ModelCount | None = None
    """Networks loaded at a time on all GPUs together, in equal shares; without it,
    `max_models_per_gpu` alone counts."""
    hot_memory_mb: MemoryMb = 1024
    """The most memory, in MiB, that networks in bfloat16 (`onnx.precision`) take besides, as
    measured: about 30 for one like the demo avatar's, 200 for one of the guide's width."""

    def max_models_on_each(self, devices: int) -> int:
        """Return how many networks at most may be loaded at a time on each of ``devices`` devices
        (1 or more): ``max_models_per_gpu``, or the device's share of ``max_models``, one at least,
        where that is set and lower."""
        if self.max_models is None:
            return self.max_models_per_gpu
        return min(self.max_models_per_gpu, max(1, self.max_models // devices))


class InferenceConfig(ServerConfig):
    """The whole configuration of an inference server. Each field is a section of the file, a
    mapping."""

    server: InferenceServerSettings = InferenceServerSettings()
    """Where the server listens, and how much it does at a time."""
    gpus: GpuSettings = GpuSettings()
    """The GPUs that networks run on."""
    onnx: OnnxSettings = OnnxSettings()
    """The inference library."""
    capacity: InferenceCapacitySettings = InferenceCapacitySettings()
    """How many networks are kept in memory."""
    metrics: InferenceMetricsSettings = InferenceMetricsSettings()
    """Numbers for Prometheus."""

    @model_validator(mode="after")
    def _closed_by_default(self) -> Self:
        self.check_exposure(self.server, "server.host", self.server.host)
        if self.metrics.enabled:
            self.check_exposure(self.server, "metrics.host", self.metrics.host)
        return self

    @property
    def _no_gpus(self) -> str | None:
        """The setting that asks for no GPUs, if there is one."""
        if not self.gpus.enabled:
            return "gpus.enabled is false"
        return "gpus.count is 0" if self.gpus.count == 0 else None

    @property
    def wants_cuda(self) -> bool:
        """Whether networks are to run on CUDA where it is there: GPUs are not turned off
        (``gpus.enabled``, ``gpus.count``), and ``onnx.use_cuda`` is not false."""
        return not self._no_gpus and self.onnx.use_cuda is not False

    @property
    def requires_cuda(self) -> bool:
        """Whether the server may not start without CUDA: GPUs are not turned off, and
        ``onnx.use_cuda`` is "strict"."""
        return not self._no_gpus and self.onnx.use_cuda == "strict"

    def notes(self) -> list[str]:
        """Return warnings about the configuration, one line each, for the log when the server
        starts.

        They are those of every server (keys without effect, paths of another system), and that
        ``onnx.library_path`` or ``onnx.use_cuda`` has no effect.
        """
        notes = super().notes()
        if self.onnx.library_path is not None:
            notes.insert(
                0, "onnx.library_path is not used: the Python package brings its own ONNX Runtime"
            )
        if self._no_gpus and self.onnx.use_cuda is not False:
            notes.append(f"onnx.use_cuda has no effect while {self._no_gpus}")
        return notes
