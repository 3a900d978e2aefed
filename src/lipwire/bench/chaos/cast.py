"""Avatars that can be told apart, and every frame that they have to show."""

import random
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np

from lipwire.api import open_avatar
from lipwire.audio import AudioEncoder, extract_windows
from lipwire.avatars import Avatar
from lipwire.bench.coldstart import write_package
from lipwire.bench.randomnetworks import Widths, write_tiny_audio_encoder, write_tiny_unet
from lipwire.domain import SAMPLE_RATE_HZ, Float32Array
from lipwire.rpc.generated.compositing_pb2 import CompositeBatchRequest
from lipwire.rpc.requests import requests_of_audio, requests_of_frames, requests_of_windows

_SIZE: Final = (320, 240)
_NARROW: Final[Widths] = (4, 4, 4, 4, 4)
_SPEECHES: Final = 2
_SPEECH_S: Final = 3
LARGEST_BATCH: Final = 47
"""1 to 47 at random are 24 on average."""
_LARGEST_OF_FRAMES: Final = 4
"""In the guide's form: 2.4 MB a frame."""
_DISTINCT: Final = 6
_COPIES: Final = 4
_CHANGING: Final = 2
_FARTHEST: Final = 1_000


@dataclass(frozen=True, slots=True)
class Look:
    """One avatar package, with the JPEG files that a server has to send for it:
    ``frames[speech][frame]``."""

    package: Path
    frames: tuple[tuple[bytes, ...], ...]


@dataclass(frozen=True, slots=True)
class Question:
    """A request, with the answers that are right: each is a tuple of JPEG files, one a frame, and
    all frames of the server's answer have to be of the same one."""

    request: CompositeBatchRequest
    answers: tuple[tuple[bytes, ...], ...]


class Role:
    """An avatar's name that the servers know: a symbolic link to one of several packages, which may
    be replaced while they run. Thread-safe."""

    def __init__(self, link: Path, looks: Sequence[Look], windows: Sequence[Float32Array]) -> None:
        """``looks`` are the packages that may be behind ``link``; the first is, to begin with. They
        have one audio encoder, whose ``windows`` of each speech are (75, 32, 16, 16)."""
        self.name: Final = link.name
        self.looks: Final = tuple(looks)
        self._link = link
        self.windows: Final = windows
        self._shown = 0
        link.symlink_to(looks[0].package)
        with Avatar.open(looks[0].package) as avatar:
            self._period = max(1, 2 * (avatar.frame_count - 1))

    @property
    def shown(self) -> Look:
        """The package that the link leads to, which new requests get from a moment after
        ``replace`` on."""
        return self.looks[self._shown]

    def replace(self) -> None:
        """Make the link lead to the next package of ``looks``, behind the last to the first, in one
        step; with a single package nothing changes. Not for use from several threads at once."""
        self._shown = (self._shown + 1) % len(self.looks)
        new = self._link.with_name(f".{self.name}.new")
        new.symlink_to(self.shown.package)
        new.replace(self._link)

    def ask(
        self,
        chance: random.Random,
        speeches: Sequence[Float32Array],
        *,
        largest: int = LARGEST_BATCH,
    ) -> Question:
        """Return a request for 1 to ``largest`` frames of one of ``speeches``, with windows, audio
        or the avatar's frames, and with the right answers; ``chance`` draws all of this.
        ``speeches`` are those that the role's windows were made of, in their order, (n,) float32 at
        16 kHz each.

        It may begin at any frame of the avatar's loop that shows the same frames as the beginning.
        """
        speech, form = chance.randrange(len(speeches)), chance.random()
        frames = len(self.windows[speech])
        size = chance.randint(1, min(largest, frames))
        if form < 0.2:
            pieces = requests_of_audio(self.name, speeches[speech], size)
            request = next(islice(pieces, chance.randrange(frames // size), None))
        else:
            windows = self.windows[speech]
            in_frames = form > 0.95 and len(self.looks) == 1
            size = min(size, _LARGEST_OF_FRAMES) if in_frames else size
            first = chance.randint(0, frames - size)
            part = windows[first : first + size]
            if in_frames:
                with Avatar.open(self.looks[0].package) as avatar:
                    request = next(requests_of_frames(self.name, avatar, part, size, first))
            else:
                request = next(requests_of_windows(self.name, part, size, first))
        first, size = request.start_frame_idx, request.batch_size
        request.start_frame_idx += self._period * chance.randrange(_FARTHEST)
        answers = tuple(look.frames[speech][first : first + size] for look in self.looks)
        return Question(request, answers)

    def whole(self, most: int = LARGEST_BATCH) -> Question:
        """Return a request for the first ``most`` frames of the first speech, or as many as there
        are, with the present package's frames as the only right answer."""
        part = self.windows[0][:most]
        request = next(requests_of_windows(self.name, part, len(part)))
        return Question(request, (self.shown.frames[0][: len(part)],))


@dataclass(frozen=True, slots=True)
class Cast:
    """The avatars that clients may ask for (``roles``), which lie in the folder ``models_root``,
    and the speeches that they say, (n,) float32 at 16 kHz each."""

    models_root: Path
    roles: tuple[Role, ...]
    speeches: tuple[Float32Array, ...]

    @property
    def changing(self) -> list[Role]:
        """The roles (names of avatars) that have several packages, which may be replaced by one
        another."""
        return [role for role in self.roles if len(role.looks) > 1]


def make_cast(folder: Path, *, changing: bool) -> Cast:
    """Make six packages in ``folder``, compiled, each of which four names lead to; where
    ``changing``, also two names with two packages each. The frames that they have to show are made
    with ``lipwire.api``, without servers. Raises RuntimeError where two of them look alike
    (``check_distinct``)."""
    root = folder / "avatars"
    root.mkdir()
    speeches = tuple(make_speech(number) for number in range(_SPEECHES))
    roles: list[Role] = []
    for number in range(_DISTINCT):
        look = make_look(folder / f"package-{number}", speeches, frames=5 + number, seed=number)
        windows = windows_of(look.package, speeches)
        roles += (
            Role(root / f"avatar-{number}-{copy}", [look], windows) for copy in range(_COPIES)
        )
    for number in range(_CHANGING if changing else 0):
        seed = 100 + 10 * number
        looks = [
            make_look(
                folder / f"package-{seed + version}",
                speeches,
                frames=6,
                seed=seed + version,
                encoder_seed=seed,
            )
            for version in range(2)
        ]
        windows = windows_of(looks[0].package, speeches)
        roles.append(Role(root / f"changing-{number}", looks, windows))
    check_distinct(roles)
    return Cast(root, tuple(roles), speeches)


def make_look(
    package: Path,
    speeches: Sequence[Float32Array],
    *,
    frames: int,
    seed: int,
    encoder_seed: int | None = None,
) -> Look:
    """Write the avatar package ``package``, a new folder, with ``frames`` frames and networks of
    random weights, drawn from ``seed`` (the audio encoder's from ``encoder_seed``, where that is
    given), and return it with the frames in which it says ``speeches``, (n,) float32 at 16 kHz
    each, made by ``lipwire.api``."""
    write_package(package, frames, _SIZE, _NARROW, seed)
    checkpoint = package / "checkpoint"
    write_tiny_unet(checkpoint / "model_best.onnx", seed=seed)
    write_tiny_audio_encoder(
        checkpoint / "audio_encoder.onnx", seed if encoder_seed is None else encoder_seed
    )
    with open_avatar(package, outputs=("jpeg",)) as avatar:
        spoken = []
        for speech in speeches:
            with closing(avatar.speak(speech)) as shown:
                spoken.append(tuple(frame.jpeg() for frame in shown))
    return Look(package, tuple(spoken))


def windows_of(package: Path, speeches: Sequence[Float32Array]) -> list[Float32Array]:
    """Return what the network of the avatar in the folder ``package`` hears of each of
    ``speeches``, (n,) float32 at 16 kHz: one array each, (frames, 32, 16, 16) float32."""
    with Avatar.open(package) as avatar:
        path = avatar.encoder_path
        if path is None:
            raise RuntimeError(f"{package.name} has lost its audio encoder")
        encoder = AudioEncoder.open(path)
    return [extract_windows(speech, encoder) for speech in speeches]


def make_speech(seed: int, seconds: int = _SPEECH_S) -> Float32Array:
    """Return ``seconds`` of noise that swells and fades, drawn from ``seed``: (n,) float32 at 16
    kHz in steps of 16-bit PCM."""
    samples = seconds * SAMPLE_RATE_HZ
    noise = np.random.default_rng(seed).normal(0, 3000, samples)
    swell = np.abs(np.sin(np.arange(samples) * (2 + seed) / SAMPLE_RATE_HZ))
    return (np.rint(noise * swell).clip(-32768, 32767) / 32768).astype(np.float32)


def check_distinct(roles: Sequence[Role]) -> None:
    """Check that the frames of ``roles`` can be told apart. Raises RuntimeError where, at some
    frame number, the JPEG files of two packages, or of two speeches of one package, are the same:
    then a wrong avatar, frame or speech would not be noticed."""
    looks = {look.package: look for role in roles for look in role.looks}.values()
    for number in range(min(len(frames) for look in looks for frames in look.frames)):
        seen = [frames[number] for look in looks for frames in look.frames]
        if len(set(seen)) < len(seen):
            raise RuntimeError(f"two avatars or speeches look alike at frame {number}")
