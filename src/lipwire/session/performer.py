"""An avatar with everything it needs to speak."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from lipwire.audio import AudioEncoder
from lipwire.avatars import Avatar
from lipwire.domain import Float32Array, UInt8Array
from lipwire.engine import Engine, Model
from lipwire.session.timing import Stopwatch


class Performing(Protocol):
    """An avatar that can be rendered: its frames, its audio encoder, and what makes its mouths. It
    may be used from several threads at once. ``Performer`` runs the network itself; a server's
    avatars have theirs run among the requests of others."""

    @property
    def avatar(self) -> Avatar:
        """The avatar's frames."""
        ...

    @property
    def encoder(self) -> AudioEncoder:
        """The audio encoder that the avatar's network was trained with."""
        ...

    def mouths(self, first: int, windows: Float32Array, watch: Stopwatch) -> UInt8Array:
        """Return the mouths of the avatar's frames ``first``, ``first + 1`` and so on (past the
        last, back and forth), one for each of ``windows``: (n, 32, 16, 16) float32 gives (n, 320,
        320, 3) uint8. ``watch`` adds up the time that it takes. Raises what the network raises."""
        ...


@dataclass(frozen=True, slots=True)
class Performer:
    """An opened avatar with the engine that runs its network, that network, and its audio encoder.

    Whoever built it closes them (see `lipwire.wiring`). All of them may be used from several
    threads at once.
    """

    avatar: Avatar
    engine: Engine
    model: Model
    encoder: AudioEncoder

    def mouths(self, first: int, windows: Float32Array, watch: Stopwatch) -> UInt8Array:
        """Return the mouths of the avatar's frames from ``first`` on, one for each of ``windows``.
        See ``Performing.mouths``."""
        with watch.measure("crop"):
            crops = np.stack([self.avatar.crop(first + i) for i in range(len(windows))])
        with watch.measure("network"):
            return self.engine.infer(self.model, crops, windows)
