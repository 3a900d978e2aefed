"""Which version of an avatar a video is made with: hashes of its frames, its network and its audio
encoder, the same on every machine."""

from collections.abc import Callable
from functools import lru_cache
from typing import Final

from lipwire.domain import Call
from lipwire.registry import Registry
from lipwire.renders.files import hash_of
from lipwire.serving import LoadedAvatar
from lipwire.serving.encoders import EncoderFile

_LOAD_TIMEOUT_S: Final = 120.0


class AvatarVersions:
    """Tells which versions of avatars a server has now: call it with a name. Thread-safe."""

    def __init__(
        self, avatars: Registry[LoadedAvatar], network: Callable[[str, Call], str]
    ) -> None:
        """``avatars`` gives avatars with their frames. ``network(name, call)`` has the network of
        an avatar loaded, where it is not in this process, and returns its revision, empty where
        that is not known."""
        self._avatars = avatars
        self._network = network

    def __call__(self, name: str) -> str:
        """Return the version of the avatar ``name``, which is loaded where it is not; empty where
        it is not known. Raises what loading raises (NotFound, AvatarInvalid, Overloaded, ...)."""
        with self._avatars.use(name, timeout_s=_LOAD_TIMEOUT_S) as loaded:
            model = loaded.revision.model
            if not model:
                model = self._network(name, Call(_LOAD_TIMEOUT_S, service="render"))
            return version_of(loaded, model)


def version_of(loaded: LoadedAvatar, model: str) -> str:
    """Return the version of the avatar ``loaded`` with the network of revision ``model``, a hash: a
    text with the hashes of frames, network and audio encoder; empty where one of them is not known.
    Reads the encoder's file when it is first asked for. Raises StorageFailed where that cannot be
    read."""
    frames = "" if loaded.frames is None else loaded.frames.revision.frames
    if not (frames and model and loaded.encoder):
        return ""
    return f"{frames} {model} {_hash_of(loaded.encoder)}"


@lru_cache(maxsize=1000)
def _hash_of(encoder: EncoderFile) -> str:
    """Of the content of an audio encoder's file, which is another one when it is replaced."""
    return hash_of(encoder.path)
