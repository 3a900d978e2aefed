"""The backend that runs networks on the devices of this process."""

import logging
import time
from collections.abc import Callable
from typing import TypeVar

import lipwire
from lipwire.domain import (
    ANY_REVISION,
    AudioWindows,
    AvatarChanged,
    Call,
    CompiledFormGone,
    CropsNeeded,
    InvalidInput,
    Revision,
    Unavailable,
    Visual,
)
from lipwire.domain.closing import Closing
from lipwire.registry import ItemStats, Registry, Use
from lipwire.serving.backend import (
    BackendHealth,
    DrawnFloatMouths,
    DrawnMouths,
    MakeCrops,
    ModelStatus,
)
from lipwire.serving.devices import Devices
from lipwire.serving.leases import SHARE, FrameCost, SpeedLeases
from lipwire.serving.loadedavatars import LoadedAvatar
from lipwire.serving.networkfacts import Speed

_log = logging.getLogger(__name__)

_Drawn = TypeVar("_Drawn", DrawnMouths, DrawnFloatMouths)


class LocalBackend(Closing):
    """A ``Backend``, which makes mouths, with networks on the devices of this process; a context
    manager.

        with (
            Registry(lambda name: load_network(name, catalog.files(name), devices)) as avatars,
            LocalBackend(avatars, devices) as backend,
        ):
            mouths = backend.mouths("anna", 0, windows)

    It closes neither the registry nor the devices. Methods may be called from any thread.
    """

    def __init__(
        self,
        avatars: Registry[LoadedAvatar],
        devices: Devices,
        *,
        live_share: float = SHARE,
        besides: FrameCost | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``avatars`` have their networks on ``devices``, of whose time live sessions get
        ``live_share`` at most, as ``SpeedLeases`` says. ``besides`` says what this process takes
        for a live frame besides its mouth; None where it composes none. ``clock`` gives seconds; it
        has to be the clock of the registry."""
        self._avatars = avatars
        self._devices = devices
        self._besides = besides or FrameCost()
        self._clock = clock
        self._leases = SpeedLeases(
            self._speed,
            self._measure,
            lambda: [device.index for device in devices.left],
            devices.expect_live,
            share=live_share,
            clock=clock,
        )
        self._closed = False

    def mouths(
        self,
        model_id: str,
        first: int,
        windows: AudioWindows,
        *,
        revision: Revision = ANY_REVISION,
        crops: MakeCrops | None = None,
        call: Call | None = None,
    ) -> DrawnMouths:
        """Return mouths for frames ``first``, ``first + 1`` and so on of avatar ``model_id``, one
        for each of ``windows``, (N, 32, 16, 16) float32.

        ``revision`` is that of the avatar whose frames the mouths will be pasted into. Where these
        very frames are here they are shown to the network, elsewhere what ``crops()`` returns, (N,
        320, 320, 3) uint8. ``call`` is the request that this is for: its deadline and class count.

        Raises AvatarChanged where the newest network is of another revision, CropsNeeded where the
        backend is without these frames and ``crops`` is None, NotFound where there is no such
        avatar, InvalidInput where ``first`` is below 0 or an array has another shape, AvatarInvalid
        where the network cannot be loaded or fails, and Overloaded, Unavailable, DeadlineExceeded
        and Cancelled as all backends do (``Backend``).
        """
        if first < 0:
            raise InvalidInput(f"first frame is {first}, allowed are 0 and above")

        def run(avatar: LoadedAvatar) -> DrawnMouths:
            own = avatar.frames is not None and avatar.revision.same_frames(revision)
            if not own and crops is None:
                raise _crops_needed(avatar)
            given = None if own else crops
            return avatar.network.mouths(first, windows, crops=given, call=call)

        return self._run(model_id, revision, call, run)

    def mouths_of(
        self,
        model_id: str,
        visual: Visual,
        windows: AudioWindows,
        *,
        revision: Revision = ANY_REVISION,
        call: Call | None = None,
    ) -> DrawnFloatMouths:
        """Run the network of avatar ``model_id`` on its own input, and return its own output: the
        mouths as floats, with how long that took (``DrawnFloatMouths``).

        ``visual`` is (N, 6, 320, 320) float32, by custom in [0, 1]: the crop (channels 0 to 2) and
        the crop with the mouth blacked out (3 to 5), in the colour order of the avatar's package
        ("bgr" or "rgb"). ``windows``, of the same N frames, are (N, 32, 16, 16) float32.
        ``revision`` says which files of the avatar the caller knows. Its hash of the network
        (``Revision.model``) has to be that of the newest network, or empty; its hash of the frames
        does not matter here. ``call`` is the request that this is for; None for one without a
        deadline.

        Raises AvatarChanged where the newest network is of another revision, NotFound where there
        is no such avatar, InvalidInput for arrays of another shape, AvatarInvalid where the network
        cannot be loaded or fails, and Overloaded, Unavailable, DeadlineExceeded and Cancelled as
        all backends do (``Backend``).
        """
        return self._run(
            model_id,
            revision,
            call,
            lambda avatar: avatar.network.mouths_of(visual, windows, call=call),
        )

    def load(self, model_id: str, *, call: Call | None = None) -> ModelStatus:
        """Load the network of avatar ``model_id`` before mouths of it are asked for, and return its
        numbers; all are 0 where it was unloaded again at once to make room for others. Raises
        NotFound where there is no such avatar, AvatarInvalid where its network cannot be loaded,
        and Overloaded, Unavailable and DeadlineExceeded as all backends do (``Backend``)."""
        self._check_open()
        left_s = None if call is None else call.remaining_s()
        self._avatars.load(model_id, timeout_s=left_s)
        if (network := self._devices.network_of(model_id)) is not None:
            network.expect_use()
        # Evicted again already, it is none.
        return next(iter(self.models(model_id)), ModelStatus(model_id, 0, 0, 0, 0.0))

    def unload(self, model_id: str, *, call: Call | None = None) -> bool:
        """Unload the network of avatar ``model_id``, without waiting for calls under way, which
        finish. Returns True, or False where it was not loaded. ``call`` makes no difference. Raises
        Unavailable once the backend is closed."""
        self._check_open()
        return self._avatars.unload(model_id)

    def models(self, model_id: str = "", *, call: Call | None = None) -> tuple[ModelStatus, ...]:
        """Return numbers about each loaded network, in the order of their avatars' names. Where
        ``model_id`` names an avatar, return those about its network alone; an empty tuple where
        that is not loaded. A network whose device was lost is not among them until it is used
        again. ``call`` makes no difference. Raises Unavailable once the backend is closed."""
        self._check_open()
        items = self._avatars.stats().items
        rows = (self._status(item) for item in items if not model_id or item.name == model_id)
        return tuple(sorted((row for row in rows if row), key=lambda row: row.model_id))

    def acquire(self, holder: str, model_id: str, call: Call) -> None:
        """Reserve, or renew, for 4 seconds (LEASE_S) what a live session of avatar ``model_id``
        takes of the device that its network is on. A network that has made no frames for live
        sessions within the last 60 s is loaded and measured first.

        ``holder`` is the session's name, 1 to 200 characters, different for each session; ``call``
        is the request that this is for. Raises Overloaded, with how many sessions run and how many
        fit, where there is no room for it, InvalidInput for a ``holder`` of another length,
        NotFound where there is no such avatar, AvatarInvalid where its network cannot be loaded or
        fails, Unavailable once the backend is closed, DeadlineExceeded and Cancelled where ``call``
        ends before.
        """
        self._check_open()
        self._leases.acquire(holder, model_id, call.classed("live", call.tenant))
        if (network := self._devices.network_of(model_id)) is not None:
            network.expect_use()

    def release(self, holder: str) -> None:
        """Give back what ``acquire`` reserved for the session ``holder``. Does nothing where
        nothing is reserved for it."""
        self._leases.release(holder)

    def _speed(self, model_id: str) -> Speed | None:
        network = self._devices.network_of(model_id)
        speed = None if network is None else network.speed()
        return None if speed is None else self._with_composing(speed)

    def _measure(self, model_id: str, call: Call) -> Speed:
        with self._use(model_id, ANY_REVISION, call):
            network = self._devices.network_of(model_id)
            if network is None:
                raise Unavailable(f"the network of avatar {model_id} was unloaded")
            return self._with_composing(network.measure(call))

    def _with_composing(self, speed: Speed) -> Speed:
        """On a processor, frames are composed by the cores that networks run on."""
        if self._devices.on_gpu:
            return speed
        return speed._replace(frame_s=speed.frame_s + self._besides.frame_s)

    def health(self, *, call: Call | None = None) -> BackendHealth:
        """Return whether mouths can be made here, and how much is loaded: healthy while the backend
        is open and one device is left. Raises nothing.

        ``detail`` names the devices that are lost. A full queue is no reason to be unhealthy.
        ``call`` makes no difference.
        """
        gpus = self._devices.gpus()
        leases = self._leases.stats()
        items = self._avatars.stats().items
        return BackendHealth(
            healthy=not self._closed and bool(self._devices.left),
            gpu_count=sum(not gpu.lost for gpu in gpus),
            loaded_models=sum(self._devices.home_of(item.name) is not None for item in items),
            max_models=self._devices.max_models,
            version=lipwire.__version__,
            detail="the server is stopping" if self._closed else self._devices.trouble,
            gpus=gpus,
            live_sessions=leases.held,
            live_capacity=leases.fit or 0,
        )

    def close(self) -> None:
        """Close the backend: all later calls but ``health``, ``release`` and ``close`` raise
        Unavailable, and calls under way finish. Closing twice is allowed."""
        self._closed = True

    def _run(
        self,
        model_id: str,
        revision: Revision,
        call: Call | None,
        run: Callable[[LoadedAvatar], _Drawn],
    ) -> _Drawn:
        """What ``run`` returns for the avatar. Where its compiled form was removed since it was
        loaded, it is loaded again, once."""

        def once() -> _Drawn:
            with self._use(model_id, revision, call) as avatar:
                _check_network(model_id, avatar, revision)
                return run(avatar)

        try:
            return once()
        except CompiledFormGone as error:
            _log.warning("avatar %s is loaded again: %s", model_id, error)
            self._avatars.unload(model_id)
            return once()

    def _use(self, model_id: str, revision: Revision, call: Call | None) -> Use[LoadedAvatar]:
        self._check_open()

        def suits(held: LoadedAvatar) -> bool:
            return held.revision.same_model(revision) and held.revision.same_frames(revision)

        return self._avatars.use(
            model_id,
            timeout_s=None if call is None else call.remaining_s(),
            # Who does not know the network's revision gets the newest, as the registry has it.
            suits=suits if revision.model else None,
        )

    def _status(self, item: ItemStats) -> ModelStatus | None:
        home = self._devices.home_of(item.name)
        if home is None:
            return None
        network = self._devices.network_of(item.name)
        running = None if network is None else network.running
        return ModelStatus(
            model_id=item.name,
            gpu_id=home.device,
            memory_bytes=item.bytes,
            use_count=item.uses,
            idle_s=0.0 if item.pins else max(0.0, self._clock() - item.last_used_s),
            in_use=item.pins,
            device_bytes=home.held_bytes or 0,
            runner="" if running is None else running.runner,
            precision="" if running is None else running.precision,
            revision="" if network is None else network.revision,
        )

    def _check_open(self) -> None:
        if self._closed:
            raise Unavailable("the server is stopping")


def _check_network(model_id: str, avatar: LoadedAvatar, revision: Revision) -> None:
    """Raises AvatarChanged where the network is not of ``revision``."""
    if not avatar.revision.same_model(revision):
        raise AvatarChanged(
            f"the network of {model_id} is here in revision {avatar.revision.model}; asked for is"
            f" {revision.model}"
        )


def _crops_needed(avatar: LoadedAvatar) -> CropsNeeded:
    here = "none of its frames are" if avatar.frames is None else "other frames of it are"
    return CropsNeeded(f"{here} where the network is; send what the network sees of them")
