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
    """Returns the versions of avatars that a server has now: ``versions(name)`` is the version of
    the avatar ``name``, a text (see ``version_of``), empty where it is not known. The call loads
    the avatar where it is not loaded, and raises NotFound, AvatarInvalid or Overloaded where that
    fails. Thread-safe."""

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
    """Return the version of the avatar ``loaded`` with the network of revision ``model``, a hash:
    the hashes of its frames, network and audio encoder, with spaces between. Empty where one of the
    three is not known. Reads the encoder's file the first time. Raises StorageFailed where that
    file cannot be read."""
    frames = "" if loaded.frames is None else loaded.frames.revision.frames
    if not (frames and model and loaded.encoder):
        return ""
    return f"{frames} {model} {_hash_of(loaded.encoder)}"


@lru_cache(maxsize=1000)
def _hash_of(encoder: EncoderFile) -> str:
    """Of the content of an audio encoder's file, which is another one when it is replaced."""
    return hash_of(encoder.path)
