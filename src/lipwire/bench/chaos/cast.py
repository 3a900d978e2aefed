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
    """One avatar package (a folder, ``package``), with the JPEG files that a server has to send for
    it: ``frames[speech][frame]``, both indices from 0."""

    package: Path
    frames: tuple[tuple[bytes, ...], ...]


@dataclass(frozen=True, slots=True)
class Question:
    """A request, and the answers to it that are right. Each answer is a tuple of JPEG files, one
    for each frame; the server's frames have to equal one of these tuples as a whole."""

    request: CompositeBatchRequest
    answers: tuple[tuple[bytes, ...], ...]


class Role:
    """An avatar's name that the servers know: a symbolic link to one of several packages.
    ``replace`` makes the link lead to another package while the servers run. Thread-safe, except
    for ``replace``."""

    def __init__(self, link: Path, looks: Sequence[Look], windows: Sequence[Float32Array]) -> None:
        """``looks`` are the packages that the link may lead to; it leads to the first in the
        beginning. All have the same audio encoder. ``windows`` is what a network hears of each
        speech, (75, 32, 16, 16) float32 each."""
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
        """The package that the link leads to. Servers use it for new requests a moment after
        ``replace`` was called."""
        return self.looks[self._shown]

    def replace(self) -> None:
        """Make the link lead to the next package of ``looks``, in one step; after the last one
        comes the first. With a single package nothing changes. Only one thread at a time may call
        it."""
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
        """Return a request for 1 to ``largest`` successive frames of one of ``speeches``, with the
        answers that are right. ``speeches`` are those from which the role's windows were made, in
        the same order, (n,) float32 at 16 kHz each. ``chance`` draws the speech, the frames, and
        what the request carries: windows, audio, or the avatar's frames as well.

        The request may begin any number of rounds later in the avatar's loop (forward and back
        again), where the same frames are shown.
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
        """Return a request for the first ``most`` frames of the first speech, or for all of them
        where it has fewer. The only right answer is the frames of the package that the link leads
        to now."""
        part = self.windows[0][:most]
        request = next(requests_of_windows(self.name, part, len(part)))
        return Question(request, (self.shown.frames[0][: len(part)],))


@dataclass(frozen=True, slots=True)
class Cast:
    """The avatars that clients may ask for, by their names (``roles``); the folder in which these
    lie (``models_root``); and the ``speeches`` that they say, (n,) float32 at 16 kHz each."""

    models_root: Path
    roles: tuple[Role, ...]
    speeches: tuple[Float32Array, ...]

    @property
    def changing(self) -> list[Role]:
        """The roles that have several packages, so that ``Role.replace`` changes what they show."""
        return [role for role in self.roles if len(role.looks) > 1]


def make_cast(folder: Path, *, changing: bool) -> Cast:
    """Make six compiled packages in ``folder``, each with four names (``Role``) that lead to it.
    Where ``changing``, add two names with two packages each. The frames that they have to show are
    made with ``lipwire.api``, without servers. Raises RuntimeError where two packages or speeches
    look alike (``check_distinct``)."""
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
    """Write an avatar package into ``package``, a new folder, with ``frames`` frames, and return it
    with the JPEG files of the frames in which it says ``speeches``, made by ``lipwire.api``.
    ``speeches`` are (n,) float32 at 16 kHz each. The networks have random weights drawn from
    ``seed``; those of the audio encoder are drawn from ``encoder_seed``, or with None from
    ``seed``."""
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
