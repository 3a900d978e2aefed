"""An avatar that speaks in this process: its frames, its network, its audio encoder."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lipwire.audio import AudioEncoder
from lipwire.avatars import DEFAULT_QUALITY, Avatar, Part, find_avatar
from lipwire.domain import InvalidInput
from lipwire.engine import Engine
from lipwire.session import Performer

CompileProgress = Callable[[int, int, str], None]
"""Called as (done, total, what) while an avatar is compiled; total is 0 where it is not known."""


@contextmanager
def open_performer(
    name_or_path: str | Path,
    *,
    parts: frozenset[Part],
    quality: int = DEFAULT_QUALITY,
    audio_encoder: Path | None = None,
    progress: CompileProgress | None = None,
) -> Iterator[Performer]:
    """An avatar ready to speak, compiled first where it is not; everything closes with the block.

    ``audio_encoder`` is used instead of the package's own. The network runs with one thread a call,
    and as many calls at a time as there are threads that make them: on two cores that took 44 ms of
    a frame's time where two threads a call took 90.

    Raises NotFound for an avatar that is not there, AvatarInvalid for a broken one, InvalidInput
    when neither the package nor the caller has an audio encoder, StorageFailed when the compiled
    form can be written nowhere.
    """
    path = name_or_path if isinstance(name_or_path, Path) else find_avatar(name_or_path)
    with Avatar.open(path, parts=parts, quality=quality, progress=progress) as avatar:
        encoder_path = audio_encoder or avatar.encoder_path
        if encoder_path is None:
            raise InvalidInput(
                f"avatar {avatar.name} has no audio encoder of its own; name the one it was "
                "trained with (--audio-encoder FILE.onnx)"
            )
        encoder = AudioEncoder.open(encoder_path)
        with Engine(threads=1) as engine:
            yield Performer(avatar, engine, engine.load(avatar.model_path), encoder)
