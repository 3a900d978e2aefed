"""An avatar with everything it needs to speak."""

from dataclasses import dataclass

from lipwire.audio import AudioEncoder
from lipwire.avatars import Avatar
from lipwire.engine import Engine, Model


@dataclass(frozen=True, slots=True)
class Performer:
    """An opened avatar with its network and audio encoder, which belong together.

    Whoever built it closes them (see `lipwire.wiring`). All of them may be used from several
    threads at once.
    """

    avatar: Avatar
    engine: Engine
    model: Model
    encoder: AudioEncoder
