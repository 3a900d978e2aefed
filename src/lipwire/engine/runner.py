"""What the engine runs networks with: one runner for the processor, one for each GPU."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from lipwire.domain import AudioWindows, Form, UInt8Array
from lipwire.engine.graphs import RunPrecision


class Frames(Protocol):
    """The frames of an avatar, as an engine needs them: only their crops, the pictures of the face
    that the network is shown. Thread-safe."""

    @property
    def frame_count(self) -> int:
        """How many frames the avatar has."""

    def crop(self, index: int) -> UInt8Array:
        """Return the crop of frame ``index``, from 0 to ``frame_count`` - 1: (320, 320, 3) uint8,
        in the avatar's colour order. May raise an error where the crop cannot be read."""
        ...


class Network(Protocol):
    """An avatar's network that a ``Runner`` has loaded on its device."""

    @property
    def precision(self) -> RunPrecision:
        """The precision in which the network runs now: "single" (float32), "half" (float16, only on
        a GPU), or "bfloat16" (only on a processor)."""
        ...

    @property
    def on_gpu(self) -> bool:
        """Whether the network runs on a GPU."""

    @property
    def device_bytes(self) -> int:
        """Bytes of a GPU's memory that the network's weights take; 0 on the processor."""
        ...

    @property
    def in_kernels(self) -> bool:
        """Whether Lipwire's own kernels run the network where its input is crops of uint8; else
        ONNX Runtime runs it."""
        ...

    @property
    def keeps_crops(self) -> bool:
        """Whether crops (the pictures of the face that the network is shown) stay on the device
        after they were used."""
        ...

    @property
    def together(self) -> int | None:
        """A number that is the same for networks which can be run in one batch; None where this one
        has to run alone."""
        ...

    @property
    def warm(self) -> bool:
        """Whether the network's weights are on its device now, so that a run need not wait for a
        copy."""
        ...


N = TypeVar("N", bound=Network)
_N = TypeVar("_N", bound=Network, contravariant=True)


class Runner(Protocol[_N]):
    """Runs networks on one device, the processor or a GPU. Thread-safe. How networks are loaded is
    not the same for all runners, and not described here."""

    def prefetch(self, network: _N, /) -> bool:
        """Copy the weights of ``network`` to the device before they are used. Returns True, or
        False where there is no room for them. Raises Unavailable where the network was unloaded or
        the device has failed."""
        ...

    def run(
        self,
        network: _N,
        form: Form,
        faces: npt.NDArray[Any],
        windows: AudioWindows,
        mouths: npt.NDArray[Any],
        /,
    ) -> None:
        """Run ``network`` in ``form`` and write the mouths of N frames, at least 1, into
        ``mouths``.

        For "pixels" ``faces`` is crops and ``mouths`` is mouths, both (N, 320, 320, 3) uint8; for
        "floats" ``faces`` is (N, 6, 320, 320), the crops and then the crops with the mouth black,
        and ``mouths`` (N, 3, 320, 320), both float32, usually in [0, 1]; colours are in the
        avatar's order. ``windows`` are (N, 32, 16, 16) float32. Shapes and types are not checked.
        Raises AvatarInvalid where the network fails, Unavailable where the network was unloaded or
        the device has failed, Overloaded where the device has no room left, RuntimeError once this
        is closed.
        """
        ...

    def unload(self, network: _N, /) -> None:
        """Free the memory that ``network`` takes: at once, or when its last run is over, which is
        not waited for. Later runs raise Unavailable."""
        ...

    def close(self) -> None:
        """Free everything. Runs under way finish; later ones raise RuntimeError."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class NetworkRequest(Generic[N]):
    """N frames of one avatar, in a run of several avatars together: its ``network``; ``faces``,
    which are crops, (N, 320, 320, 3) uint8, or numbers of the avatar's frames; the audio windows
    (``speech``), (N, 32, 16, 16) float32; and the array into which the ``mouths`` are written, (N,
    320, 320, 3) uint8."""

    network: N
    faces: npt.NDArray[Any] | Sequence[int]
    """Pixels, or numbers of frames of its avatar."""
    speech: AudioWindows
    mouths: npt.NDArray[np.uint8]
    """(N, 320, 320, 3) uint8, into which the mouths are written."""
