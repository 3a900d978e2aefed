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
    may be used from several threads at once. A ``Performer`` runs the network itself; for a
    server's avatars, the network's runs are shared with other requests."""

    @property
    def avatar(self) -> Avatar:
        """The avatar's frames."""
        ...

    @property
    def encoder(self) -> AudioEncoder:
        """The audio encoder that the avatar's network was trained with: it makes of speech what the
        network hears."""
        ...

    def mouths(self, first: int, windows: Float32Array, watch: Stopwatch) -> UInt8Array:
        """Return the mouths of the avatar's frames ``first``, ``first + 1`` and so on (past the
        last, back and forth), one for each of ``windows``, which are what the network hears of each
        of these frames: (n, 32, 16, 16) float32 gives (n, 320, 320, 3) uint8, BGR or RGB as the
        package's ``colour_order`` says. Waits for the network. ``watch`` adds up the time of the
        stages "crop" and "network". Raises the errors of the network: AvatarInvalid, Unavailable;
        for a server's avatars also NotFound, AvatarChanged, and Cancelled where the request
        ends."""
        ...


@dataclass(frozen=True, slots=True)
class Performer:
    """An opened avatar with the engine that runs its network, that network (``model``), and its
    audio encoder.

    Whoever built it closes them (see `lipwire.wiring`). All of them may be used from several
    threads at once.
    """

    avatar: Avatar
    engine: Engine
    model: Model
    encoder: AudioEncoder

    def mouths(self, first: int, windows: Float32Array, watch: Stopwatch) -> UInt8Array:
        """Return the mouths, (n, 320, 320, 3) uint8, of the n frames of the avatar from number
        ``first`` on, one for each of ``windows``, (n, 32, 16, 16) float32. ``watch`` adds up the
        time. See ``Performing.mouths``."""
        with watch.measure("crop"):
            crops = np.stack([self.avatar.crop(first + i) for i in range(len(windows))])
        with watch.measure("network"):
            return self.engine.infer(self.model, crops, windows)
