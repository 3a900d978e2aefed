"""The devices of this process: which one each network is on, and what follows when one is lost.

A device that is lost is not taken back before the server starts anew: a GPU that fell off its bus
needs a reset, and a process whose CUDA context broke cannot have another.
"""

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final
from weakref import WeakValueDictionary

from lipwire.avatars import Avatar
from lipwire.domain import AvatarInvalid, LipwireError, Unavailable
from lipwire.domain.closing import Closing
from lipwire.engine import DeviceLost, Driver, GpuState, HotStats
from lipwire.serving.backend import GpuStatus
from lipwire.serving.networkfacts import CompiledNetwork, Running
from lipwire.serving.networks import DeviceNetwork, NetworkKey, Placed, ServerDevice
from lipwire.serving.placement import Home, Placement

_LOG: Final = logging.getLogger(__name__)
_GIVING_UP_S: Final = 5.0
"""How long closing waits for what lost devices held; a driver may never give it back."""
_UNKNOWN: Final = GpuState(0, 0, 0.0)


class Devices(Closing):
    """The devices that a server's networks run on, and which network is on which. Thread-safe; a
    context manager.

    It closes none of the devices: whoever opened them does. ``check`` is to be called now and then.
    """

    def __init__(
        self, devices: Sequence[ServerDevice], placement: Placement, driver: Driver
    ) -> None:
        """``devices`` have different numbers (``ServerDevice.index``). ``placement`` says, by that
        number, which device a network is loaded on. ``driver`` is asked about the state of GPUs."""
        self._devices = {device.index: device for device in devices}
        self._placement = placement
        self._driver = driver
        self._states: dict[int, GpuState] = {}
        self._giving_up: list[threading.Thread] = []
        self._networks: WeakValueDictionary[str, DeviceNetwork] = WeakValueDictionary()
        """The newest of each avatar."""
        self._lock = threading.Lock()

    @property
    def left(self) -> tuple[ServerDevice, ...]:
        """The devices that are not lost."""
        return tuple(device for device in self._devices.values() if not device.lost)

    def expect_live(self, index: int, for_s: float) -> None:
        """Have device number ``index`` limit its runs of networks to about 40 ms each for ``for_s``
        seconds from now, except runs for live sessions, because frames of these may be asked for at
        any moment. A shorter time than is left from an earlier call changes nothing. Does nothing
        where that device is lost or not known."""
        for device in self.left:
            if device.index == index:
                device.expect_live(for_s)

    @property
    def max_models(self) -> int:
        """How many networks may be loaded on the devices that are not lost, all together."""
        return self._placement.most * len(self.left)

    def network(
        self, model_id: str, compiled: CompiledNetwork, frames: Avatar | None
    ) -> DeviceNetwork:
        """Load the network of avatar ``model_id`` onto the device that is chosen for it, and return
        it.

        ``compiled`` names the folders of the compiled network. ``frames`` are the avatar's; None
        where this process has none, and callers send crops. The caller closes what is returned.
        Raises NotFound or AvatarInvalid where the files are missing or damaged, Overloaded where a
        GPU is full, and Unavailable where no device is left.
        """

        def move(placed: Placed, error: LipwireError) -> Placed:
            if not self._has_gone(placed.device, error):
                raise error
            return self._place(model_id, compiled, frames)

        network = DeviceNetwork(self._place(model_id, compiled, frames), frames, move)
        with self._lock:
            self._networks[model_id] = network
        return network

    def network_of(self, model_id: str) -> DeviceNetwork | None:
        """Return the network of avatar ``model_id`` that was loaded last; None where none was
        loaded, or nothing refers to that network any more."""
        with self._lock:
            return self._networks.get(model_id)

    def loaded(self) -> dict[str, Mapping[Running, int]]:
        """Return how many networks are loaded on each device: by the device's name, "cpu", "gpu0"
        and so on, the number of networks by how they are run (``Running``)."""
        return {
            "cpu" if device.gpu is None else f"gpu{device.index}": device.loaded
            for device in self._devices.values()
        }

    def hot(self) -> HotStats:
        """Return statistics of the networks that are used much and therefore run specialised (by
        OpenVINO): their number, their memory, and counts since the start. These are the sums of
        ``ServerDevice.hot`` over all devices; all are 0 where networks run on GPUs."""
        each = [device.hot for device in self._devices.values()]
        return HotStats(
            sum(stats.networks for stats in each),
            sum(stats.memory_bytes for stats in each),
            sum(stats.specialised for stats in each),
            sum(stats.evicted for stats in each),
        )

    @property
    def on_gpu(self) -> bool:
        """Whether networks run on GPUs here, so that avatars have to be compiled for GPUs, too."""
        return any(device.on_gpu for device in self._devices.values())

    def home_of(self, model_id: str) -> Home | None:
        """Return which device the network of avatar ``model_id`` is on, and how many bytes it takes
        there; None where it is on no device."""
        return self._placement.home_of(model_id)

    def gpus(self) -> tuple[GpuStatus, ...]:
        """Return the state of each GPU, also of those that are lost. The used memory, in bytes, and
        the utilisation, 0 to 1, are what the driver answered when ``check`` was called last; both
        are 0 before the first call, and for a GPU that is lost. An empty tuple where networks run
        on a processor."""
        with self._lock:
            states = dict(self._states)
        return tuple(
            GpuStatus(
                index=index,
                name=device.gpu.name,
                loaded_models=len(self._placement.models_on(index)),
                memory_bytes=device.gpu.memory_bytes,
                used_bytes=states.get(index, _UNKNOWN).used_bytes,
                utilisation=states.get(index, _UNKNOWN).utilisation,
                lost=device.lost,
            )
            for index, device in self._devices.items()
            if device.gpu is not None
        )

    @property
    def trouble(self) -> str:
        """Which devices are lost, and why, in one line; empty where none is."""
        return "; ".join(
            f"GPU {index} is out: {device.lost}"
            for index, device in sorted(self._devices.items())
            if device.lost
        )

    def check(self) -> None:
        """Ask the driver about each GPU, and mark as lost those that it says are gone: networks
        move to the devices that are left when they are used next. The owner is to call this every
        few seconds. A driver that does not answer raises nothing and changes nothing."""
        for device in self.left:
            if device.gpu is not None:
                self._is_there(device)

    def close(self) -> None:
        """Wait until the networks that were on lost devices are freed, 5 s at most, because a
        driver may hang. Devices that are not lost stay open."""
        until_s = time.monotonic() + _GIVING_UP_S
        for thread in self._giving_up:
            thread.join(max(0.0, until_s - time.monotonic()))

    def _place(self, model_id: str, compiled: CompiledNetwork, frames: Avatar | None) -> Placed:
        """The network on the device that is its home, or on another if that goes."""
        while True:
            home = self._placement.opened(model_id)
            device = self._devices[home.device]
            closed = partial(self._placement.closed, home)
            try:
                model = device.load(compiled, frames, closed)
            except LipwireError as error:
                closed()
                if not self._has_gone(device, error):
                    raise
            except BaseException:
                closed()
                raise
            else:
                self._placement.measured(home, device.held_bytes(model))
                return Placed(device, model, NetworkKey(model), compiled.revision)

    def _has_gone(self, device: ServerDevice, error: LipwireError) -> bool:
        """Whether ``error`` came of the device's going, which is then taken out."""
        if isinstance(error, DeviceLost):
            self._lose(device, str(error))
        elif isinstance(error, AvatarInvalid) and device.gpu is not None:
            # A network that fails may be broken, or what it ran on.
            self._is_there(device)
        return bool(device.lost) and isinstance(error, Unavailable | AvatarInvalid)

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
            if device.lost:
                return
            self._placement.lose(device.index)
            device.abandon(reason)
            self._states.pop(device.index, None)
            thread = threading.Thread(
                target=device.give_up, name=f"lipwire-giving-up-gpu-{device.index}", daemon=True
            )
            self._giving_up.append(thread)
        _LOG.error("GPU %d is out, %d left: %s", device.index, len(self.left), reason)
        thread.start()
