"""The smallest backend: networks in this process, each call run in its own thread."""

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

import numpy as np

import lipwire
from lipwire.avatars import Avatar
from lipwire.avatars.registry import Registry
from lipwire.domain import DeadlineExceeded, Float32Array
from lipwire.engine import Engine, Model
from lipwire.rpc.backends import BackendHealth, FloatMouths, ModelStatus, Mouths

WhenGone = Callable[[Callable[[], None]], object]


class DirectBackend:
    def __init__(
        self,
        engine: Engine,
        networks: Registry[tuple[Avatar, Model]],
        workers: int,
        max_models: int,
    ) -> None:
        self._engine = engine
        self._networks = networks
        self._free = threading.Semaphore(workers)
        self._max_models = max_models

    def mouths(
        self,
        model_id: str,
        first: int,
        windows: Float32Array,
        *,
        timeout_s: float | None = None,
        when_gone: WhenGone | None = None,
    ) -> Mouths:
        with self._networks.use(model_id, timeout_s=timeout_s) as (avatar, model):
            crops = np.stack([avatar.crop(first + i) for i in range(len(windows))])
            if not self._free.acquire(timeout=timeout_s):
                raise DeadlineExceeded("no worker came free in time")
            try:
                start_s = time.perf_counter()
                pixels = self._engine.infer(model, crops, windows)
                return Mouths(pixels, 0, (time.perf_counter() - start_s) * 1000)
            finally:
                self._free.release()

    def mouths_of(
        self,
        model_id: str,
        visual: Float32Array,
        windows: Float32Array,
        *,
        timeout_s: float | None = None,
        when_gone: WhenGone | None = None,
    ) -> FloatMouths:
        with self._networks.use(model_id, timeout_s=timeout_s) as (_, model):
            if not self._free.acquire(timeout=timeout_s):
                raise DeadlineExceeded("no worker came free in time")
            try:
                start_s = time.perf_counter()
                values = self._engine.infer_float(model, visual, windows)
                return FloatMouths(values, 0, (time.perf_counter() - start_s) * 1000)
            finally:
                self._free.release()

    def load(self, model_id: str, *, timeout_s: float | None = None) -> ModelStatus:
        self._networks.load(model_id, timeout_s=timeout_s)
        return next(status for status in self.models() if status.model_id == model_id)

    def unload(self, model_id: str, *, timeout_s: float | None = None) -> bool:
        return self._networks.unload(model_id)

    def models(self, *, timeout_s: float | None = None) -> tuple[ModelStatus, ...]:
        now = time.monotonic()
        return tuple(
            ModelStatus(i.name, 0, i.bytes, i.uses, now - i.last_used_s, i.pins)
            for i in sorted(self._networks.stats().items, key=lambda item: item.name)
        )

    def health(self, *, timeout_s: float | None = None) -> BackendHealth:
        loaded = len(self._networks.stats().items)
        return BackendHealth(True, 0, loaded, self._max_models, lipwire.__version__)

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
