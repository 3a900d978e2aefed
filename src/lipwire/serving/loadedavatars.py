"""A loaded avatar: one entry of a server's registry, loaded once and evicted as a whole."""

from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock
from typing import Protocol

from lipwire.audio import silence_window
from lipwire.avatars import ALWAYS, DEFAULT_QUALITY, Avatar, Part, compile_avatar, read_package
from lipwire.avatars.compiled.compiling import CompiledParts
from lipwire.avatars.compiled.parts import FOR_GPU, MODEL_ONLY
from lipwire.avatars.compiled.restpart import stored_bytes
from lipwire.avatars.frames.framecache import FrameCache
from lipwire.avatars.package import BOTH, AvatarPackage
from lipwire.avatars.sandbox.sandbox import Sandbox
from lipwire.domain import (
    AudioWindows,
    AvatarFiles,
    Call,
    InvalidInput,
    Mouths,
    Revision,
    Visual,
)
from lipwire.registry import Loaded
from lipwire.serving.backend import DrawnFloatMouths, DrawnMouths, MakeCrops
from lipwire.serving.devices import Devices
from lipwire.serving.encoders import AudioEncoders, EncoderFile
from lipwire.serving.networkfacts import CompiledNetwork
from lipwire.serving.restmouths import RestMouths


class Network(Protocol):
    """Makes the mouths of one avatar: with a network that is loaded here, or by asking a server
    that has the network."""

    def mouths(
        self,
        first: int,
        windows: AudioWindows,
        *,
        crops: MakeCrops | None = None,
        call: Call | None = None,
    ) -> DrawnMouths:
        """Return mouths for frames ``first``, ``first + 1`` and so on, one for each of ``windows``,
        (N, 32, 16, 16) float32.

        The network is shown the avatar's own frames, or what ``crops()`` returns where it is given,
        (N, 320, 320, 3) uint8. ``call`` is the request that this is for. Raises InvalidInput for
        arrays of another shape, CropsNeeded where frames are missing and ``crops`` is None,
        AvatarChanged where the network is of another revision by now, AvatarInvalid where it fails,
        Overloaded where too many requests wait, Unavailable where it was unloaded or a server is
        gone, DeadlineExceeded and Cancelled where ``call`` ends before.
        """
        ...

    def mouths_of(
        self, visual: Visual, windows: AudioWindows, *, call: Call | None = None
    ) -> DrawnFloatMouths:
        """Return the network's own output, (N, 3, 320, 320) float32, for its own input: ``visual``,
        (N, 6, 320, 320), the crop and the crop with the mouth blacked out, and ``windows``, (N, 32,
        16, 16), both float32. ``call`` is the request that this is for.

        Raises InvalidInput for arrays of another shape, AvatarChanged where the network is of
        another revision by now, AvatarInvalid where it fails, Overloaded where too many requests
        wait, Unavailable where it was unloaded or a server is gone, DeadlineExceeded and Cancelled
        where ``call`` ends before.
        """
        ...


@dataclass(frozen=True, slots=True, eq=False)
class LoadedAvatar:
    """An avatar that a server has loaded: its ``frames``, None where only the network is here, and
    the ``network`` that makes its mouths.

    ``revision`` has the hashes of the frames and of the network that are here. Where one of the two
    is not here, its hash says nothing and may be empty. ``encoder`` is the file of its audio
    encoder as it was when the avatar was loaded; None where the avatar has none here.
    """

    frames: Avatar | None
    """The avatar's frames; None where only the network is here."""
    network: Network
    revision: Revision
    """Hashes of the frames and of the network that are here. The hash of a half that is not here is
    empty, or not to be compared."""
    encoder: EncoderFile | None = field(init=False)
    """Its audio encoder, as it was when the avatar was loaded; None where it has none here."""
    _rest: list[RestMouths] = field(init=False, default_factory=list)
    """Its rest mouths, once somebody has asked for them."""
    _lock: Lock = field(init=False, default_factory=Lock)

    def __post_init__(self) -> None:
        path = None if self.frames is None else self.frames.encoder_path
        object.__setattr__(self, "encoder", None if path is None else EncoderFile.at(path))

    def rest_mouths(self, encoders: AudioEncoders, call: Call | None = None) -> RestMouths:
        """Return the avatar's rest mouths, those of each frame for silence, which are shown while
        nobody speaks; the same object for all who ask.

        ``encoders`` opens the avatar's audio encoder, which makes the audio window of silence.
        ``call`` is the request that this is for. No mouth is made yet. Raises InvalidInput where
        the avatar has no frames or no audio encoder here, AvatarChanged where its audio encoder was
        replaced, AvatarInvalid where it is damaged, DeadlineExceeded where opening it takes longer
        than ``call`` has left, Overloaded where too many are in use, Unavailable where the server
        is stopping.
        """
        if self._rest:
            return self._rest[0]
        frames, network = self.frames, self.network
        if frames is None or self.encoder is None:
            lacking = "frames" if frames is None else "audio encoder"
            raise InvalidInput(f"the avatar has no {lacking} here, which its rest mouths are of")
        with encoders.use(self.encoder, call) as encoder:
            silence = silence_window(encoder)[None]

        def draw(first: int, windows: AudioWindows, call: Call | None) -> Mouths:
            return network.mouths(first, windows, call=call).pixels

        with self._lock:
            if not self._rest:
                self._rest.append(RestMouths(frames, draw, silence))
            return self._rest[0]

    def close(self) -> None:
        """Close the avatar's rest mouths. Frames and network are closed by whoever opened them."""
        for rest in self._rest:
            rest.close()


def load_avatar(
    model_id: str,
    where: AvatarFiles | Path,
    devices: Devices,
    *,
    parts: frozenset[Part],
    quality: int = DEFAULT_QUALITY,
    cache: FrameCache | None = None,
    sandbox: Sandbox | None = None,
) -> Loaded[LoadedAvatar]:
    """Open an avatar with its frames and its network, for a server that makes mouths and composes
    frames, and return it as a registry keeps it (``Loaded``): the avatar as ``value``, the
    ``bytes`` of memory that it takes, and ``close``, which closes it.

    ``where`` names the avatar's files, or the folder of its package. What is not compiled yet is
    compiled first. The network is loaded onto one of ``devices`` under the name ``model_id``.
    ``parts`` says which forms of the frames are needed (jpeg, pixels, planes), ``quality`` is that
    of JPEGs, 1 to 100, ``cache`` keeps decoded frames (None: the one that all avatars of this
    process share), and ``sandbox`` compiles what is missing in a process of its own (None: this
    process does).

    Raises NotFound where a file is missing, AvatarInvalid where one is damaged, InvalidInput for a
    quality or part that is not allowed, StorageFailed where compiled parts cannot be written,
    Overloaded where a GPU is full, Unavailable where no device is left.
    """
    package = read_package(where)
    compiled = compile_avatar(
        package, parts=parts | ALWAYS | _of_network(devices), quality=quality, sandbox=sandbox
    )
    with ExitStack() as opened:
        frames = opened.enter_context(Avatar(package, compiled, quality, parts, cache))
        return _loaded(model_id, package, compiled, frames, devices, opened)


def load_network(
    model_id: str,
    where: AvatarFiles | Path,
    devices: Devices,
    *,
    sandbox: Sandbox | None = None,
) -> Loaded[LoadedAvatar]:
    """Open an avatar's network, with its frames where they are there, for a server that sends
    mouths to other servers, and return it as a registry keeps it (``Loaded``): the avatar as
    ``value``, the ``bytes`` of memory that it takes, and ``close``, which closes it.

    ``where`` names the avatar's files, or the folder of its package. What is not compiled yet is
    compiled first, in the ``sandbox`` if there is one. The network is loaded onto one of
    ``devices`` under the name ``model_id``. A package in one folder has to have frames. Where files
    were named one by one the network alone is enough: if its frames are neither beside it nor where
    they are named, callers send crops.

    Raises NotFound where a file is missing, AvatarInvalid where one is damaged, InvalidInput where
    ``where`` names an audio encoder alone, StorageFailed where compiled parts cannot be written,
    Overloaded where a GPU is full, Unavailable where no device is left.
    """
    # No speech is heard here: a missing audio encoder is for the compositing server to say.
    files = replace(AvatarFiles.at(where), audio_encoder=None)
    pictured = [path for path in (files.frames, files.rectangles) if path is not None]
    there = bool(pictured) and all(path.exists() for path in pictured)
    alone = bool(files.named) and not there
    package = read_package(files, frozenset({"model"}) if alone else BOTH)
    parts = ALWAYS if package.frames is not None else MODEL_ONLY
    compiled = compile_avatar(package, parts=parts | _of_network(devices), sandbox=sandbox)
    with ExitStack() as opened:
        frames = None
        if package.frames is not None:
            frames = opened.enter_context(Avatar(package, compiled, DEFAULT_QUALITY))
        return _loaded(model_id, package, compiled, frames, devices, opened)


def mapped_bytes(frames: Avatar) -> int:
    """Return how many bytes of files are mapped into memory for an avatar's frames, with those of
    its rest mouths where they are compiled. Rest mouths that are not compiled take about as much
    memory of their own once they are asked for."""
    return frames.mapped_bytes + stored_bytes(frames.path, frames.files, frames.revision)


def _of_network(devices: Devices) -> frozenset[Part]:
    """What the network needs compiled besides what every device runs it with."""
    return FOR_GPU if devices.on_gpu else frozenset()


def _loaded(
    model_id: str,
    package: AvatarPackage,
    compiled: CompiledParts,
    frames: Avatar | None,
    devices: Devices,
    opened: ExitStack,
) -> Loaded[LoadedAvatar]:
    network = devices.network(
        model_id,
        CompiledNetwork(
            compiled.network,
            compiled.network_for_gpu,
            package.model_path,
            compiled.revision.model,
        ),
        frames,
    )
    opened.callback(network.close)
    avatar = LoadedAvatar(frames, network, compiled.revision)
    opened.callback(avatar.close)
    return Loaded(
        avatar,
        # Pages of both come and go with use; this is what they come to when all are in memory.
        network.weights_bytes + (0 if frames is None else mapped_bytes(frames)),
        opened.pop_all().close,
    )
