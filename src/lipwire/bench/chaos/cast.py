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
_FRAMES: Final = _SPEECH_S * 25
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
    """One package, with the frames that a server has to send for it, by speech and frame."""

    package: Path
    frames: tuple[tuple[bytes, ...], ...]


@dataclass(frozen=True, slots=True)
class Question:
    """A request, with the answers that are right: all frames have to be of one of them."""

    request: CompositeBatchRequest
    answers: tuple[tuple[bytes, ...], ...]


class Role:
    """A name that the servers know, which is a link to a package. Thread-safe."""

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
        """Make the link lead to the next package, in one step. Not for use from several threads at
        once."""
        self._shown = (self._shown + 1) % len(self.looks)
        new = self._link.with_name(f".{self.name}.new")
        new.symlink_to(self.shown.package)
        new.replace(self._link)

    def ask(self, chance: random.Random, speeches: Sequence[Float32Array]) -> Question:
        """Return a request for frames of a random speech, in one of the three forms of requests,
        with the right answers. ``chance`` draws it. ``speeches`` are those that ``windows`` belong
        to, (n,) float32 at 16 kHz each.

        It may begin anywhere in the avatar's endless loop, at frames with the same backgrounds.
        """
        speech, form = chance.randrange(len(speeches)), chance.random()
        size = chance.randint(1, LARGEST_BATCH)
        if form < 0.2:
            pieces = requests_of_audio(self.name, speeches[speech], size)
            request = next(islice(pieces, chance.randrange(_FRAMES // size), None))
        else:
            windows = self.windows[speech]
            in_frames = form > 0.95 and len(self.looks) == 1
            size = min(size, _LARGEST_OF_FRAMES) if in_frames else size
            first = chance.randint(0, _FRAMES - size)
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

    def whole(self) -> Question:
        """Return a request for the beginning of the first speech, with the present package's frames
        as the only right answer."""
        part = self.windows[0][:LARGEST_BATCH]
        request = next(requests_of_windows(self.name, part, len(part)))
        return Question(request, (self.shown.frames[0][: len(part)],))


@dataclass(frozen=True, slots=True)
class Cast:
    """The avatars that clients may ask for, and the speeches."""

    models_root: Path
    roles: tuple[Role, ...]
    speeches: tuple[Float32Array, ...]

    @property
    def changing(self) -> list[Role]:
        """The roles whose packages may be replaced."""
        return [role for role in self.roles if len(role.looks) > 1]


def make_cast(folder: Path, *, changing: bool) -> Cast:
    """Make six packages under four names each in ``folder``, compiled; where ``changing``, also two
    names with two packages each. The frames that they have to show are made with ``lipwire.api``,
    without servers."""
    root = folder / "avatars"
    root.mkdir()
    speeches = tuple(_speech(number) for number in range(_SPEECHES))
    roles: list[Role] = []
    for number in range(_DISTINCT):
        look = _look(folder / f"package-{number}", speeches, frames=5 + number, seed=number)
        windows = _windows(look.package, speeches)
        roles += (
            Role(root / f"avatar-{number}-{copy}", [look], windows) for copy in range(_COPIES)
        )
    for number in range(_CHANGING if changing else 0):
        seed = 100 + 10 * number
        looks = [
            _look(
                folder / f"package-{seed + version}",
                speeches,
                frames=6,
                seed=seed + version,
                encoder_seed=seed,
            )
            for version in range(2)
        ]
        windows = _windows(looks[0].package, speeches)
        roles.append(Role(root / f"changing-{number}", looks, windows))
    _check_distinct(roles)
    return Cast(root, tuple(roles), speeches)


def _look(
    package: Path,
    speeches: Sequence[Float32Array],
    *,
    frames: int,
    seed: int,
    encoder_seed: int | None = None,
) -> Look:
    """A package and its frames, which ``lipwire.api`` makes."""
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


def _windows(package: Path, speeches: Sequence[Float32Array]) -> list[Float32Array]:
    with Avatar.open(package) as avatar:
        path = avatar.encoder_path
        if path is None:
            raise RuntimeError(f"{package.name} has lost its audio encoder")
        encoder = AudioEncoder.open(path)
    return [extract_windows(speech, encoder) for speech in speeches]


def _speech(seed: int) -> Float32Array:
    """(48000,) float32 in steps of 16-bit PCM: noise that swells and fades."""
    samples = _SPEECH_S * SAMPLE_RATE_HZ
    noise = np.random.default_rng(seed).normal(0, 3000, samples)
    swell = np.abs(np.sin(np.arange(samples) * (2 + seed) / SAMPLE_RATE_HZ))
    return (np.rint(noise * swell).clip(-32768, 32767) / 32768).astype(np.float32)


def _check_distinct(roles: Sequence[Role]) -> None:
    """A wrong avatar, frame or speech has to be seen as such."""
    looks = {look.package: look for role in roles for look in role.looks}.values()
    for number in range(_FRAMES):
        seen = [frames[number] for look in looks for frames in look.frames]
        if len(set(seen)) < len(seen):
            raise RuntimeError(f"two avatars or speeches look alike at frame {number}")
