"""A backend whose mouths can be predicted."""

import threading
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import numpy as np
from tests.support.waiting import WAIT_S

from lipwire.domain import (
    ANY_REVISION,
    Call,
    Float32Array,
    LipwireError,
    NotFound,
    Revision,
    Service,
    UInt8Array,
    ping_pong,
)
from lipwire.serving import (
    BackendHealth,
    DrawnFloatMouths,
    DrawnMouths,
    GpuStatus,
    MakeCrops,
    ModelStatus,
)

FRAMES = 8
NAMES = ("anna", "bert")


def expected_mouth(frame: int, window: Float32Array) -> UInt8Array:
    """What ``PlainBackend`` draws for ``frame``: shades that depend on the frame and the speech."""
    speech = abs(float(window.mean(dtype=np.float64)))
    shade = int(40 * ping_pong(frame, FRAMES) + 1000 * speech) % 256
    rows = np.arange(320, dtype=np.uint16)[:, None, None]
    return np.broadcast_to((rows + shade).astype(np.uint8), (320, 320, 3)).copy()


@dataclass
class PlainBackend:
    """Stands in for networks where only the wire is looked at."""

    error: LipwireError | Exception | None = None
    fail_times: int = 10**9
    wait: threading.Event | None = None
    entered: threading.Event = field(default_factory=threading.Event)
    left: threading.Event = field(default_factory=threading.Event)
    timeouts: list[float | None] = field(default_factory=list)
    revisions: list[Revision] = field(default_factory=list)
    asked_by: list[tuple[Service, str]] = field(default_factory=list)
    """Class and tenant of each call."""
    leases: dict[str, str] = field(default_factory=dict)
    """Avatar by holder."""
    loaded: set[str] = field(default_factory=set)
    is_healthy: bool = True
    gpu_id: int = 3

    def mouths(
        self,
        model_id: str,
        first: int,
        windows: Float32Array,
        *,
        revision: Revision = ANY_REVISION,
        crops: MakeCrops | None = None,
        call: Call | None = None,
    ) -> DrawnMouths:
        self.revisions.append(revision)
        self._work(model_id, call)
        pixels = np.stack([expected_mouth(first + i, w) for i, w in enumerate(windows)])
        return DrawnMouths(pixels, self.gpu_id, 1.5)

    def mouths_of(
        self,
        model_id: str,
        visual: Float32Array,
        windows: Float32Array,
        *,
        revision: Revision = ANY_REVISION,
        call: Call | None = None,
    ) -> DrawnFloatMouths:
        self.revisions.append(revision)
        self._work(model_id, call)
        assert visual.dtype == np.float32
        assert windows.shape == (len(visual), 32, 16, 16)
        return DrawnFloatMouths(visual[:, :3] * np.float32(0.5), self.gpu_id, 2.5)

    def _work(self, model_id: str, call: Call | None) -> None:
        self.timeouts.append(None if call is None else call.remaining_s())
        if call is not None:
            self.asked_by.append((call.service, call.tenant))
        self.loaded.add(model_id)
        self.entered.set()
        if self.error is not None and self.fail_times > 0:
            self.fail_times -= 1
            raise self.error
        if self.wait is not None:
            assert call is not None
            call.on_end(self.wait.set)
            assert self.wait.wait(WAIT_S)
            self.left.set()

    def load(self, model_id: str, *, call: Call | None = None) -> ModelStatus:
        if model_id not in NAMES:
            raise NotFound(f"there is no model {model_id!r}")
        self.loaded.add(model_id)
        return ModelStatus(model_id, 0, 1000, 0, 0.0)

    def unload(self, model_id: str, *, call: Call | None = None) -> bool:
        there = model_id in self.loaded
        self.loaded.discard(model_id)
        return there

    def models(self, model_id: str = "", *, call: Call | None = None) -> tuple[ModelStatus, ...]:
        names = [name for name in sorted(self.loaded) if model_id in ("", name)]
        return tuple(ModelStatus(name, 0, 1000, 1, 0.5, 0) for name in names)

    def acquire(self, holder: str, model_id: str, call: Call) -> None:
        self._work(model_id, call)
        self.leases[holder] = model_id

    def release(self, holder: str) -> None:
        self.leases.pop(holder, None)

    def health(self, *, call: Call | None = None) -> BackendHealth:
        gpu = GpuStatus(
            3, "NVIDIA H200", 7, 150_000_000_000, 9_000_000_000, 0.25, "fell off", "gpu1:50051"
        )
        loaded = len(self.loaded)
        return BackendHealth(self.is_healthy, 1, loaded, 1000, "1.2.3", "as told", (gpu,))

    def close(self) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
