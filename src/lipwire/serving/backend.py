"""What gives mouths to others by an avatar's name: the protocol of a backend, and its answers.

There are two backends. ``LocalBackend`` runs the networks on the devices of this process, and
``RemoteBackend`` asks inference servers. Callers need not know which of them they have.
"""

from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

import numpy as np

from lipwire.domain import (
    ANY_REVISION,
    AudioWindows,
    Call,
    Crops,
    FloatMouths,
    Mouths,
    Revision,
    Visual,
)

MakeCrops = Callable[[], Crops]
"""Returns the crops of a request's frames: (N, 320, 320, 3) uint8, in the package's colour order.
Called where the backend is without those frames, perhaps more than once."""


@dataclass(frozen=True, slots=True)
class DrawnMouths:
    """Mouths that a network made for consecutive frames: ``pixels``, (N, 320, 320, 3) uint8, in the
    colour order of the avatar's package ("bgr" or "rgb"). ``gpu_id`` is the number of the device
    that made them, as CUDA counts, 0 where it was a processor. ``inference_ms`` is how long the
    network ran, without the time that the request waited. ``revision`` is the hash of the network's
    file, as ``Revision.model`` has it; empty where that is not known."""

    pixels: Mouths
    """(N, 320, 320, 3) uint8, in the package's colour order."""

    gpu_id: int
    """Number of the device that made them, as CUDA counts; 0 where it was a processor."""

    inference_ms: float
    """How long the network ran, without the time that the request waited."""

    revision: str = ""
    """The hash of the network's file, as ``Revision.model`` has it; empty where not known."""


@dataclass(frozen=True, slots=True)
class DrawnFloatMouths:
    """Mouths that a network made for consecutive frames, as floats, which is what networks make
    themselves: ``values``, (N, 3, 320, 320) float32, by custom in [0, 1], in the colour order of
    the avatar's package ("bgr" or "rgb"). ``gpu_id`` is the number of the device that made them, as
    CUDA counts, 0 where it was a processor. ``inference_ms`` is how long the network ran, without
    the time that the request waited."""

    values: FloatMouths
    """(N, 3, 320, 320) float32, by custom in [0, 1], in the package's colour order."""

    gpu_id: int
    """Number of the device that made them, as CUDA counts; 0 where it was a processor."""

    inference_ms: float
    """How long the network ran, without the time that the request waited."""

    def as_mouths(self) -> DrawnMouths:
        """Return these mouths as uint8 pixels: times 255, clipped to 0...255, rounded, ties to
        even.

        NaN becomes 0. The result is what the network gives where it is asked for uint8.
        """
        count, channels, height, width = self.values.shape
        pixels = np.empty((count, height, width, channels), np.uint8)
        for frame, values in zip(pixels, self.values, strict=True):
            # One frame at a time: its passes stay in the cache.
            scaled = values * np.float32(255)
            np.fmax(scaled, 0, out=scaled)
            np.fmin(scaled, 255, out=scaled)
            np.rint(scaled, out=scaled)
            frame[...] = scaled.transpose(1, 2, 0)
        return DrawnMouths(pixels, self.gpu_id, self.inference_ms)


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """Numbers about the loaded network of avatar ``model_id``.

    ``gpu_id`` is the number of its device, as CUDA counts. ``memory_bytes`` are the bytes of its
    mapped weights and, where the backend has them, of its avatar's mapped crops; ``device_bytes``
    those that its weights take of the GPU, or of memory where it runs on the processor, 0 where
    another process has loaded it. ``use_count`` is how many calls have used it since it was loaded,
    and ``in_use`` how many use it now; ``idle_s`` is how many seconds ago it was last used, 0 while
    it is in use. ``runner`` and ``precision`` say how it is run now (``Running``); empty where that
    is not known. ``server`` is the address of the server that has loaded it, empty for this
    process; ``loaded_in`` is how many processes of that server have loaded it. ``revision`` is the
    hash of its file, as ``Revision.model`` has it; empty where that is not known.
    """

    model_id: str
    gpu_id: int
    memory_bytes: int
    """Measured: mapped weights and, where the backend holds them, mapped crops."""
    use_count: int
    """Calls of ``mouths`` and ``mouths_of`` since it was loaded."""
    idle_s: float
    """Seconds since it was last used; 0 while in use."""
    in_use: int = 0
    """Calls under way. It is not unloaded before they are done."""
    server: str = ""
    """Address of the server that holds it; empty where it is this process."""
    device_bytes: int = 0
    """Bytes that its weights take of the GPU, or of memory where it runs on the processor; 0 where
    another process holds it."""
    runner: str = ""
    """What runs it now, as ``Running`` has it; empty where that is not known."""
    precision: str = ""
    """The precision that it runs in now; empty where that is not known."""
    loaded_in: int = 1
    """Processes of that server which hold it; the numbers are of all of them together."""
    revision: str = ""
    """The hash of the network's file, as ``Revision.model`` has it; empty where not known."""


@dataclass(frozen=True, slots=True)
class GpuStatus:
    """The state of a GPU that networks run on, or ran on before it was lost.

    ``index`` is its number, as CUDA counts. ``loaded_models`` networks are on it. ``memory_bytes``
    is all of its memory, ``used_bytes`` what all programs together used when it was last looked at,
    ``utilisation`` the share of the last moments in which it was at work, 0 to 1; each is 0 where
    it is not known. ``lost`` is why it is lost, in one line; empty where it is not. ``server`` is
    the address of the server that it is in; empty where that is this process.
    """

    index: int
    name: str
    loaded_models: int
    memory_bytes: int
    """All of its memory; 0 where that is not known."""
    used_bytes: int
    """Bytes of its memory that all programs together used when it was last looked at; 0 where that
    is not known."""
    utilisation: float
    """Share of the last moments in which it was at work, 0 to 1; 0 where that is not known."""
    lost: str = ""
    """Why it is out, in one line; empty where it is not."""
    server: str = ""
    """Address of the server that it is in; empty where it is this process."""


@dataclass(frozen=True, slots=True)
class BackendHealth:
    """Whether a backend can make mouths, and how much it holds.

    ``gpu_count`` is how many GPUs there are, without lost ones. ``loaded_models`` is how many
    networks are loaded, ``max_models`` how many may be. ``version`` is Lipwire's. ``detail`` is one
    line for people on what is wrong, or on which servers answer. ``gpus`` has lost GPUs, too, and
    is empty where networks run on a processor. ``live_sessions`` is how many live sessions have
    reserved what they take (``Backend.acquire``), ``live_capacity`` how many could at most; 0 where
    nothing was measured yet.
    """

    healthy: bool
    gpu_count: int
    loaded_models: int
    max_models: int
    version: str
    detail: str = ""
    """One line on what is wrong, or on which servers answer; for people, may name addresses."""
    gpus: tuple[GpuStatus, ...] = ()
    """Those that were lost included; none where networks run on a processor."""
    live_sessions: int = 0
    """Live sessions that hold a lease."""
    live_capacity: int = 0
    """How many would fit; 0 where nothing was measured yet."""


class Backend(Protocol):
    """What makes mouths, the pictures of the mouth region that an avatar's network draws: this
    process, or servers that are asked. Methods may be called from any number of threads.

    ``call`` is the request that a method works for. The method ends by its deadline, waiting and
    retries included; when the call ends early, the work is given up where that still saves
    something, and the method raises Cancelled. Its class ("live", "batch" or "render") and its
    tenant say when frames are run among those of others. Without a ``call`` the class is batch, and
    there is no limit of time, but ``RemoteBackend`` has one of its own. Every method but
    ``health``, ``release`` and ``close`` raises Unavailable, Overloaded and DeadlineExceeded
    besides what its description names.
    """

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
        for each of ``windows``, the audio windows, (N, 32, 16, 16) float32.

        ``revision`` (``Avatar.revision``) is that of the avatar whose frames the mouths will be
        pasted into. Where the backend has these very frames, it shows them to the network;
        elsewhere ``crops()`` is called, which returns the pictures that the network is to see, (N,
        320, 320, 3) uint8.

        Raises AvatarChanged where the newest network is of another revision, CropsNeeded where the
        backend is without these frames and ``crops`` is None, NotFound where there is no avatar
        ``model_id``, InvalidInput where ``first`` is below 0 or an array has another shape or
        values, AvatarInvalid where the network cannot be loaded or fails.
        """
        ...

    def mouths_of(
        self,
        model_id: str,
        visual: Visual,
        windows: AudioWindows,
        *,
        revision: Revision = ANY_REVISION,
        call: Call | None = None,
    ) -> DrawnFloatMouths:
        """Return the network's own output, (N, 3, 320, 320) float32, for its own input: ``visual``,
        (N, 6, 320, 320), the crop and the crop with the mouth blacked out, and ``windows``, (N, 32,
        16, 16), both float32.

        ``model_id`` names the avatar. Of ``revision`` only the hash of the network
        (``Revision.model``) is compared. Raises AvatarChanged where the newest network is of
        another revision, NotFound where there is no avatar ``model_id``, InvalidInput for arrays of
        other shapes or values, AvatarInvalid where its network cannot be loaded or fails.
        """
        ...

    def load(self, model_id: str, *, call: Call | None = None) -> ModelStatus:
        """Load the network of avatar ``model_id`` before mouths of it are asked for, wait until it
        is loaded, and return its numbers. ``call`` is the request that this is for. Raises NotFound
        where there is no such avatar, AvatarInvalid where its network cannot be loaded."""
        ...

    def unload(self, model_id: str, *, call: Call | None = None) -> bool:
        """Unload the network of avatar ``model_id``: new calls do not find it, and it is freed when
        the calls that use it now have finished, which is not waited for. Returns True, or False
        where it was not loaded. ``call`` is the request that this is for."""
        ...

    def models(self, model_id: str = "", *, call: Call | None = None) -> tuple[ModelStatus, ...]:
        """Return numbers about each loaded network, in the order of their avatars' names. Where
        ``model_id`` names an avatar, return those about its network alone; an empty tuple where
        that is not loaded. ``call`` is the request that this is for."""
        ...

    def acquire(self, holder: str, model_id: str, call: Call) -> None:
        """Reserve, or renew, what a live session of avatar ``model_id`` takes of the device that
        runs its network: a lease, which lasts 4 seconds (``LEASE_S``) unless it is renewed.

        ``holder`` is the session's name, 1 to 200 characters, chosen by the caller and different
        for each session. ``call`` is the request that this is for; DeadlineExceeded is raised where
        its deadline passes before. Raises Overloaded, with how many sessions run and how many fit,
        where there is no room for it; NotFound where there is no such avatar, InvalidInput for a
        ``holder`` of another length, AvatarInvalid where the network cannot be loaded or fails.
        """
        ...

    def release(self, holder: str) -> None:
        """Give back what ``acquire`` has reserved for the live session ``holder``, the name that it
        was given. Does nothing where it has reserved nothing. Raises nothing: a reservation that
        cannot be given back ends by itself, within 4 seconds (``LEASE_S``)."""
        ...

    def health(self, *, call: Call | None = None) -> BackendHealth:
        """Return whether the next call will probably be answered, and how much the backend holds.
        ``call`` is the request that this is for. Raises nothing."""
        ...

    def close(self) -> None:
        """Free everything; later calls raise Unavailable. Closing twice is allowed."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...
