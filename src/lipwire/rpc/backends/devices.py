"""Mouths from networks on the devices of this process: each model at home on one of them.

Every device has its own engine, registry of networks and scheduler, behind a ``LocalBackend``:

    mouths ──▶ placement: the model's home ──▶ that device's backend ──▶ mouths
                  ▲                               │ the device has gone
                  └── taken out, with its models ─┘

A device that is lost is not taken back before the server starts anew: a GPU that fell off its bus
needs a reset, and a process whose CUDA context broke cannot have another.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self, TypeVar

import lipwire
from lipwire.avatars.holdings import Loaded
from lipwire.domain import (
    AvatarInvalid,
    Float32Array,
    LipwireError,
    Overloaded,
    Unavailable,
)
from lipwire.engine import DeviceLost, Driver, GpuInfo, GpuState
from lipwire.rpc.backends.local import LocalBackend, Network
from lipwire.rpc.backends.placement import Placement
from lipwire.rpc.backends.protocol import (
    BackendHealth,
    FloatMouths,
    GpuStatus,
    ModelStatus,
    Mouths,
)
from lipwire.rpc.calls import current

_LOG: Final = logging.getLogger(__name__)
_GIVING_UP_S: Final = 5.0
"""How long closing waits for what lost devices held; a driver may never give it back."""
_UNKNOWN: Final = GpuState(0, 0, 0.0)

_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True, eq=False)
class ServerDevice:
    """One device of a server, and who runs networks on it."""

    index: int
    """Its number in answers: CUDA's; 0 where it is the processor."""
    gpu: GpuInfo | None
    """None where it is the processor."""
    backend: LocalBackend
    give_up: Callable[[], None]
    """Lets go of what the device held, after ``backend.abandon``. May take long, in a thread."""


class DevicesBackend:
    """A backend over the devices of this process; a context manager.

    It closes the devices' backends and nothing else. ``check`` is to be called now and then.
    """

    def __init__(
        self,
        devices: Sequence[ServerDevice],
        placement: Placement,
        driver: Driver,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``placement`` is over the devices' indices, and hears from their loads (``placed``)."""
        self._devices = {device.index: device for device in devices}
        self._placement = placement
        self._driver = driver
        self._clock = clock
        self._closed = False
        self._lost: dict[int, str] = {}
        """Why, by index."""
        self._states: dict[int, GpuState] = {}
        self._giving_up: list[threading.Thread] = []
        self._lock = threading.Lock()

    def mouths(
        self,
        model_id: str,
        first: int,
        windows: Float32Array,
        *,
        revision: str = "",
        timeout_s: float | None = None,
    ) -> Mouths:
        """See ``Backend.mouths``."""
        return self._ask(
            model_id,
            timeout_s,
            lambda backend, left_s: backend.mouths(
                model_id, first, windows, revision=revision, timeout_s=left_s
            ),
        )

    def mouths_of(
        self,
        model_id: str,
        visual: Float32Array,
        windows: Float32Array,
        *,
        revision: str = "",
        timeout_s: float | None = None,
    ) -> FloatMouths:
        """See ``Backend.mouths_of``."""
        return self._ask(
            model_id,
            timeout_s,
            lambda backend, left_s: backend.mouths_of(
                model_id, visual, windows, revision=revision, timeout_s=left_s
            ),
        )

    def load(self, model_id: str, *, timeout_s: float | None = None) -> ModelStatus:
        """See ``Backend.load``."""
        return self._ask(
            model_id, timeout_s, lambda backend, left_s: backend.load(model_id, timeout_s=left_s)
        )

    def unload(self, model_id: str, *, timeout_s: float | None = None) -> bool:
        """See ``Backend.unload``. Waits for nothing."""
        self._check_open()
        unloaded = False
        for device in self._left():
            with suppress(DeviceLost):
                unloaded |= device.backend.unload(model_id)
        return unloaded

    def models(self, *, timeout_s: float | None = None) -> tuple[ModelStatus, ...]:
        """See ``Backend.models``."""
        self._check_open()
        found: list[ModelStatus] = []
        for device in self._left():
            with suppress(DeviceLost):
                found += device.backend.models()
        return tuple(sorted(found, key=lambda status: (status.model_id, status.gpu_id)))

    def health(self, *, timeout_s: float | None = None) -> BackendHealth:
        """See ``Backend.health``: healthy while one device is; what is lost is in ``detail``."""
        with self._lock:
            lost, states = dict(self._lost), dict(self._states)
        parts = {index: device.backend.health() for index, device in self._devices.items()}
        well = [part for index, part in parts.items() if index not in lost]
        gpus = tuple(
            GpuStatus(
                index=index,
                name=device.gpu.name,
                loaded_models=0 if index in lost else parts[index].loaded_models,
                memory_bytes=device.gpu.memory_bytes,
                used_bytes=states.get(index, _UNKNOWN).used_bytes,
                utilisation=states.get(index, _UNKNOWN).utilisation,
                lost=lost.get(index, ""),
            )
            for index, device in self._devices.items()
            if device.gpu is not None
        )
        trouble = [f"GPU {index} is out: {reason}" for index, reason in sorted(lost.items())]
        return BackendHealth(
            healthy=not self._closed and bool(well),
            gpu_count=sum(not gpu.lost for gpu in gpus),
            loaded_models=sum(part.loaded_models for part in well),
            max_models=sum(part.max_models for part in well),
            version=lipwire.__version__,
            detail="the server is stopping" if self._closed else "; ".join(trouble),
            gpus=gpus,
        )

    def check(self) -> None:
        """Ask the driver how the GPUs do; those that it says are gone are taken out."""
        for device in self._left():
            if device.gpu is not None:
                self._is_there(device)

    def close(self) -> None:
        """See ``Backend.close``. Calls under way finish."""
        self._closed = True
        for device in self._devices.values():
            device.backend.close()
        until_s = time.monotonic() + _GIVING_UP_S
        for thread in self._giving_up:
            thread.join(max(0.0, until_s - time.monotonic()))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _ask(
        self,
        model_id: str,
        timeout_s: float | None,
        ask: Callable[[LocalBackend, float | None], _Answer],
    ) -> _Answer:
        """The answer of the device where the model is at home, or of another if that goes."""
        self._check_open()
        call = current()
        left_s = call.remaining_s() if timeout_s is None and call is not None else timeout_s
        deadline = None if left_s is None else self._clock() + left_s
        full: set[int] = set()
        while True:
            home = self._placement.claim(model_id, avoiding=full | self._lost.keys())
            device = self._devices[home.device]
            try:
                left_s = None if deadline is None else max(0.0, deadline - self._clock())
                return ask(device.backend, left_s)
            except Overloaded:
                # Not even loaded: everything there is in use, but perhaps not everything elsewhere.
                full.add(device.index)
                if home.held_bytes is not None or full.issuperset(self._placement.devices):
                    raise
            except LipwireError as error:
                if not self._has_gone(device, error):
                    raise
            finally:
                self._placement.release(home)

    def _has_gone(self, device: ServerDevice, error: LipwireError) -> bool:
        """Whether ``error`` came of the device's going, which is then taken out."""
        if isinstance(error, DeviceLost):
            self._lose(device, str(error))
        elif isinstance(error, AvatarInvalid) and device.gpu is not None:
            # A network that fails may be broken, or what it ran on.
            self._is_there(device)
        with self._lock:
            gone = device.index in self._lost
        return gone and isinstance(error, Unavailable | AvatarInvalid)

    def _is_there(self, device: ServerDevice) -> None:
        """Ask the driver; where it says that the GPU is gone, take it out."""
        try:
            state = self._driver.state(device.index)
        except DeviceLost as error:
            self._lose(device, str(error))
        except LipwireError as error:
            _LOG.debug("%s", error)  # who does not answer says nothing about the GPU
        else:
            with self._lock:
                self._states[device.index] = state

    def _lose(self, device: ServerDevice, reason: str) -> None:
        with self._lock:
            if device.index in self._lost:
                return
            self._lost[device.index] = reason
            self._states.pop(device.index, None)
            left = len(self._devices) - len(self._lost)
            thread = threading.Thread(
                target=device.give_up, name=f"lipwire-giving-up-gpu-{device.index}", daemon=True
            )
            self._giving_up.append(thread)
        _LOG.error("GPU %d is out, %d left: %s", device.index, left, reason)
        self._placement.lose(device.index)
        device.backend.abandon(reason)
        thread.start()

    def _left(self) -> list[ServerDevice]:
        with self._lock:
            return [device for index, device in self._devices.items() if index not in self._lost]

    def _check_open(self) -> None:
        if self._closed:
            raise Unavailable("the server is stopping")


def placed(
    load: Callable[[str], Loaded[Network]], placement: Placement, device: int
) -> Callable[[str], Loaded[Network]]:
    """``load`` for the registry of ``device``, which tells ``placement`` what is there."""

    def load_and_tell(model_id: str) -> Loaded[Network]:
        home = placement.opened(model_id, device)
        try:
            loaded = load(model_id)
        except BaseException:
            placement.closed(home)
            raise
        placement.measured(home, loaded.value.device_bytes)

        def close() -> None:
            try:
                loaded.close()
            finally:
                placement.closed(home)

        return Loaded(loaded.value, loaded.bytes, close)

    return load_and_tell
