"""Where mouths come from: what a compositing server asks of the networks, near or far.

There are three backends. ``LocalBackend`` runs the networks on one device of this process,
``DevicesBackend`` on several, and ``RemoteBackend`` asks inference servers. Whoever holds one need
not know which.
"""

from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

import numpy as np

from lipwire.domain import Float32Array, UInt8Array


@dataclass(frozen=True, slots=True)
class Mouths:
    """What the network drew for consecutive frames."""

    pixels: UInt8Array
    """(N, 320, 320, 3) uint8 in the package's colour order."""

    gpu_id: int
    """Number of the device that drew them; 0 where it was a processor."""

    inference_ms: float
    """How long the network ran, waiting not counted."""


@dataclass(frozen=True, slots=True)
class FloatMouths:
    """What the network drew, as the network itself gives it: the guide's form."""

    values: Float32Array
    """(N, 3, 320, 320) float32, by custom in [0, 1], in the package's colour order."""

    gpu_id: int
    """As in ``Mouths``."""

    inference_ms: float
    """As in ``Mouths``."""

    def as_mouths(self) -> Mouths:
        """The same as uint8, rounded to the nearest, ties to even; what is outside is clipped.

        As the networks' own pixels form does it; what is no number becomes 0.
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
        return Mouths(pixels, self.gpu_id, self.inference_ms)


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """One loaded network."""

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
    loaded_in: int = 1
    """Processes of that server which hold it; the numbers are of all of them together."""


@dataclass(frozen=True, slots=True)
class GpuStatus:
    """One GPU that networks run on, or ran on."""

    index: int
    name: str
    loaded_models: int
    memory_bytes: int
    """All of its memory; 0 where that is not known."""
    used_bytes: int
    """By all programs together, as seen last; 0 where that is not known."""
    utilisation: float
    """Share of the last moments in which it was at work, 0 to 1; 0 where that is not known."""
    lost: str = ""
    """Why it is out, in one line; empty where it is not."""
    server: str = ""
    """Address of the server that it is in; empty where it is this process."""


@dataclass(frozen=True, slots=True)
class BackendHealth:
    """Whether mouths can be had, and from how much."""

    healthy: bool
    gpu_count: int
    loaded_models: int
    max_models: int
    version: str
    detail: str = ""
    """One line on what is wrong, or on which servers answer; for people, may name addresses."""
    gpus: tuple[GpuStatus, ...] = ()
    """Those that were lost included; none where networks run on a processor."""


class Backend(Protocol):
    """A source of mouths. Methods may be called from any number of threads.

    ``timeout_s`` is what the caller has left, waiting and retries included. Where it is None and
    the thread works for a call (``lipwire.rpc.calls``), it is what that call has left, and else no
    limit; ``RemoteBackend`` has one of its own besides. When that call ends early, work for it is
    given up where that still helps, and raises Cancelled. Every method raises Unavailable,
    Overloaded and DeadlineExceeded besides what it names.
    """

    def mouths(
        self,
        model_id: str,
        first: int,
        windows: Float32Array,
        *,
        revision: str = "",
        timeout_s: float | None = None,
    ) -> Mouths:
        """Mouths for frames ``first``, ``first + 1`` and so on, one for each of ``windows``.

        The crops are the avatar's own, so only speech goes in: ``windows`` is (N, 32, 16, 16)
        float32. ``revision`` (``Avatar.revision``) is that of the frames which the mouths will be
        pasted into; empty: of any. Raises AvatarChanged where the newest network is of another one,
        NotFound, InvalidInput, AvatarInvalid.
        """
        ...

    def mouths_of(
        self,
        model_id: str,
        visual: Float32Array,
        windows: Float32Array,
        *,
        revision: str = "",
        timeout_s: float | None = None,
    ) -> FloatMouths:
        """The guide's form: ``visual`` (N, 6, 320, 320) float32 and ``windows`` (N, 32, 16, 16).

        Raises as ``mouths``.
        """
        ...

    def load(self, model_id: str, *, timeout_s: float | None = None) -> ModelStatus:
        """Have the network ready before it is asked for. Raises NotFound, AvatarInvalid."""
        ...

    def unload(self, model_id: str, *, timeout_s: float | None = None) -> bool:
        """Let go of it, once calls under way are done; False where it was not loaded."""
        ...

    def models(self, *, timeout_s: float | None = None) -> tuple[ModelStatus, ...]:
        """The networks that are loaded, in the order of their names."""
        ...

    def health(self, *, timeout_s: float | None = None) -> BackendHealth:
        """Whether the next call is likely to be answered. Raises nothing: trouble is an answer."""
        ...

    def close(self) -> None:
        """Let go of everything; later calls raise Unavailable. Closing twice is fine."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...
