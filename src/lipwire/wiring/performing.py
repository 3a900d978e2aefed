"""An avatar that speaks in this process: its frames, its network, its audio encoder."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np

from lipwire.audio import AudioEncoder, extract_windows, sample_speech
from lipwire.avatars import (
    ALWAYS,
    DEFAULT_QUALITY,
    Avatar,
    Part,
    compile_avatar,
    find_avatar,
    read_package,
)
from lipwire.domain import CompileProgress, InvalidInput, ping_pong
from lipwire.engine import Engine
from lipwire.session import Performer

_TRIED_FRAMES: Final = 12


@contextmanager
def open_performer(
    name_or_path: str | Path,
    *,
    parts: frozenset[Part],
    quality: int = DEFAULT_QUALITY,
    audio_encoder: Path | None = None,
    progress: CompileProgress | None = None,
) -> Iterator[Performer]:
    """Give the ``with`` block an avatar ready to speak, compiled first where need be, and close
    everything afterwards. A context manager. ``name_or_path`` is the avatar's folder, a Path, or
    its name or its folder, a str. What is wrong with the package's files or the audio encoder is
    raised before anything is compiled.

    ``parts`` are the compiled parts that will be used ("jpeg", "pixels" or "planes": forms of
    frames), ``quality`` is that of JPEG, 1 to 100, ``audio_encoder`` is an ONNX file that is used
    instead of the package's own (None: that one), and ``progress(done, total, what)`` is called
    while something is compiled. The network runs with one thread a call, and as many calls at a
    time as there are threads that make them: on two cores that took 44 ms of a frame's time where
    two threads a call took 90.

    Raises NotFound for an avatar that is not there, AvatarInvalid for a broken one, InvalidInput
    when neither the package nor the caller has an audio encoder, StorageFailed when the compiled
    form can be written nowhere.
    """
    path = name_or_path if isinstance(name_or_path, Path) else find_avatar(name_or_path)
    package = read_package(path)
    encoder_path = audio_encoder or package.encoder_path
    if encoder_path is None:
        raise InvalidInput(
            f"avatar {package.name} has no audio encoder of its own; name the one it was "
            "trained with (--audio-encoder FILE.onnx)"
        )
    encoder = AudioEncoder.open(encoder_path)  # before compiling, which may take minutes
    compiled = compile_avatar(package, parts=parts | ALWAYS, quality=quality, progress=progress)
    with Avatar(package, compiled, quality, parts) as avatar, Engine(threads=1) as engine:
        yield Performer(avatar, engine, engine.load(avatar.model_path), encoder)


def specialised(performer: Performer, lanes: int) -> tuple[Performer | None, str]:
    """Return (performer, ""): a performer of the same avatar whose network runs specialised for
    this processor (by OpenVINO), in bfloat16, for up to ``lanes`` threads at a time. Where that is
    not possible, return (None, reason), the reason in one line. What is opened for the new
    performer is closed with the engine of ``performer``, which stays usable.

    The first time on this machine it takes seconds: mouths for a recorded sentence that comes with
    Lipwire are made in bfloat16 and in float32, and compared. The result is kept, so later calls
    give the same answer.
    """
    avatar, engine = performer.avatar, performer.engine
    model = engine.load(avatar.model_path, source=avatar.network_source)
    windows = extract_windows(sample_speech(), performer.encoder)
    chosen = np.linspace(0, len(windows) - 1, _TRIED_FRAMES).astype(int)
    numbers = [ping_pong(int(number), avatar.frame_count) for number in chosen]
    crops = np.concatenate([avatar.crops(number, 1) for number in numbers])
    reason = engine.specialise(model, crops, windows[chosen], lanes=lanes)
    if reason is not None:
        engine.unload(model)
        return None, reason
    return Performer(avatar, engine, model, performer.encoder), ""
